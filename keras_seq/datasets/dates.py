"""Dates as people write them, each beside its ISO form."""

import datetime
from typing import TYPE_CHECKING

import numpy as np

from keras_seq.extras import needed

if TYPE_CHECKING:
    import tensorflow_datasets as tfds
else:
    tfds = needed("tensorflow_datasets", "datasets")

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

FORMS = (  # fields: d, dd, nth the day; m, mm, mon, month; y, yy the year
    "{month} {d}, {y}",
    "{month} {nth}, {y}",
    "{mon} {dd} {y}",
    "{month} {d}, '{yy}",
    "{d} {month} {y}",
    "{nth} {month} {y}",
    "{d} {mon} '{yy}",
    "the {nth} of {month} {y}",
    "the {nth} of {month}, '{yy}",
    "{dd}-{mon}-{y}",
    "{y} {mon} {d}",
    "{y}/{mm}/{dd}",
    "{mm}/{dd}/{yy}",
    "{m}/{d}/{y}",
    "{d}.{m}.{y}",
    "{dd}.{mm}.{yy}",
)
LEADS = ("", "{weekday}, ", "{weekday} ", "{wd} ", "{wd}, ")  # what may stand before a form
CASES = {"lower": str.lower, "names": str, "upper": str.upper}  # of letters; "names" capitalises months and weekdays
WITHOUT = 0.6  # how often no weekday stands before the date

FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)  # so that two digits say which century
SPLITS = {"train": 20_000, "validation": 1_000, "test": 2_000}
SEED = 1582


def write_date(day, form, lead="", case="names"):
    """One date in one of the human forms.

    Args:
        day: a `datetime.date` of 1950 to 2049.
        form: one of `FORMS`; its two-digit years are those of 1950 to 2049.
        lead: one of `LEADS`: whether and how the weekday stands before it.
        case: "lower", "upper", or "names", where months and weekdays begin with a capital.

    Returns:
        A string.

    Raises:
        TypeError: where `day` is no `datetime.date`.
        ValueError: a day outside these years, an unknown form, lead or case.

    Example:

    ```python
    import datetime
    from keras_seq.datasets.dates import write_date
    print(write_date(datetime.date(2021, 3, 3), "{month} {nth}, {y}", "{weekday}, "))  # Wednesday, March 3rd, 2021
    ```
    """
    if not isinstance(day, datetime.date):
        raise TypeError(f"day: expected a datetime.date, got {type(day).__name__}")
    if not FIRST.year <= day.year <= LAST.year:
        raise ValueError(f"day: expected one of the years {FIRST.year} to {LAST.year}, got {day.isoformat()}")
    for name, value, known in (("form", form, FORMS), ("lead", lead, LEADS), ("case", case, CASES)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {list(known)}, got {value!r}")
    month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    number = {"d": day.day, "dd": f"{day.day:02}", "nth": f"{day.day}{_ending(day.day)}"}
    names = {"mon": month[:3], "month": month, "wd": weekday[:3], "weekday": weekday}
    others = {"m": day.month, "mm": f"{day.month:02}", "y": day.year, "yy": f"{day.year % 100:02}"}
    return CASES[case]((lead + form).format(**number, **names, **others))


class HumanDates(tfds.core.GeneratorBasedBuilder):
    """Dates in sixteen human forms, to be written as year-month-day: a translation that attention solves.

    Each day of 1950 to 2049 is in one split at most, so that a date of `test` occurs in `train` in no form whatever. A
    date is written by lot: in one of `FORMS`, in lower case, in upper case, or with capitals where names begin; with its
    weekday, which is the right one, before it in two of five examples. What a form leaves open is settled so:

    - with slashes the month comes first ("03/04/21" is 4 March), unless a year of four digits leads ("2021/03/04");
    - with dots the day comes first ("3.4.2021" is 3 April);
    - two digits of a year, with or without an apostrophe, mean 1950 to 2049 ("'50" is 1950, "'49" is 2049).

    Nothing is downloaded, and the same dates come every time.

    Each example is a dict of:

    - `human`: string, 8 to 37 characters, such as "Wednesday, March 3rd, 2021", "wed the 3rd of march, '21",
      "03-MAR-2021";
    - `iso`: string, 10 characters: "2021-03-03".

    Splits: `train` 20000, `validation` 1000, `test` 2000.

    Example:

    ```python
    import keras_seq.datasets
    import tensorflow_datasets as tfds

    dates = tfds.load("human_dates", split="train")
    for date in dates.take(3):
        print(date["human"].numpy().decode(), "->", date["iso"].numpy().decode())
    ```
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS declares it so)
    url_infos = None  # nothing to download; TFDS 4.9.10 looks for checksums through a package that it does not install

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Dates written in many human forms, each beside its ISO form.",
            features=tfds.features.FeaturesDict({"human": tfds.features.Text(), "iso": tfds.features.Text()}),
            supervised_keys=("human", "iso"),
        )

    def _split_generators(self, dl_manager):
        days = np.random.default_rng(SEED).permutation((LAST - FIRST).days + 1)
        bounds = np.cumsum([0, *SPLITS.values()])
        return {
            split: self._generate_examples(split, days[start : start + size])
            for (split, size), start in zip(SPLITS.items(), bounds[:-1], strict=True)
        }

    def _generate_examples(self, split, days):
        rng = np.random.default_rng([SEED, tuple(SPLITS).index(split)])
        for index, since_first in enumerate(days):
            day = FIRST + datetime.timedelta(days=int(since_first))
            lead = LEADS[0] if rng.random() < WITHOUT else _choose(LEADS[1:], rng)
            human = write_date(day, _choose(FORMS, rng), lead, _choose(tuple(CASES), rng))
            yield index, {"human": human, "iso": day.isoformat()}


def _ending(number):
    """Of an ordinal number below 100: 1st, 2nd, 3rd, 4th, 11th, 21st."""
    return "th" if number // 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _choose(items, rng):
    return items[rng.integers(len(items))]

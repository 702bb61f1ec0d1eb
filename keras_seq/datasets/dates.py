"""Dates as people write them, each beside its ISO form."""

import datetime
import string
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
PARTS = ("day", "month", "year")
FIELDS = {"d": 0, "dd": 0, "nth": 0, "m": 1, "mm": 1, "mon": 1, "month": 1, "y": 2, "yy": 2}  # of which part each is
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
    return CASES[case]((lead + form).format(**_fields(day)))


def date_spans(day, form, lead=""):
    """Where day, month and year stand in what `write_date` gives of the same arguments, in any case of letters.

    Args:
        day, form, lead: as in `write_date`.

    Returns:
        A list of `(start, stop, type)` in their order: "day", "month" and "year", letters from start up to, and without, stop.

    Raises:
        TypeError, ValueError: as `write_date` does.

    Example:

    ```python
    import datetime
    from keras_seq.datasets.dates import date_spans
    print(date_spans(datetime.date(2021, 3, 3), "{nth} {month} {y}"))  # [(0, 3, 'day'), (4, 9, 'month'), (10, 14, 'year')]
    ```
    """
    write_date(day, form, lead)
    spans, fields, end = [], _fields(day), 0
    for text, field, *_ in string.Formatter().parse(lead + form):
        start = end + len(text)
        end = start + len(fields[field] if field else "")
        if field in FIELDS:
            spans.append((start, end, PARTS[FIELDS[field]]))
    return spans


def _fields(day):
    """What stands for each field of a form or lead."""
    month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    number = {"d": day.day, "dd": f"{day.day:02}", "nth": f"{day.day}{_ending(day.day)}"}
    names = {"mon": month[:3], "month": month, "wd": weekday[:3], "weekday": weekday}
    others = {"m": day.month, "mm": f"{day.month:02}", "y": day.year, "yy": f"{day.year % 100:02}"}
    return {name: str(value) for name, value in {**number, **names, **others}.items()}


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
    - `iso`: string, 10 characters: "2021-03-03";
    - `spans`: integers (3, 2), where day, month and year stand in `human`: their first letters, and those after their last.

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

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "First version.", "1.1.0": "Where day, month and year stand; the same dates."}  # noqa: RUF012 (TFDS declares it so)
    url_infos = None  # nothing to download; TFDS 4.9.10 looks for checksums through a package that it does not install

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Dates written in many human forms, each beside its ISO form.",
            features=tfds.features.FeaturesDict(
                {
                    "human": tfds.features.Text(),
                    "iso": tfds.features.Text(),
                    "spans": tfds.features.Tensor(shape=(3, 2), dtype=np.int32),
                }
            ),
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
            form = _choose(FORMS, rng)
            human = write_date(day, form, lead, _choose(tuple(CASES), rng))
            found = {kind: (start, stop) for start, stop, kind in date_spans(day, form, lead)}
            yield index, {"human": human, "iso": day.isoformat(), "spans": np.int32([found[part] for part in PARTS])}


def _ending(number):
    """Of an ordinal number below 100: 1st, 2nd, 3rd, 4th, 11th, 21st."""
    return "th" if number // 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _choose(items, rng):
    return items[rng.integers(len(items))]

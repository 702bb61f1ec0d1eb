"""Human dates: a reader written apart from the writer finds the day that stands beside each."""

import datetime
import re

import pytest
import tensorflow_datasets as tfds

from keras_seq.datasets import dates
from keras_seq.datasets.dates import FORMS, LEADS, HumanDates, write_date

ISO = r"\d{4}-\d\d-\d\d"
WEEKDAY = re.compile(r"^(mon|tues?|wed(?:nes)?|thur?s?|fri|sat(?:ur)?|sun)(?:day)?,? ")
WORDS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
NUMBERS = {  # of what is left without weekday and words: which group is the year, the month, the day
    r"(\d{4})/(\d\d)/(\d\d)": (1, 2, 3),
    r"(\d\d?)/(\d\d?)/(\d\d|\d{4})": (3, 1, 2),
    r"(\d\d?)\.(\d\d?)\.(\d\d|\d{4})": (3, 2, 1),
}


def full_year(text):
    return int(text) if len(text) == 4 else 1900 + int(text) + (100 if int(text) < 50 else 0)


def understood(text):
    """`(day, number of the weekday or None)` by regular expressions."""
    text = text.lower()
    lead = WEEKDAY.match(text)
    weekday = None if lead is None else ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].index(lead[1][:3])
    text = text[lead.end() :] if lead else text
    for pattern, groups in NUMBERS.items():
        if found := re.fullmatch(pattern, text):
            year, month, day = (found[g] for g in groups)
            return datetime.date(full_year(year), int(month), int(day)), weekday
    (name,) = [word for word in re.findall("[a-z]+", text) if word[:3] in WORDS]
    assert datetime.date(2000, WORDS.index(name[:3]) + 1, 1).strftime("%B").lower() == name or len(name) == 3
    year = re.search(r"\d{4}|(?<=')\d\d$", text)
    (day,) = re.findall(r"\d+", text[: year.start()] + text[year.end() :])
    return datetime.date(full_year(year[0]), WORDS.index(name[:3]) + 1, int(day)), weekday


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    builder = tfds.builder("human_dates", data_dir=tmp_path_factory.mktemp("whole"))
    builder.download_and_prepare()
    examples = {}
    for split in dates.SPLITS:
        found = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        pairs = zip(found["human"], found["iso"], strict=True)
        examples[split] = [(human.decode(), iso.decode()) for human, iso in pairs]
    return builder, examples


def test_splits_have_their_size_and_no_day_is_in_two(whole):
    builder, examples = whole
    assert {split: len(own) for split, own in examples.items()} == {"train": 20000, "validation": 1000, "test": 2000}
    days = [iso for own in examples.values() for _, iso in own]
    assert len(set(days)) == len(days) == 23000
    again = tfds.load("human_dates", split="test", data_dir=builder.data_dir_root, download=False, as_supervised=True)
    assert [spec.dtype.name for spec in again.element_spec] == ["string", "string"]


@pytest.mark.parametrize("split", dates.SPLITS)
def test_the_day_beside_each_date_is_the_right_one_and_its_weekday_too(whole, split):
    with_weekday = 0
    for human, iso in whole[1][split]:
        day, weekday = understood(human)
        assert day.isoformat() == iso, human
        assert re.fullmatch(ISO, iso)
        assert weekday in (None, day.weekday()), human
        assert 8 <= len(human) <= 37
        with_weekday += weekday is not None
    assert 0.36 < with_weekday / len(whole[1][split]) < 0.44


def test_spans_are_where_day_month_and_year_stand(whole):
    found = tfds.as_numpy(whole[0].as_dataset(split="test", batch_size=-1))
    for human, iso, spans in zip(found["human"], found["iso"], found["spans"], strict=True):
        day, month, year = (human.decode()[start:stop].lower() for start, stop in spans)
        wanted = datetime.date.fromisoformat(iso.decode())
        assert int(re.sub("st|nd|rd|th", "", day)) == wanted.day
        assert full_year(year) == wanted.year
        assert (int(month) if month.isdigit() else WORDS.index(month[:3]) + 1) == wanted.month
        stops = [stop for _, stop in spans]
        assert human[max(stops) :] == b"", "nothing stands behind the last of them"


def test_all_forms_years_and_cases_occur_about_evenly(whole):
    counts, cases, years = dict.fromkeys(FORMS, 0), dict.fromkeys(("lower", "upper", "names"), 0), set()
    for human, iso in whole[1]["train"]:
        day = datetime.date.fromisoformat(iso)
        years.add(day.year)
        plain = WEEKDAY.sub("", human.lower())
        own = [form for form in FORMS if write_date(day, form, case="lower") == plain]
        assert own, human
        for form in own:
            counts[form] += 1 / len(own)
        if letters := re.sub("[^a-zA-Z]", "", human):
            cases["lower" if letters.islower() else "upper" if letters.isupper() else "names"] += 1
    assert years == set(range(1950, 2050))
    assert max(counts.values()) < 1.3 * min(counts.values())
    assert max(cases.values()) < 1.2 * min(cases.values())


def test_the_splits_are_written_alike_but_not_the_same(whole):
    shapes = {
        split: {re.sub(r"\d+", "0", re.sub("[a-zA-Z]+", "a", human)) for human, _ in own}
        for split, own in whole[1].items()
    }
    assert shapes["test"] == shapes["train"] == shapes["validation"]


def test_building_twice_gives_the_same_bytes(tmp_path):
    found = []
    for name in ("first", "second"):
        builder = HumanDates(data_dir=tmp_path / name)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(max_examples_per_split=50))
        found.append({p.name: p.read_bytes() for p in builder.data_path.iterdir() if "tfrecord" in p.name})
    assert len(found[0]) == len(set(found[0].values())) == 3
    assert found[0] == found[1]


MARCH, DECEMBER = datetime.date(2021, 3, 3), datetime.date(1950, 12, 22)


@pytest.mark.parametrize(
    ("day", "number", "lead", "case", "expected"),
    [
        (MARCH, 0, "", "lower", "march 3, 2021"),
        (MARCH, 1, "{weekday}, ", "names", "Wednesday, March 3rd, 2021"),
        (MARCH, 2, "", "lower", "mar 03 2021"),
        (DECEMBER, 3, "", "names", "December 22, '50"),
        (MARCH, 4, "", "names", "3 March 2021"),
        (DECEMBER, 5, "{wd} ", "upper", "FRI 22ND DECEMBER 1950"),
        (datetime.date(2049, 9, 11), 6, "", "names", "11 Sep '49"),
        (MARCH, 7, "", "lower", "the 3rd of march 2021"),
        (datetime.date(2001, 5, 1), 8, "{weekday} ", "upper", "TUESDAY THE 1ST OF MAY, '01"),
        (MARCH, 9, "", "lower", "03-mar-2021"),
        (MARCH, 10, "", "lower", "2021 mar 3"),
        (MARCH, 11, "{wd}, ", "names", "Wed, 2021/03/03"),
        (DECEMBER, 12, "", "lower", "12/22/50"),
        (MARCH, 13, "", "upper", "3/3/2021"),
        (DECEMBER, 14, "", "names", "22.12.1950"),
        (MARCH, 15, "", "names", "03.03.21"),
    ],
)
def test_each_form(day, number, lead, case, expected):
    assert write_date(day, FORMS[number], lead, case) == expected


def test_endings_of_ordinal_numbers():
    written = [write_date(datetime.date(2000, 1, d), "{nth} {month} {y}").split()[0] for d in range(1, 32)]
    special = {1: "1st", 2: "2nd", 3: "3rd", 21: "21st", 22: "22nd", 23: "23rd", 31: "31st"}
    assert written == [special.get(d, f"{d}th") for d in range(1, 32)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("2021-03-03", FORMS[0]), TypeError, "day: expected a datetime.date, got str"),
        ((datetime.date(1949, 12, 31), FORMS[0]), ValueError, "day: expected one of the years 1950 to 2049, .*1949"),
        ((MARCH, "{y}"), ValueError, "form: expected one of .*, got '{y}'"),
        ((MARCH, FORMS[0], "on "), ValueError, "lead: expected one of .*, got 'on '"),
        ((MARCH, FORMS[0], LEADS[0], "title"), ValueError, r"case: expected one of \['lower', .*, got 'title'"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        write_date(*arguments)

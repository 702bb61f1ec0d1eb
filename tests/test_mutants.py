"""The mutants themselves: that a place is found by what it is, and that what is not there, or twice, is said."""

import importlib
import types
from pathlib import Path

import mutants
import pytest
from mutants import argument, call, calls, caught, choice, display, item, loop, mutate, negated, op, statement, without


class Subject:
    def first(self, xs, scale=2):
        total = 0
        for x in xs:
            total = total + x * scale
        return {"sum": total, "least": min(xs, key=lambda y: y), "all": [xs[0], "end"]} if len(xs) > 1 else None

    @property
    def second(self):
        return self.first((1, 2), scale=3)["sum"] - 1

    @classmethod
    def third(cls, a, b):
        return super().__name__ if a is b else (a, b, a < b)


XS = (3, 1, 2)
SUM = {"sum": 12, "least": 1, "all": [3, "end"]}


@pytest.mark.parametrize(
    ("place", "change", "expected"),
    [
        (op("*", "scale"), "{0} - {1}", {**SUM, "sum": 0}),
        (op("+", op("*")), "{1.0}", {**SUM, "sum": 2}),
        (statement(within=loop()), "pass", {**SUM, "sum": 0}),
        (call("min"), calls("max"), {**SUM, "least": 3}),
        (call("min"), argument("key", "lambda y: -({})(y)"), {**SUM, "least": 3}),
        (item(0), "{0}[1]", {**SUM, "all": [1, "end"]}),
        (display("end", nth=1), "[{1}, {0}]", {**SUM, "all": ["end", 3]}),
        (display("end", nth=1), without("end"), {**SUM, "all": [3]}),
        (display("least"), without("least"), {"sum": 12, "all": [3, "end"]}),
        (choice("len"), negated, None),
        (op(">"), "len(xs) > 3", None),
    ],
    ids=range(11),  # a function has another name in every process
)
def test_what_is_changed(place, change, expected, monkeypatch):
    mutate(monkeypatch, Subject, "first", place, change)
    assert Subject().first(XS) == expected
    monkeypatch.undo()
    assert Subject().first(XS) == SUM


def test_properties_class_methods_and_functions_of_modules(monkeypatch):
    mutate(monkeypatch, Subject, "second", call("first"), without("scale"))
    assert Subject().second == 5
    mutate(monkeypatch, Subject, "third", op("<"), "{0} > {1}")
    assert Subject.third(1, 2) == (1, 2, False)
    mutate(monkeypatch, mutants, "label", call("split"), "['', {0}]")
    assert mutants.label is label
    assert label(types, "f", op("+"), "{0}") == "..f-+()-{0}"


label = mutants.label


@pytest.mark.parametrize(
    ("place", "count"), [(op("/"), 0), (call("min", "max"), 0), (item(nth=1), 0), (item(within=loop()), 0)], ids=str
)
def test_a_place_that_is_not_there_is_named(place, count, monkeypatch):
    with pytest.raises(AssertionError, match=rf"Subject.first: .* is there {count} times, expected once: say anew"):
        mutate(monkeypatch, Subject, "first", place, "{0}")


def test_two_places_and_no_change_are_named(monkeypatch):
    with pytest.raises(AssertionError, match=r"Subject.first: call\(\) is there 2 times, expected once"):
        mutate(monkeypatch, Subject, "first", call(None), "{0}")
    with pytest.raises(AssertionError, match="nothing is changed by"):
        mutate(monkeypatch, Subject, "first", op("*"), "{0} * {1}")


def test_only_an_assertion_counts():
    def check(error):
        raise error

    caught(check, AssertionError())
    with pytest.raises(KeyError):
        caught(check, KeyError())
    with pytest.raises(pytest.fail.Exception):
        caught(lambda: None)


TABLES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\nMUTANTS = [" in path.read_text())
assert "cell_mutants" in TABLES  # or none would be looked through in silence


@pytest.mark.parametrize("table", TABLES)
def test_every_place_of_the_tables_is_in_the_package(table, monkeypatch):
    """A function that has another name now is missed here, in seconds, not in the long tests alone."""
    module = importlib.import_module(table)
    assert module.MUTANTS
    for owner, name, place, change, *_ in [*module.MUTANTS, *getattr(module, "EQUIVALENTS", [])]:
        with monkeypatch.context() as context:
            mutate(context, owner, name, place, change)

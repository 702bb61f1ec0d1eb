"""What a stranger's cell is held to by `keras_seq.testing.check_cell` our own are held to, check by check."""

import contextlib
import functools

import pytest
from cases import CASES, KINDS, QUICK

from keras_seq.testing.checks import CHECKS
from keras_seq.testing.table import NotThisCell


def distinct(cases):
    """Cases whose cells differ. A check runs a cell on true outputs anyway, and leaves zoneout to the check of it."""
    found = {}
    for case in cases:
        arguments = {name: value for name, value in case.arguments.items() if name != "zoneout"}
        found.setdefault(str((case.layer, arguments, case.cell)), case)
    return list(found.values())


@functools.cache
def subject(case_name):
    return next(case for case in CASES if case.name == case_name).subject()


COMPILED = {"eager, graph, XLA", "any size", ".keras file", "saved model"}
WRAPPED = {"checkpoint, truncate", "dropout", "learned initial states"}
LONG = {*WRAPPED, "any size", "saved model", "Keras's loop", "mixed_float16"}


def row(case, check):
    """Every check of one cell, and what is quick of one cell of each class."""
    quick = case in QUICK and (case.layer == "LSTM" or check.name not in LONG)
    return pytest.param(case.name, check, id=f"{case.name}: {check.name}", marks=() if quick else pytest.mark.deep)


# a further switch of a kind of cell is not compiled and saved as well, nor are the engine's and the layer's ways to run it
ROWS = [
    row(case, check)
    for case in distinct(CASES)
    for check in CHECKS
    if case in KINDS or check.name not in COMPILED | WRAPPED
]


@pytest.mark.parametrize(("case", "check"), ROWS)
def test_check(case, check):
    with contextlib.suppress(NotThisCell):
        check.run(subject(case))

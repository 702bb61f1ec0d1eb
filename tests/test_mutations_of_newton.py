"""Faults made on purpose in Newton's method over all steps."""

import pytest
from cases import Case
from mutants import argument, call, caught, choice, crashes, mutate, named, op, suite

from keras_seq.engine import pairs
from keras_seq.engine.tensorflow import newton, step

pytestmark = [pytest.mark.deep, pytest.mark.mutation]


def newtons(test, *given):
    return crashes(suite(f"engine/test_newton.py::{test}", *given))


VALUES = newtons("test_values_and_gradients_are_those_of_the_loop", Case("LSTM"))
ITERATIONS = newtons("test_iterations_do_not_grow_with_the_length")
DIAGONAL = newtons("test_the_diagonal_of_the_jacobian")
MATRICES = newtons("test_a_recurrence_of_matrices", 7)
DOUBLED = newtons("test_a_recurrence_of_matrices", None)
OVERFLOW = newtons("test_states_that_would_overflow_are_damped")
ADJOINT = newtons("test_with_whole_jacobians_the_gradient_needs_no_iterations")
SIZES = newtons("test_auto_is_the_whole_jacobian_of_small_states")

MUTANTS = [
    (newton._Steps, "before", call("concat"), "states", [VALUES]),
    (newton._Steps, "_unless_masked", choice("mask"), "new", [VALUES]),
    (newton._Steps, "linearised", call("eye"), "tf.zeros_like(found)", [ADJOINT]),
    (newton, "_solve", call("where", "step"), "states + step", [OVERFLOW]),
    (newton, "_solve", op("/", "share"), "share", [OVERFLOW]),
    (newton, "_solve", op("-", "wanted", "states", nth=1), "{1} - {0}", [VALUES]),
    (newton, "_is_full", op("<="), "{0} > {1}", [SIZES]),
    (newton, "_implicit", call("matrix_transpose"), "{0}", [ADJOINT]),
    (newton, "_implicit", call("reverse", nth=0), "{0}", [ADJOINT]),
    (newton, "_implicit", op("+", "of_outputs"), "of_outputs", [VALUES]),
    (newton, "_implicit", op("+", "given"), "given - found", [VALUES]),
    (step, "step_diagonal", call("stop_gradient"), "{0}", [DIAGONAL]),
    (step, "step_diagonal", call("transpose"), "{0}", [DIAGONAL]),
    (pairs, "_joined", call("times", nth=2), "{1}", [MATRICES]),
    (pairs, "by_doubling", call("moved_on", nth=0), "{0}", [DOUBLED]),
    (pairs, "by_doubling", call("moved_on", nth=1), "{0}", [DOUBLED]),
    (pairs, "moved_on", call("pad"), argument(1, "[(0, shape[0]), *{}[1:]]"), [DOUBLED]),
]


def test_nothing_is_caught_without_a_fault():
    for *_, checks in MUTANTS:
        for check in checks:
            check()


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)

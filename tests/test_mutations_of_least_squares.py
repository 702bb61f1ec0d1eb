"""Faults made on purpose in Levenberg-Marquardt and the Jacobians under it."""

import pytest
from mutants import call, caught, choice, constant, crashes, display, item, module, mutate, named, op, statement, suite

from keras_seq.training import LevenbergMarquardt, float64_copy, levenberg, pieces, residuals
from keras_seq.training.memory_sensitivities import MemoryLoop
from keras_seq.training.residuals import Residuals
from keras_seq.training.sensitivities import Sensitivities

pytestmark = [pytest.mark.deep, pytest.mark.mutation]

MODELS = dict(getattr(case, "values", case) for case in module("training/test_levenberg_jacobians.py").MODELS)


def of(file, test, *given):
    return suite(f"training/test_{file}.py::{test}", *given)


def jacobian(name):
    return of("levenberg_jacobians", "test_the_jacobian_is_that_of_backpropagation", name, MODELS[name])


MINIMUM = of("levenberg_oracles", "test_the_minimum_is_that_of_scipy")
LOSS = of("levenberg", "test_the_loss_is_that_of_keras_with_weights_and_masks", "steps")
FLOAT64 = of("levenberg", "test_in_float64_whatever_the_type_of_the_model", "float32")
HELD_OUT = of("levenberg", "test_validation_ends_a_fit_with_the_best_weights")
EVIDENCE = of("levenberg_oracles", "test_bayesian_estimates_are_those_of_the_evidence")
EXPLODES = of("levenberg", "test_a_start_that_explodes_does_not_win")
BEST = of("levenberg", "test_the_best_of_all_starts_wins")
WHERE = of("levenberg", "test_a_run_that_diverges_says_where_and_changes_nothing")
UNREAD = of("levenberg", "test_what_has_no_weight_is_not_read")
PIECES = of("free_run_pieces", "test_pieces_of_a_free_run")


def batches():
    with pytest.MonkeyPatch.context() as patch:
        of("levenberg", "test_in_batches_as_at_once", patch)()


MUTANTS = [
    (levenberg._Point, "step", op("<", "then", "now"), "True", [MINIMUM]),
    (levenberg._Point, "step", op("neg", "gradient"), "{0}", [crashes(MINIMUM)]),
    (levenberg._Point, "_estimate", op("-", "n", "effective"), "{0}", [EVIDENCE]),
    (levenberg._Point, "_estimate", op("+", "ratio", nth=0), "{0}", [EVIDENCE]),
    (levenberg._Point, "_estimate", op("-", "fitted"), "{0}", [EVIDENCE]),
    (levenberg._Point, "_gradient", op("+"), "{0}", [EVIDENCE]),
    (levenberg._Fit, "go", op("<", "score", "kept"), "{1} < {0}", [HELD_OUT]),
    (levenberg._Fit, "go", op("<", "kept", "least"), "True", [BEST]),
    (LevenbergMarquardt, "fit", item("starts", "number"), "start", [crashes(EXPLODES)]),
    (Residuals, "drawn", call("array_equal"), "False", [of("levenberg_refusals", "test_refused", "drawn alike")]),
    (Residuals, "current", op("!="), "False", [crashes(of("levenberg_refusals", "test_refused", "frozen since"))]),
    (levenberg._Fit, "go", op("not", "count"), "False", [of("levenberg_refusals", "test_refused", "all masked")]),
    (Residuals, "_weighted", call("sqrt"), "{0}", [LOSS]),
    (Residuals, "_weighted", op("*", "mask", "cast"), "{0}", [LOSS]),
    (residuals, "prepared", call("where", "weight"), "y", [crashes(UNREAD)]),
    (residuals, "_batches", call("zeros"), "np.ones({0})", [batches]),
    (residuals, "divergence", op("<="), "np.isfinite(outputs)", [WHERE]),
    (Sensitivities, "_push", op("-", "first"), "{0}", [jacobian("dense")]),
    (Sensitivities, "_push", call("of"), "tf.zeros_like({})", [jacobian("masked")]),
    (MemoryLoop, "_step", statement("matmul", "dx"), "pass", [jacobian("memories")]),
    (MemoryLoop, "_step", statement("where", "fed"), "pass", [jacobian("narx closed")]),
    (MemoryLoop, "_loop", op(">=", "known"), "{0} > {1}", [jacobian("narx closed")]),
    (Sensitivities, "_pick", call("of"), "tf.zeros_like({})", [jacobian("narx closed")]),
    (levenberg._Point, "_move", choice("Normal"), "self.normal", [MINIMUM]),
    (MemoryLoop, "_step", op("+", "of_weights"), "{1}", [jacobian("narx closed")]),
    (MemoryLoop, "_loop", call("_where", "output"), "output", [jacobian("masked, last")]),
    (MemoryLoop, "_loop", call("_where", "n"), "n", [jacobian("masked")]),
    (MemoryLoop, "_steps", choice("go_backwards"), "{1}", [jacobian("backwards")]),
    (float64_copy, "_long", constant("float64"), "'float32'", [crashes(FLOAT64)]),
    (
        float64_copy,
        "check_certain",
        display("training"),
        "kwargs",
        [of("levenberg_refusals", "test_refused", "dropout")],
    ),
    (pieces, "free_run_pieces", choice("stride"), "1 if stride is None else stride", [crashes(PIECES)]),
]


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)

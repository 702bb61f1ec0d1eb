"""Faults made on purpose in what watches gradients and in the remedies."""

import importlib

import pytest
from mutants import call, caught, mutate, named, op, statement, suite

import keras_seq
from keras_seq.cells import of_keras
from keras_seq.training import GradientMonitor, gradient_norms, remedies

pytestmark = [pytest.mark.deep, pytest.mark.mutation]

STATES = importlib.import_module("keras_seq.analysis.state_gradients")  # of the same name as its function
JACOBIANS = suite("analysis/test_state_gradients.py::test_they_are_products_of_jacobians", "LSTM")
HALVES = suite(
    "analysis/test_state_gradients.py::test_they_are_those_of_states_between_two_halves", "keras LSTM", False
)
BACKWARDS = suite("analysis/test_state_gradients.py::test_backwards_they_come_in_the_order_of_reading")
SUM = suite("analysis/test_state_gradients.py::test_they_are_products_of_jacobians", "sum")
LAGS = suite("training/test_monitor.py::test_lags_count_real_steps", keras_seq.GRU)
SCALE = suite("training/test_monitor.py::test_a_loss_scale_does_not_show", keras_seq.LSTM)
DOWN = suite("training/test_remedies.py::test_a_constraint_scales_every_gate_down_to_the_radius", 3)
START = suite("training/test_remedies.py::test_a_start_of_any_radius")
ESTIMATE = suite(
    "training/test_remedies.py::test_estimates_are_above_the_radius_and_within_what_is_said", "random", "float64"
)

MUTANTS = [
    (keras_seq.Cell, "run_step", op("+", "m", "p"), "{0}", [JACOBIANS]),
    (of_keras, "with_perturbations", call("next", "changed"), "output", [HALVES]),
    (STATES, "state_gradients", call("flip"), "{0}", [BACKWARDS]),
    (keras_seq.RNN, "_run", op("is not", within=statement("in_loop", "in_chunks", "perturbations")), "False", [SUM]),
    (gradient_norms, "_by_lag", call("cumsum"), "tf.cumsum({0}, axis=1, exclusive=True)", [LAGS]),
    (gradient_norms, "norms_by_lag", op("/"), "{0}", [LAGS]),
    (GradientMonitor, "_measured", op("/", "stack", "norms_by_lag"), "{0}", [SCALE]),
    (remedies, "spectral_radii", op("/", "log", "size"), "{0}", [ESTIMATE]),
    (remedies, "_scaled", call("minimum"), "{0}", [DOWN]),
    (remedies, "_joined", call("transpose"), "{0}", [DOWN, START]),
]


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)

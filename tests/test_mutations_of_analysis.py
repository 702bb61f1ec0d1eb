"""Faults made on purpose in the analysis of a memory."""

import importlib

import pytest
from mutants import call, caught, choice, loop, mutate, named, op, statement, suite

from keras_seq.analysis import arriving, certificates, jacobians, linear, lyapunov, memory, report
from keras_seq.analysis.dynamics import Dynamics

fixed_points = importlib.import_module("keras_seq.analysis.fixed_points")  # a function of the package has that name
pytestmark = [pytest.mark.deep, pytest.mark.mutation]


def steps(test, *given):
    return suite(f"analysis/test_step_jacobians.py::{test}", *given)


WHOLE = steps("test_leading_exponents_and_probes_are_those_of_whole_jacobians")
BACKWARDS = steps("test_their_product_is_the_jacobian_of_the_whole_layer", "backwards")
WITHIN = steps("test_a_layer_within_others_reads_what_arrives_there")
MODEL = steps("test_a_layer_of_a_functional_model_begins_where_the_model_lets_it_begin")
STATEFUL = steps("test_a_stateful_layer_begins_where_it_stands")
BLOCKED = steps("test_a_blocked_state_changes_what_follows_and_training_does_not_see_it")
VOLUMES = steps("test_exponents_add_up_to_how_volumes_change")
SCALAR = steps("test_fixed_points_of_a_scalar_are_those_of_its_equation")
LENGTH = suite("analysis/test_memory.py::test_a_length_is_when_two_runs_meet")
CURVES = suite("analysis/test_memory.py::test_curves_of_vectors_are_those_of_the_equation", "tanh")
SERIES = suite("analysis/test_certificates.py::test_a_scalar_has_the_bound_of_its_geometric_series")
LSTM, GRU = (
    suite("analysis/test_certificates.py::test_no_jacobian_is_beyond_its_bound", name)
    for name in ("LSTM", "GRU, reset before")
)
SPIRAL = suite("analysis/test_linear_response.py::test_a_rotation_goes_round_and_a_diagonal_matrix_keeps_apart")
REPORT = suite("analysis/test_report.py::test_its_numbers_are_those_of_its_functions")

MUTANTS = [
    (
        jacobians,
        "flow_along",
        statement("product", "jacobians"),
        "product = jacobians[t - part.start] @ product",
        [WHOLE],
    ),
    (jacobians, "_over_real_steps", statement(within=loop()), "found[row, 1:] = values[row, 1:]", [WHOLE]),
    (lyapunov, "lyapunov_along", statement("real", "skip"), "pass", [VOLUMES]),
    (fixed_points, "fixed_points_of", op("<", "size"), "{0} > {1}", [SCALAR]),
    (Dynamics, "arrived", call("reverse", "x"), "{0}", [BACKWARDS]),
    (Dynamics, "initial_state", choice("kept", nth=1), "{1}", [STATEFUL]),
    (Dynamics, "__init__", op("and", "as_trained"), "False", [BLOCKED]),
    (Dynamics, "_carry", op("-", "index"), "index", [WHOLE]),
    (arriving, "_half", call("flip", "inputs"), "inputs", [WITHIN]),
    (arriving, "_within_model", call("get", "initial_state"), "None", [MODEL]),
    (memory, "apart_until", op(">"), "{0} >= 2 * {1}", [LENGTH]),
    (memory, "memory_curves", call("swapaxes"), "{0}", [CURVES]),
    (certificates, "_bounded_simple", op("/"), "{0}", [SERIES]),
    (certificates, "_lstm_matrix", op("*", "c", "size", "f"), "0", [LSTM]),
    (certificates, "_lstm_matrix", call("tanh"), "0", [LSTM]),
    (certificates, "_gru_rate", op("*", op("+", 1), "size"), "0", [GRU]),
    (certificates, "_gru_rate", op("/", "size", "r", nth=1), "0", [GRU]),
    (linear, "dominant", op("/"), "2 * {0} / {1}", [SPIRAL]),
    (report, "_another_first_step", call("roll"), "{0}", [REPORT]),
]


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)

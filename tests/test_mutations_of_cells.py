"""Faults made on purpose in the cells: each must fail a check that the suite runs on the same cases.

A fault changes one thing in a step, or what a step uses.
"""

import itertools

import conformance
import pytest
from cell_mutants import MUTANTS, cell_of, having
from conformance import CASES, GAPS, KINDS, ODYSSEY, Case, named
from keras import ops, tree
from mutants import call, caught, choice, label, loop, mutate, op, proxy, statement

import keras_seq
from keras_seq.cells import attention, base, gated, gru, linear, lru, lstm, narx, simple
from keras_seq.layers import rnn

pytestmark = [pytest.mark.deep, pytest.mark.mutation]

MODULES = [attention, gru, linear, lstm, narx, simple]
HELD = [c for c in KINDS if c.gated]
ZONED = having(zoneout=bool)


@pytest.mark.parametrize(**named([*HELD, *ZONED]))
def test_checks_pass_without_a_fault(case):
    conformance.check_oracle(case, return_internals=True)
    conformance.check_finite_differences(case, directions=1)


@pytest.mark.parametrize(
    ("owner", "name", "place", "change", "cases"), [pytest.param(*mutant, id=label(*mutant[:4])) for mutant in MUTANTS]
)
def test_one_thing_of_a_step_changed(owner, name, place, change, cases, monkeypatch):
    assert cases
    mutate(monkeypatch, owner, name, place, change)
    for case in cases:
        caught(conformance.check_oracle, case)


# -- gates, kernels, peepholes -------------------------------------------------------------------------------------------

SWAPS = [
    pytest.param(case, pair, id="{}-{}-{}".format(case.name, *(cell_of(case).gates[k] for k in pair)))
    for case in [*HELD, *(Case("LSTM", {"peepholes": True, **switch}) for switch in ODYSSEY.values())]
    for pair in itertools.combinations(range(len(cell_of(case).gates)), 2)
]


@pytest.mark.parametrize(("case", "pair"), SWAPS)
def test_two_gates_swapped(case, pair, monkeypatch):
    def swapped(parts):
        parts = list(parts)
        a, b = pair
        if max(pair) < len(parts):
            parts[a], parts[b] = parts[b], parts[a]
        return parts

    split = keras_seq.GatedCell.split
    monkeypatch.setattr(case.gated, "split", lambda self, tensor: swapped(split(self, tensor)))
    caught(conformance.check_oracle, case)


def test_gates_swapped_where_a_step_splits_by_itself(monkeypatch):
    """The textbook GRU's products with the state; the gates that are fed back."""

    def reversed_split(count):
        def split(x, n, axis):
            return ops.split(x, n, axis=axis)[::-1] if n == count else ops.split(x, n, axis=axis)

        return proxy(ops, split=split)

    monkeypatch.setattr(gru, "ops", reversed_split(2))
    caught(conformance.check_oracle, Case("GRU", {"reset_after": False}))
    monkeypatch.setattr(lstm, "ops", reversed_split(3))
    for case in having(full_gate_recurrence=True):
        caught(conformance.check_oracle, case)


MULTIPLYING = [c for c in HELD if cell_of(c).fed_back_size]


@pytest.mark.parametrize(**named(MULTIPLYING))
def test_blocks_of_the_recurrent_kernel_transposed(case, monkeypatch):
    """Those that are not square are read in the wrong order."""

    def transposed(x, kernel, **dropout):
        blocks = ops.split(kernel, max(1, kernel.shape[-1] // conformance.U), axis=-1)
        blocks = [ops.reshape(ops.transpose(b), b.shape) for b in blocks]
        return keras_seq.dot(x, ops.concatenate(blocks, axis=-1))

    for module in MODULES:
        monkeypatch.setattr(module, "dot", transposed)
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named(MULTIPLYING))
def test_products_with_the_state_dropped(case, monkeypatch):
    for module in MODULES:
        monkeypatch.setattr(module, "dot", lambda x, kernel, **dropout: 0 * keras_seq.dot(x, kernel))
    caught(conformance.check_oracle, case)


def change_peepholes(monkeypatch, change):
    """Let the cell read other rows than those of its weight."""

    def read(self):
        if "weight" not in vars(self):
            raise AttributeError
        return ops.stack(change(list(ops.unstack(vars(self)["weight"]))))

    changed = property(read, lambda self, w: vars(self).update(weight=w))
    monkeypatch.setattr(keras_seq.LSTMCell, "peephole_kernel", changed, raising=False)


@pytest.mark.parametrize(**named(having(peepholes=True)))
def test_a_peephole_dropped_or_two_swapped(case, monkeypatch):
    count = len(cell_of(case).sigmoid_gates)
    for row in range(count):
        change_peepholes(monkeypatch, lambda rows, row=row: [part * (k != row) for k, part in enumerate(rows)])
        caught(conformance.check_oracle, case)
    for a, b in itertools.combinations(range(count), 2):
        order = list(range(count))
        order[a], order[b] = b, a
        change_peepholes(monkeypatch, lambda rows, order=order: [rows[k] for k in order])
        caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named([c for c in HELD if c.arguments.get("use_bias", True)]))
def test_bias_dropped(case, monkeypatch):
    project = case.gated.project

    def without(self, x):
        return tree.map_structure(lambda a, b: a - b, project(self, x), project(self, ops.zeros_like(x)))

    monkeypatch.setattr(case.gated, "project", without)
    caught(conformance.check_oracle, case)


# -- contexts, zoneout, internals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [keras_seq.ElmanCell, keras_seq.JordanCell])
def test_blocked_is_not_and_the_reverse(cell, monkeypatch):
    mutate(monkeypatch, cell, "__init__", call("boolean", "blocked"), "not {1}")
    for case in (c for c in CASES if c.gated is cell):
        caught(conformance.check_finite_differences, case, directions=1)
        if case.blocked:
            caught(conformance.check_no_gradient_passes, case)


def test_zoneout_of_the_new_states_in_place_of_the_old(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(base.Cell, "zoneout_rates", lambda self: [1 - r for r in _rates(self)])
        for case in ZONED:
            caught(conformance.check_oracle, case)
    masks = base.Cell.zoneout_masks
    monkeypatch.setattr(
        base.Cell, "zoneout_masks", lambda self, leading: tuple(ops.logical_not(m) for m in masks(self, leading))
    )
    caught(conformance.check_share_that_stays, [0.7, 0.2])


def test_zoneout_with_the_rate_of_the_other_state(monkeypatch):
    monkeypatch.setattr(base.Cell, "zoneout_rates", lambda self: _rates(self)[::-1])
    caught(conformance.check_oracle, Case("LSTM", {"zoneout": [0.25, 0.125]}))
    caught(conformance.check_share_that_stays, [0.7, 0.2])


def _rates(cell):
    return cell.zoneout if isinstance(cell.zoneout, list) else [cell.zoneout] * len(cell.state_names)


def test_what_zoneout_leaves_is_not_in_the_output(monkeypatch):
    mutate(monkeypatch, base.Cell, "run_step", statement(op("is"), within=loop()), "pass")
    for case in ZONED:
        if case.layer not in ("Jordan", "LRU"):  # whose output is no state
            caught(conformance.check_oracle, case)


def test_what_zoneout_leaves_is_not_in_the_internals(monkeypatch):
    monkeypatch.setattr(base, "replace_exposed", lambda old, new: None)
    for case in ZONED:
        if case.layer != "Jordan":
            caught(conformance.check_oracle, case, return_internals=True)


@pytest.mark.parametrize(**named(HELD))
def test_any_one_internal_wrong(case, monkeypatch):
    names = list(case(return_internals=True, return_state=False)(ops.ones((1, 3, 3)), **_further(case))[-1])
    assert names
    for wrong in names:

        def expose(wrong=wrong, **values):
            keras_seq.expose(**{name: 1.001 * v if name == wrong else v for name, v in values.items()})

        for module in (*MODULES, lru):
            monkeypatch.setattr(module, "expose", expose)
        caught(conformance.check_oracle, case, return_internals=True)


def _further(case):
    """Constants and targets for one row of three steps."""
    constants = {"constants": [ops.ones((1, *s[1:])) for s in case.constants]} if case.constants else {}
    return {**constants, **({"targets": ops.ones((1, 3, 2))} if case.targets else {})}


def test_the_readout_ignores_the_direction_of_the_mask(monkeypatch):
    mutate(monkeypatch, rnn.RNN, "_run", choice("go_backwards"), "{1}")
    caught(conformance.check_oracle, Case("SimpleRNN", {"outputs": 2}), go_backwards=True)


def test_the_readout_of_steps_before_the_first_is_shown(monkeypatch):
    mutate(monkeypatch, rnn.RNN, "_read_out", op("or", op("is")), "True")
    for zero in (False, True):
        caught(conformance.check_oracle, Case("SimpleRNN", {"outputs": 2}), zero_output_for_mask=zero)


def test_readout_of_a_cell_without_one_is_the_very_tensor():
    """What `_read_out` relies on."""
    cell = Case("NARX", {**GAPS, "closed": True})().cell
    x = ops.ones((2, 3))
    assert gated.ReadoutCell(4).readout(x) is x
    assert cell.readout(x) is x

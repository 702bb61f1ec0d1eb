"""The checks of the suite are put to the test: each fault made on purpose must fail one of them.

A fault is a patch of a cell, of what a cell uses, or of the engine. The checks are those that the suite runs on the same
cases; each passes without the fault.
"""

import itertools
import types

import conformance
import pytest
import tensorflow as tf
from conformance import BUILT_IN, CASES, named
from keras import ops

import keras_seq
from keras_seq.cells import gru, lstm, simple
from keras_seq.engine import loop as passes
from keras_seq.engine import tensorflow as engine
from keras_seq.layers import rnn

MODULES = [gru, lstm, simple]
ONE_OF_EACH = [c for c in conformance.ONE_OF_EACH if c.gated]


# built-in cases over one of our cells by name, so that a fault in the cell's own method is seen
def gates(case):
    cell = case().cell
    return getattr(cell, "cell", cell).gates


GATED = [(case, gates(case)) for case in ONE_OF_EACH if len(gates(case)) > 1]


def caught(check, case, **arguments):
    """The check must fail, by an assertion, not by another error."""
    with pytest.raises(AssertionError):
        check(case, **arguments)


def proxy(module, **changed):
    """A module with some names replaced."""
    names = {name: getattr(module, name) for name in dir(module)}
    return types.SimpleNamespace(**{**names, **changed})


@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_checks_pass_without_a_fault(case):
    conformance.check_oracle(case)
    conformance.check_finite_differences(case, directions=1)


# -- in the cells --------------------------------------------------------------------------------------------------------

SWAPS = [
    pytest.param(case, pair, id="{}-{}-{}".format(case.name, *(names[k] for k in pair)))
    for case, names in GATED
    for pair in itertools.combinations(range(len(names)), 2)
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


@pytest.mark.parametrize("pair", [(0, 1)])
def test_update_and_reset_swapped_of_the_textbook_gru_where_it_splits_by_itself(pair, monkeypatch):
    """Its products with the state alone."""
    swapped = proxy(
        ops, split=lambda x, n, axis: ops.split(x, n, axis=axis)[::-1] if n == 2 else ops.split(x, n, axis=axis)
    )
    monkeypatch.setattr(gru, "ops", swapped)
    caught(conformance.check_oracle, conformance.Case("GRU", {"reset_after": False}))


@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_blocks_of_the_recurrent_kernel_transposed(case, monkeypatch):
    def transposed(x, kernel):
        blocks = ops.split(kernel, kernel.shape[-1] // conformance.U, axis=-1)
        return keras_seq.dot(x, ops.concatenate([ops.transpose(b) for b in blocks], axis=-1))

    for module in MODULES:
        monkeypatch.setattr(module, "dot", transposed)
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_products_with_the_state_dropped(case, monkeypatch):
    for module in MODULES:
        monkeypatch.setattr(module, "dot", lambda x, kernel: 0 * keras_seq.dot(x, kernel))
    caught(conformance.check_oracle, case)


def change_peepholes(monkeypatch, case, change):
    """Let the cell read other rows than those of its weight."""

    def read(self):
        if "weight" not in vars(self):
            raise AttributeError
        return ops.stack(change(list(ops.unstack(vars(self)["weight"]))))

    monkeypatch.setattr(
        case.gated, "peephole_kernel", property(read, lambda self, w: vars(self).update(weight=w)), raising=False
    )


@pytest.mark.parametrize(
    ("case", "row"),
    [(c, row) for c in CASES for row in range(3) if c.layer == "PeepholeLSTM"]
    + [(c, row) for c in CASES for row in range(2) if c.arguments.get("peepholes")],
    ids=lambda v: v if isinstance(v, int) else v.name,
)
def test_a_peephole_dropped(case, row, monkeypatch):
    change_peepholes(monkeypatch, case, lambda rows: [part * (k != row) for k, part in enumerate(rows)])
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_two_peepholes_swapped(pair, monkeypatch):
    def swapped(rows):
        a, b = pair
        rows[a], rows[b] = rows[b], rows[a]
        return rows

    case = conformance.Case("PeepholeLSTM")
    change_peepholes(monkeypatch, case, swapped)
    caught(conformance.check_oracle, case)


def peephole_step_of_the_old_cell(self, projected, states, constants=()):
    h, c = states
    p_i, p_f, p_o = ops.unstack(self.peephole_kernel)
    i, f, g, o = self.split(projected + keras_seq.dot(h, self.recurrent_kernel))
    new = ops.sigmoid(f + p_f * c) * c + ops.sigmoid(i + p_i * c) * ops.tanh(g)
    h = ops.sigmoid(o + p_o * c) * ops.tanh(new)
    return h, (h, new)


def coupled_step_of_the_old_cell(self, projected, states, constants=()):
    h, c = states
    p_f, p_o = ops.unstack(self.peephole_kernel)
    f, g, o = self.split(projected + keras_seq.dot(h, self.recurrent_kernel))
    f = ops.sigmoid(f + p_f * c)
    new = f * c + (1 - f) * ops.tanh(g)
    h = ops.sigmoid(o + p_o * c) * ops.tanh(new)
    return h, (h, new)


@pytest.mark.parametrize(
    ("case", "step"),
    [
        (conformance.Case("PeepholeLSTM"), peephole_step_of_the_old_cell),
        (conformance.Case("CoupledLSTM", {"peepholes": True}), coupled_step_of_the_old_cell),
    ],
    ids=["PeepholeLSTM", "CoupledLSTM"],
)
def test_output_gate_reads_the_old_cell(case, step, monkeypatch):
    monkeypatch.setattr(case.gated, "step", step)
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named([c for c in CASES if c.gated is keras_seq.GRUCell]))
def test_reset_gate_acts_at_the_other_place(case, monkeypatch):
    def step(self, projected, states, constants=()):
        (h,) = states
        kernel, u = self.recurrent_kernel, self.units
        x_z, x_r, x_h = self.split(projected)
        b = self.bias[1] if self.reset_after and self.bias is not None else ops.zeros((3 * u,), h.dtype)
        b_z, b_r, b_h = self.split(b)
        z = self.recurrent_activation(x_z + keras_seq.dot(h, kernel[:, :u]) + b_z)
        r = self.recurrent_activation(x_r + keras_seq.dot(h, kernel[:, u : 2 * u]) + b_r)
        if self.reset_after:
            g = x_h + keras_seq.dot(r * h, kernel[:, 2 * u :]) + b_h
        else:
            g = x_h + r * keras_seq.dot(h, kernel[:, 2 * u :])
        h = z * h + (1 - z) * self.activation(g)
        return h, (h,)

    monkeypatch.setattr(keras_seq.GRUCell, "step", step)
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named([c for c in BUILT_IN if c.arguments.get("use_bias", True)]))
def test_bias_dropped(case, monkeypatch):
    project = keras_seq.GatedCell.project
    cls = case.gated
    own = vars(cls).get("project", project)
    monkeypatch.setattr(cls, "project", lambda self, x: own(self, x) - own(self, ops.zeros_like(x)))
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named([c for c in BUILT_IN if c.constants]))
def test_condition_dropped(case, monkeypatch):
    monkeypatch.setattr(keras_seq.ConditionedCell, "prepare", lambda self, constants: (0 * constants[0][:, :1],))
    caught(conformance.check_oracle, case)


# -- in the loop ---------------------------------------------------------------------------------------------------------


def loop(monkeypatch, change=lambda inputs, flags: None, after=lambda results, states: (results, states)):
    """Patch the engine's loop as the layer sees it: its mask, inputs and flags before, its results after."""

    def scan(project, step, inputs, states, constants, weights, mask, **flags):
        call = {"inputs": inputs, "mask": mask, "states": states}
        change(call, flags)
        given = call["inputs"], call["states"], constants, weights, call["mask"]
        return after(*engine.scan(project, step, *given, **flags))

    monkeypatch.setattr(rnn, "engine", proxy(rnn.engine, scan=scan))


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_mask_off_by_one(case, by, monkeypatch):
    loop(monkeypatch, lambda call, flags: call.update(mask=tf.roll(call["mask"], by, axis=1)))
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_mask_left_out(case, monkeypatch):
    loop(monkeypatch, lambda call, flags: call.update(mask=None))
    caught(conformance.check_oracle, case)


@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_zeros_for_masked_steps_left_out_or_put_in(case, monkeypatch):
    loop(monkeypatch, lambda call, flags: flags.update(zero_output_for_mask=not flags["zero_output_for_mask"]))
    for zero in (False, True):
        caught(conformance.check_oracle, case, zero_output_for_mask=zero)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_reversal_left_out_or_undone(case, masked, monkeypatch):
    with monkeypatch.context() as patch:
        loop(patch, lambda call, flags: flags.update(go_backwards=False))
        caught(conformance.check_oracle, case, go_backwards=True, masked=masked)
    loop(monkeypatch, after=lambda results, states: (tf.nest.map_structure(lambda x: x[:, ::-1], results), states))
    for backwards in (False, True):
        caught(conformance.check_oracle, case, go_backwards=backwards, masked=masked)


def test_mask_not_reversed_with_the_inputs(monkeypatch):
    def change(call, flags):
        if flags["go_backwards"]:
            call.update(mask=tf.reverse(call["mask"], [1]))

    loop(monkeypatch, change)
    for case in ONE_OF_EACH:
        caught(conformance.check_oracle, case, go_backwards=True)


def test_initial_states_left_out_or_exchanged(monkeypatch):
    with monkeypatch.context() as patch:
        loop(patch, lambda call, flags: call.update(states=[0 * s for s in call["states"]]))
        for case in ONE_OF_EACH:
            caught(conformance.check_oracle, case)
    loop(monkeypatch, lambda call, flags: call.update(states=call["states"][::-1]))
    for case in ONE_OF_EACH:
        if len(case.gated.states) == 2:
            caught(conformance.check_oracle, case)


# -- in the backward pass ------------------------------------------------------------------------------------------------

backward = passes.Loop.backward
GRADIENT_CASES = [c for c in CASES if c in ONE_OF_EACH or c.gated is None]


def gradient_fault(
    monkeypatch, cotangents=lambda c: c, gradients=lambda g: g, kept=lambda k: k, setup=lambda self: None
):
    """Patch what the backward pass is given, or what it gives."""

    def faulty(self, args, given, record):
        setup(self)
        return gradients(backward(self, args, cotangents(given), kept(record)))

    monkeypatch.setattr(passes.Loop, "backward", faulty)


def check_survives_nowhere(cases=GRADIENT_CASES, **arguments):
    for case in cases:
        caught(conformance.check_finite_differences, case, directions=1, **arguments)


def test_cotangents_of_final_states_dropped(monkeypatch):
    gradient_fault(monkeypatch, cotangents=lambda c: (c[0], *[0 * s for s in c[1:]]))
    check_survives_nowhere()


def test_cotangents_of_outputs_dropped(monkeypatch):
    gradient_fault(monkeypatch, cotangents=lambda c: (0 * c[0], *c[1:]))
    check_survives_nowhere()


@pytest.mark.parametrize("by", [1, -1])
def test_cotangents_of_outputs_off_by_one(by, monkeypatch):
    gradient_fault(monkeypatch, cotangents=lambda c: (tf.roll(c[0], by, axis=1), *c[1:]))
    check_survives_nowhere()


def test_states_after_the_step_taken_for_those_before(monkeypatch):
    gradient_fault(monkeypatch, kept=lambda record: [tf.roll(record[0], -1, axis=0), *record[1:]])
    check_survives_nowhere()


def test_kernel_gradient_from_states_one_step_off(monkeypatch):
    outer = passes.outer
    monkeypatch.setattr(passes, "outer", lambda x, delta, dtype: outer(tf.roll(x, -1, axis=0), delta, dtype))
    check_survives_nowhere()


def test_kernel_gradient_of_the_last_step_alone(monkeypatch):
    outer = passes.outer
    monkeypatch.setattr(passes, "outer", lambda x, delta, dtype: outer(x[-1:], delta[-1:], dtype))
    check_survives_nowhere()


def test_no_gradient_through_the_state(monkeypatch):
    """What a product sends to its argument is dropped, in the backward pass alone."""
    matmul = passes.product

    def setup(self):
        monkeypatch.setattr(passes, "product", lambda x, kernel: 0 * matmul(x, kernel))

    gradient_fault(monkeypatch, setup=setup)
    for case in GRADIENT_CASES:
        monkeypatch.setattr(passes, "product", matmul)
        check_survives_nowhere([case])


def test_mask_ignored_by_the_backward_pass(monkeypatch):
    gradient_fault(monkeypatch, setup=lambda self: setattr(self, "mask", None))
    check_survives_nowhere()


def test_direction_ignored_by_the_backward_pass(monkeypatch):
    gradient_fault(monkeypatch, setup=lambda self: setattr(self, "go_backwards", False))
    check_survives_nowhere(go_backwards=True)


def test_repeated_output_taken_for_zeros_by_the_backward_pass(monkeypatch):
    gradient_fault(monkeypatch, setup=lambda self: setattr(self, "zero_output_for_mask", True))
    check_survives_nowhere()


@pytest.mark.parametrize(**named([c for c in GRADIENT_CASES if c.cell or c.layer == "PeepholeLSTM"]))
def test_any_one_gradient_wrong_by_a_thousandth(case, monkeypatch):
    """Each argument's gradient is looked at: inputs, states, constants, every weight."""
    layer = case("float64", return_sequences=True, return_state=True)
    count = len(conformance.argument_names(layer, conformance.data(case, layer)))
    for wrong in range(count):
        changed = []

        def scaled(gradients, wrong=wrong, changed=changed):
            changed.append(bool(tf.reduce_any(gradients[wrong] != 0)))
            return [1.001 * g if i == wrong else g for i, g in enumerate(gradients)]

        with monkeypatch.context() as patch:
            gradient_fault(patch, gradients=scaled)
            try:
                conformance.check_finite_differences(case, directions=1)
            except AssertionError:
                continue
        assert changed == [False], f"argument {wrong}"
        assert case.constants, "the engine itself differentiates all but what `prepare` does"

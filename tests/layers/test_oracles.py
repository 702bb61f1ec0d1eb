"""Outputs and states of every memory: against the equations in NumPy, Keras's layers, and TensorFlow's own LSTM."""

import itertools

import conformance
import numpy as np
import pytest
import tensorflow as tf
from conformance import BUILT_IN, FURTHER, KERAS_TWINS, KINDS, QUICK, Case, assert_close, named

import keras_seq


@pytest.mark.parametrize(**named(BUILT_IN))
def test_equations(case):
    """Masked in float64, plain in float32: neither the type nor the mask stands alone."""
    conformance.check_oracle(case, "float64", masked=True)
    conformance.check_oracle(case, "float32", masked=False)


# every pair of values of (return_sequences, go_backwards, zero_output_for_mask, masked, training)
FLAGS = [
    (True, True, False, True, False),
    (False, False, False, True, True),
    (False, True, True, False, False),
    (True, False, True, True, False),
    (True, False, False, False, False),
    (True, True, True, False, True),
]


@pytest.mark.parametrize(**named([c for c in KINDS if c.gated]))
def test_equations_with_flags(case):
    for sequences, backwards, zeros, masked, training in FLAGS:
        flags = {"go_backwards": backwards, "zero_output_for_mask": zeros}
        conformance.check_oracle(case, masked=masked, training=training, return_sequences=sequences, **flags)


def test_all_pairs_of_flags_are_there():
    for first, second in itertools.combinations(range(5), 2):
        found = {(row[first], row[second]) for row in FLAGS}
        assert len(found) == 4, (first, second, found)


@pytest.mark.parametrize(**named([c for c in FURTHER if c.gated], quick=[]))
def test_equations_in_reverse(case):
    conformance.check_oracle(case, go_backwards=True)
    conformance.check_oracle(case, go_backwards=True, zero_output_for_mask=True, return_sequences=False)


@pytest.mark.parametrize(**named(BUILT_IN, quick=QUICK))
def test_default_initial_state_is_zero(case):
    layer = case("float64", return_state=True)
    given = conformance.data(case, layer)
    given = given._replace(states=tuple(tf.zeros_like(s) for s in given.states))
    found = conformance.call(layer, given._replace(states=()))
    assert_close(found, conformance.as_returned(conformance.oracle(layer, given), layer), 1e-10)


@pytest.mark.parametrize(**named([c for c in KINDS if c.gated], quick=QUICK))
def test_without_return_state_there_is_one_result(case):
    layer = case("float64", return_sequences=True)
    given = conformance.data(case, layer)
    assert_close(conformance.call(layer, given), [conformance.oracle(layer, given).outputs], 1e-10)


def test_the_cell_is_cut_sometimes():
    """Above and below: where `cell_clip` cuts no cell, or all, the cases that have it say nothing of it."""
    cases = [c for c in BUILT_IN if c.arguments.get("cell_clip")]
    assert len(cases) > 1
    for case in cases:
        layer = case("float64", return_internals=True)
        given = conformance.data(case, layer)
        cells = conformance.oracle(layer, given).internals["cell"][given.mask]
        for end in (-1, 1):
            assert 0.02 < np.mean(cells == end * case.arguments["cell_clip"]) < 0.5


@pytest.mark.parametrize("name", conformance.ODYSSEY)
def test_names_of_the_odyssey_have_the_weights_of_their_papers(name):
    """Greff et al. (2017): which gates there are, which of them have peepholes, and which feed back."""
    layer = conformance.Case("LSTM", {"peepholes": True, **conformance.ODYSSEY[name]})()
    gates = {"NIG": "fo", "NFG": "io", "NOG": "if", "CIFG": "fo"}.get(name, "ifo")
    u, columns = conformance.U, len(gates) + 1
    shapes = {w.name: w.shape for w in layer.weights}
    assert shapes.pop("kernel") == (conformance.D, columns * u)
    assert shapes.pop("recurrent_kernel") == (u, columns * u)
    assert shapes.pop("bias") == (columns * u,)
    assert shapes.pop("peephole_kernel") == (len(gates), u)
    if name == "FGR":
        assert shapes.pop("gate_kernel") == (3 * u, 3 * u)
    assert not shapes
    assert [g[0] for g in layer.cell.sigmoid_gates] == list(gates)


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("PeepholeLSTM", {"peepholes": True}),
        ("CoupledLSTM", {"coupled": True}),
        ("NoForgetLSTM", {"forget_gate": False}),
    ],
)
def test_memories_with_a_name_are_settings_of_the_lstm(name, switch):
    further = {"normalize": True, "projection": 3, "cell_clip": 0.6}
    one, other = conformance.Case(name, further), conformance.Case("LSTM", {**switch, **further})
    given = conformance.data(one, one("float64"))
    assert_close([one("float64")(given.x)], [other("float64")(given.x)], 0.0)
    assert [w.name for w in one().weights] == [w.name for w in other().weights]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"return_sequences": False},
        {"go_backwards": True},
        {"zero_output_for_mask": True},
        {"return_sequences": False, "go_backwards": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(**named(KERAS_TWINS, quick=[*QUICK, Case("GRU", {"reset_after": False})]))
def test_values_and_gradients_are_those_of_keras(case, flags):
    conformance.check_keras_twin(case, "float64", **flags)


@pytest.mark.parametrize(**named(KERAS_TWINS, quick=QUICK))
def test_values_and_gradients_are_those_of_keras_in_single_precision(case):
    conformance.check_keras_twin(case, "float32", masked=False)


@pytest.mark.parametrize(**named(KERAS_TWINS))
def test_weights_move_from_keras_and_back(case):
    layer, other = case(), case(seed=5)
    twin = conformance.keras_twin(case, layer, "float32")
    assert [w.shape for w in twin.weights] == [w.shape for w in layer.weights]
    assert [w.name for w in twin.trainable_weights] == [w.name for w in layer.trainable_weights]
    other.set_weights(twin.get_weights())
    given = conformance.data(case, layer, mask=False)
    assert_close([other(given.x)], [layer(given.x)], 0.0)


def test_peepholes_are_those_of_tensorflows_block_lstm():
    """BlockLSTMV2 adds nothing to the forget gate's bias, and orders its columns i, f, c, o as we do (run to find out)."""
    case = conformance.Case("PeepholeLSTM")
    layer = case("float32", return_sequences=True, return_state=True)
    given = conformance.data(case, layer, mask=False)
    weights = {w.name: w.numpy() for w in layer.weights}
    p_i, p_f, p_o = weights["peephole_kernel"]
    h, c = given.states
    block = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.constant(conformance.T, tf.int64),
        x=tf.transpose(given.x, [1, 0, 2]),
        cs_prev=c,
        h_prev=h,
        w=np.concatenate([weights["kernel"], weights["recurrent_kernel"]]),
        wci=p_i,
        wcf=p_f,
        wco=p_o,
        b=weights["bias"],
        use_peephole=True,
        cell_clip=0.0,
    )
    results = conformance.call(layer, given)
    assert_close(results, [tf.transpose(block.h, [1, 0, 2]), block.h[-1], block.cs[-1]], 1e-5)


def test_peephole_lstm_without_peepholes_is_the_lstm():
    case = conformance.Case("PeepholeLSTM")
    layer, plain = case(), conformance.Case("LSTM")()
    layer.set_weights([*plain.get_weights(), np.zeros((3, conformance.U))])
    given = conformance.data(case, layer)
    assert_close([layer(given.x, mask=given.mask)], [plain(given.x, mask=given.mask)], 1e-6)


@pytest.mark.parametrize("name", ["LSTM", "PeepholeLSTM", "CoupledLSTM"])
def test_forget_gate_starts_open(name):
    u = conformance.U
    for opened in (True, False):
        layer = getattr(keras_seq, name)(u, unit_forget_bias=opened)
        layer.build((None, None, 3))
        at = layer.cell.gates.index("forget") * u
        expected = np.zeros(layer.cell.bias.shape)
        expected[at : at + u] = float(opened)
        np.testing.assert_array_equal(layer.cell.bias.numpy(), expected)

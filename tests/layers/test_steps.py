"""Every memory one step at a time: equal to the sequence, with masks, states, constants and true outputs."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import CASES, KINDS, Case, D, T, assert_close, named

import keras_seq


def stepped(layer, given):
    """`(outputs of every step, the last state)`; given states or the layer's own initial ones."""
    state = layer.initial_state(len(given.x))
    if given.states:
        state = [*given.states, state[-1]]
    outputs = []
    for t in range(given.x.shape[1]):
        further = {"constants": list(given.constants)} if given.constants else {}
        if given.targets is not None:
            further["targets"] = given.targets[:, t]
        mask = None if given.mask is None else given.mask[:, t]
        y, state = layer.step(given.x[:, t], state, mask, **further)
        outputs.append(y)
    return tf.stack(outputs, 1), state


@pytest.mark.parametrize(**named(CASES, quick=KINDS))
def test_steps_are_the_sequence(case):
    layer = case("float64", return_sequences=True, return_state=True)
    for masked in (False, True):
        check_steps(case, layer, masked)


def check_steps(case, layer, masked):
    given = conformance.data(case, layer, mask=masked)
    expected = conformance.call(layer, given)
    outputs, state = stepped(layer, given)
    assert_close([outputs, *state[:-1]], expected, 1e-10)
    assert_close([state[-1]], [outputs[:, -1]], 0.0, "the last output is part of the state")


@pytest.mark.parametrize("flags", [{"zero_output_for_mask": True}, {"return_sequences": False}], ids=str)
@pytest.mark.parametrize(**named([Case("LSTM"), Case("Jordan", {"outputs": 2, "blocked": False}), Case("GRU")]))
def test_flags(case, flags):
    """Zeros at hidden steps; and what is said at each step is what the sequence would give if it ended there."""
    layer = case("float64", **{"return_sequences": True, **flags})
    given = conformance.data(case, layer)._replace(states=())
    outputs, _ = stepped(layer, given)
    if layer.return_sequences:
        expected = layer(given.x, mask=given.mask)
    else:
        expected = tf.stack([layer(given.x[:, : t + 1], mask=given.mask[:, : t + 1]) for t in range(T)], 1)
    assert_close([outputs], [expected], 1e-10)


def test_learned_initial_states_and_a_cell_of_keras():
    learned = conformance.randomised(keras_seq.LSTM(3, learn_initial_state=True, return_sequences=True))
    learned.build((None, None, D))
    conformance.randomised(learned)
    for layer in (learned, keras_seq.RNN(keras.layers.GRUCell(3), return_sequences=True)):
        x = np.random.default_rng(0).normal(size=(2, T, D)).astype("float32")
        expected = layer(x)
        given = conformance.Data(tf.constant(x))
        assert_close([stepped(layer, given)[0]], [expected], 1e-5)


def test_mixed_precision():
    """Outputs are short, states long, as in the sequence; the two differ by rounding."""
    layer = Case("LSTM")("mixed_bfloat16", return_sequences=True)
    x = tf.random.stateless_normal((2, T, D), [1, 2])
    outputs, state = stepped(layer, conformance.Data(x))
    assert outputs.dtype == "bfloat16"
    assert [s.dtype for s in state] == ["float32", "float32", "bfloat16"]
    assert_close([tf.cast(outputs, "float32")], [tf.cast(layer(x), "float32")], 2e-2)


def test_a_prefix_in_one_go_then_steps():
    """What `return_state` gives, and the last output, is a state of the step form."""
    layer = Case("PeepholeLSTM")("float64", return_sequences=True, return_state=True)
    x = tf.random.stateless_normal((2, 8, D), [1, 2], dtype="float64")
    first, *states = layer(x[:, :5])
    rest = conformance.Data(x[:, 5:], states=tuple(states))
    assert_close([stepped(layer, rest)[0]], [layer(x)[0][:, 5:]], 1e-10)
    assert first.shape == (2, 5, 4)

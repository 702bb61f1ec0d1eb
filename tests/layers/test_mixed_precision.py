"""Mixed policies: products in the short type, memories in float32, from call to call and over many steps."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import ONE_OF_EACH, Case, U, assert_close, named

import keras_seq

POLICIES = ["mixed_float16", "mixed_bfloat16"]
STEPS = 20000


def in_float32(nest):
    def cast(v):
        return tf.cast(v, "float32") if v is not None and v.dtype.is_floating else v

    return tf.nest.map_structure(cast, nest)


@pytest.mark.parametrize("policy", [*POLICIES, "float16"])
@pytest.mark.parametrize(**named([c for c in ONE_OF_EACH if c.gated], quick=[Case("LSTM")]))
def test_near_float32(case, policy):
    layer = case(policy, return_sequences=True, return_state=True)
    given = conformance.data(case, layer)
    variable = keras.DTypePolicy(policy).variable_dtype
    assert {w.dtype for w in layer.trainable_weights} == {variable}
    outputs, *states = conformance.call(layer, given)
    assert outputs.dtype.name == keras.DTypePolicy(policy).compute_dtype
    assert {s.dtype.name for s in states} == {variable}
    given = in_float32(given)
    expected = conformance.differentiated(case("float32", return_sequences=True, return_state=True))(*given)
    short = conformance.differentiated(layer, apply=lambda *args: in_float32(conformance.call(*args)))(*given)
    count = len(layer.trainable_weights)
    assert [g.dtype for g in short[1][-count:]] == [w.value.dtype for w in layer.trainable_weights]
    assert_close(in_float32(short), expected, 0.1 if "bfloat16" in policy else 0.02)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "ResidualRNN", "Elman"])
def test_states_come_out_and_are_taken_back_unrounded(name, policy):
    """Two halves, the state handed on, are one run to the last bit."""
    layer = getattr(keras_seq, name)(U, return_sequences=True, return_state=True, dtype=policy)
    x = np.random.default_rng(0).normal(size=(3, 8, 2)).astype("float32")
    layer(x)
    conformance.randomised(layer)
    whole, *end = layer(x)
    first, *middle = layer(x[:, :4])
    second, *last = layer(x[:, 4:], initial_state=middle)
    assert_close([tf.concat([first, second], 1), *last], [whole, *end], 0.0)
    assert any(np.any(tf.cast(tf.cast(s, layer.compute_dtype), "float32") != s) for s in middle), "nothing to round"


@pytest.mark.parametrize("policy", POLICIES)
def test_states_of_functional_models_and_of_stateful_layers(policy):
    inputs = keras.Input((None, 2), batch_size=3)
    encoder = keras_seq.LSTM(U, return_state=True, dtype=policy)
    _, h, c = encoder(inputs)
    assert (h.dtype, c.dtype) == ("float32", "float32")
    stateful = keras_seq.LSTM(U, stateful=True, dtype=policy)
    outputs = stateful(inputs, initial_state=[h, c])
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(3, 8, 2)).astype("float32")
    _, h, c = encoder(x)
    assert_close([model(x)], [keras_seq.LSTM.call(stateful, x, initial_state=[h, c])], 0.0)
    assert {v.dtype for v in stateful.states} == {"float32"}
    before = [v.numpy() for v in stateful.states]
    stateful(x)
    assert all(np.any(v.numpy() != b) for v, b in zip(stateful.states, before, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_in_the_rnn_of_keras(policy):
    cell = keras_seq.LSTMCell(U, dtype=policy)
    ours = keras_seq.RNN(cell, return_sequences=True, dtype=policy)
    x = np.random.default_rng(0).normal(size=(3, 8, 2)).astype("float32")
    ours(x)
    conformance.randomised(ours)
    theirs = keras.layers.RNN(cell, return_sequences=True, dtype=policy)
    assert_close([tf.cast(theirs(x), "float32")], [tf.cast(ours(x), "float32")], 1e-2)


def built(layer, weights, features=1):
    layer.build((None, None, features))
    for weight in layer.weights:
        weight.assign(np.broadcast_to(weights.get(weight.name, 0.0), weight.shape))
    return layer


# each adds 0.001 to something at each step, or takes that share of it; what is right after 20000 steps
SUMS = {
    "LSTM": (
        lambda d: built(
            keras_seq.NoForgetLSTM(1, activation="linear", return_state=True, dtype=d), {"bias": [9, 1e-3, 9]}
        ),
        20.0,
    ),
    "GRU": (
        lambda d: built(
            keras_seq.GRU(1, activation="linear", return_state=True, dtype=d), {"bias": [[8.1, 0, 30], [0] * 3]}
        ),
        30 * (1 - (1 - 1 / (1 + np.exp(8.1))) ** STEPS),
    ),
    "ResidualRNN": (
        lambda d: built(keras_seq.ResidualRNN(1, activation="linear", return_state=True, dtype=d), {"bias": 1e-3}),
        20.0,
    ),
    "ResidualRNN, a sum": (
        lambda d: built(
            keras_seq.ResidualRNN(1, activation="linear", recurrent=False, return_state=True, dtype=d), {"bias": 1e-3}
        ),
        20.0,
    ),
    "Jordan": (
        lambda d: built(keras_seq.Jordan(1, 1, decay=0.999, return_state=True, dtype=d), {"output_bias": 1.0}),
        1 - 0.999**STEPS,
    ),
    "AR": (
        lambda d: built(keras_seq.AR(closed=True, return_state=True, dtype=d), {"recurrent_kernel": 1.0, "bias": 1e-3}),
        20.0,
    ),
    "NARX": (
        lambda d: built(
            keras_seq.NARX(1, 1, activation="linear", closed=True, return_state=True, dtype=d),
            {"recurrent_kernel": 1.0, "bias": 1e-3, "output_kernel": 1.0},
        ),
        20.0,
    ),
}


@pytest.mark.parametrize("policy", [*POLICIES, "float32"])
@pytest.mark.parametrize("name", SUMS)
def test_sum_over_many_steps(name, policy):
    """In sixteen bits it would stall: 0.001 added 20000 times gives 4.0 in float16, 0.5 in bfloat16."""
    make, expected = SUMS[name]
    _, *states = tf.function(make(policy))(tf.zeros((1, STEPS, 1)))
    assert states[-1].numpy().item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("policy", POLICIES)
def test_average_of_targets_over_many_steps(policy):
    """At once, and in float32: targets are not rounded either."""
    layer = built(keras_seq.Jordan(1, 1, decay=0.999, return_state=True, dtype=policy), {})
    targets = tf.fill((1, STEPS, 1), 1.0001)
    _, m = layer(tf.zeros((1, STEPS, 1)), targets=targets)
    assert m.numpy().item() == pytest.approx(1.0001, rel=3e-5)


def test_keras_stalls():
    """A control: the test above sees the fault it is for."""
    layer = keras.layers.RNN(_HalfSum(dtype="mixed_float16"), dtype="mixed_float16")
    assert float(tf.function(layer)(tf.fill((1, STEPS, 1), 1e-3))[0, 0]) == 4.0


class _HalfSum(keras.layers.Layer):
    state_size = 1

    def call(self, inputs, states):
        return inputs + states[0], [inputs + states[0]]

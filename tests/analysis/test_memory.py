"""What memories hold: the equations written out, and what the textbook says of each activation."""

import math

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import memory_curves, memory_length

RNG = np.random.default_rng(0)
FUNCTIONS = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    None: lambda z: z,
}
WEIGHTS = [-1.5, 0.5, 0.9, 1.0, 1.1, 2.0]


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_curves_are_those_of_the_equation(activation):
    f, biases, x = FUNCTIONS[activation], [0.0, 0.3, -1.0], [1.0, -1.0, 0.2]
    found = memory_curves(activation, WEIGHTS, x, biases, steps=12)
    w, b = np.array(WEIGHTS)[:, None, None], np.array(biases)[:, None]
    h = f(np.array(x) + b) * np.ones_like(w)
    for t in range(13):
        np.testing.assert_allclose(found.values[..., t], h, rtol=1e-12)
        h = f(w * h + b)
    assert found.activation == (activation or "linear")


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_curves_of_vectors_are_those_of_the_equation(activation):
    f, biases = FUNCTIONS[activation], [0.0, -0.5]
    w, x = RNG.normal(size=(2, 3, 3)) / 2, RNG.normal(size=(4, 3))
    found = memory_curves(activation, w, x, biases, steps=6)
    assert found.values.shape == (2, 2, 4, 7, 3)
    for i, matrix in enumerate(w):
        for j, b in enumerate(biases):
            h = f(x + b)
            for t in range(7):
                np.testing.assert_allclose(found.values[i, j, :, t], h, rtol=1e-12, atol=1e-14)
                h = f(h @ matrix.T + b)
    np.testing.assert_allclose(found.spread, np.ptp(found.values, axis=2).max(axis=-1))


def test_a_sigmoid_saturates_to_a_value_that_does_not_know_the_input():
    w = [-3.0, -1.0, 0.5, 1.0, 2.0, 3.0]
    curves = memory_curves("sigmoid", w, [-2.0, -1.0, 0.0, 1.0, 2.0], steps=60)
    assert curves.spread[:, 0, 40:].max() < 1e-6
    last = curves.values[:, 0, 0, -1]
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(w) * last)), last, atol=1e-9)
    assert np.ptp(last) > 0.3, "but it knows the weight"


def test_a_relu_blows_up_or_vanishes_and_does_not_see_a_negative_input():
    curves = memory_curves("relu", [0.5, 0.9, 1.1, 2.0], [1.0, -1.0], steps=200)
    positive, negative = curves.values[:, 0, 0], curves.values[:, 0, 1]
    assert positive[:2, -1].max() < 1e-8
    assert positive[2:, -1].min() > 1e8
    np.testing.assert_array_equal(negative, 0)


def test_tanh_holds_longer_but_not_long():
    x = [1.0, -1.0]
    held = {}
    for name in ("sigmoid", "tanh"):
        curves = memory_curves(name, [0.9], x, steps=400)
        held[name] = int(np.argmax(curves.spread[0, 0] < 1e-3))
    assert 0 < held["sigmoid"] < held["tanh"] < 100
    # above 1 it keeps the sign of the input and nothing of its size
    curves = memory_curves("tanh", [1.5], [0.2, 1.0, -0.2, -1.0], steps=200)
    last = curves.values[0, 0, :, -1]
    np.testing.assert_allclose(last, last[0] * np.array([1, 1, -1, -1]), atol=1e-9)
    assert last[0] > 0.5


def identity(**given):
    layer = keras_seq.SimpleRNN(1, dtype="float64", **given)
    layer.build((None, None, 1))
    layer.set_weights([np.array(v) for v in ([[1.0]], [[0.5]], [0.0])])
    return layer


def test_a_length_is_when_two_runs_meet():
    layer = identity(activation=None)
    found = memory_length(layer, [[1.0], [0.0], [3.0]], [[0.0], [0.0], [2.999]], steps=30, tolerance=1e-2)
    np.testing.assert_allclose(found.distance[0], 0.5 ** np.arange(31), rtol=1e-12)
    assert list(found.steps) == [7, 0, 0]  # 1/128 is the first below 1/100
    assert memory_length(layer, [1.0], [0.0], steps=6, tolerance=1e-2).steps[0] == math.inf


def test_what_is_read_after_may_bring_them_together_or_hold_them_apart():
    layer = keras_seq.GRU(4, stateful=True)
    layer.build((2, None, 1))
    kept = [s.numpy() for s in layer.states]
    x = RNG.normal(size=(300, 1)).astype("float32")
    quiet = memory_length(layer, [1.0], [-1.0], steps=300)
    read = memory_length(layer, [1.0], [-1.0], following=x)
    assert quiet.distance.shape == read.distance.shape == (1, 301)
    assert np.isfinite(read.steps[0])
    assert not np.allclose(quiet.distance, read.distance)
    for s, k in zip(layer.states, kept, strict=True):
        np.testing.assert_array_equal(s, k)
    # the same by the layer's own call
    states = [
        layer(np.concatenate([[[[v]]] * 2, [x[:9]] * 2], axis=1).astype("float32")).numpy()
        for v in (1.0, -1.0)
        if layer.reset_state() is None
    ]
    np.testing.assert_allclose(read.distance[0, 9], np.abs(states[0] - states[1])[0].max(), atol=1e-6)


@pytest.mark.parametrize("make", [keras.layers.LSTM, keras_seq.LSTM], ids=["Keras", "ours"])
def test_an_open_forget_gate_holds_longer(make):
    lengths = []
    for bias in (0.0, 4.0):
        layer = make(4, unit_forget_bias=False)
        layer.build((None, None, 2))
        kernel, recurrent, b = layer.get_weights()
        b[4:8] = bias
        layer.set_weights([kernel, 0.1 * recurrent, b])
        lengths.append(memory_length(layer, [2.0, 0.0], [0.0, 2.0], steps=1000).steps[0])
    assert 3 < lengths[0] < 20
    assert 100 < lengths[1] < 1000


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: memory_curves("tan"), ValueError, "activation: expected a name"),
        (lambda: memory_curves(weights=[[1.0]]), ValueError, r"weights: expected numbers \(k,\) or matrices"),
        (lambda: memory_curves(weights="w"), TypeError, "weights: expected numbers"),
        (lambda: memory_curves(weights=[math.nan]), ValueError, "weights: expected finite numbers"),
        (lambda: memory_curves(inputs=[[1.0]]), ValueError, r"inputs: expected shape \(i,\)"),
        (
            lambda: memory_curves(weights=np.ones((1, 2, 2)), inputs=[[1.0]]),
            ValueError,
            r"inputs: expected shape \(i, 2\)",
        ),
        (lambda: memory_curves(biases=0.0), ValueError, r"biases: expected numbers \(j,\)"),
        (lambda: memory_curves(steps=0), ValueError, "steps: expected a positive integer"),
        (lambda: memory_length(keras.layers.Dense(1), [1.0], [0.0]), ValueError, "layer: expected a recurrent layer"),
        (lambda: memory_length(identity(), [1.0, 2.0], [0.0]), ValueError, r"first: expected shape \(1,\)"),
        (lambda: memory_length(identity(), [[1.0]] * 2, [0.0]), ValueError, r"second: expected shape \(2, 1\)"),
        (
            lambda: memory_length(identity(), [1.0], [0.0], tolerance=0),
            ValueError,
            "tolerance: expected a positive number",
        ),
        (
            lambda: memory_length(identity(), [1.0], [0.0], following=[[1.0, 2.0]]),
            ValueError,
            "following: expected shape",
        ),
        (
            lambda: memory_length(identity(), [1.0], [0.0], initial_state=[[1.0]]),
            ValueError,
            "initial_state: expected shapes",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Certificates: closed forms, and no run of a live layer that breaks what one of them says."""

import math

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import bibo_certificate, certificates, contraction_certificate, lyapunov_spectrum
from keras_seq.analysis.dynamics import Dynamics

BOUND = 2.0


def named_rows(table, quick):
    """The names of a table; those that are not quick are deep."""
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.deep) for name in table]


def filled(layer, scale, d=3, seed=0):
    """The layer with random weights of this scale, biases too."""
    rng = np.random.default_rng(seed)
    layer.build((None, None, d))
    layer.set_weights([scale * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


LAYERS = {
    "relu": lambda: keras_seq.SimpleRNN(4, activation="relu", dtype="float64"),
    "softplus": lambda: keras.layers.SimpleRNN(4, activation="softplus", dtype="float64"),
    "tanh": lambda: keras_seq.Elman(4, dtype="float64"),
    "GRU": lambda: keras_seq.GRU(4, dtype="float64"),
    "GRU, reset before": lambda: keras_seq.GRU(4, reset_after=False, dtype="float64"),
    "Keras GRU": lambda: keras.layers.GRU(4, dtype="float64"),
    "LSTM": lambda: keras_seq.LSTM(4, dtype="float64"),
    "Keras LSTM": lambda: keras.layers.LSTM(4, dtype="float64"),
}


@pytest.mark.parametrize("name", named_rows(LAYERS, quick=("relu", "GRU", "LSTM")))
def test_no_run_breaks_what_is_proved(name):
    """From two starts within the bound, on the hardest inputs: of the greatest modulus, and of random signs."""
    layer = LAYERS[name]()
    layer.return_sequences = layer.return_state = True
    rng = np.random.default_rng(1)
    proved = []
    for scale in (0.02, 0.1, 0.2, 1.0):
        filled(layer, scale)
        bounded, forgets = (c(layer, BOUND) for c in (bibo_certificate, contraction_certificate))
        proved.append((bounded.proven, forgets.proven))
        x = rng.choice([-BOUND, BOUND], size=(64, 30, 3))
        found = [np.asarray(s) for s in layer(x)[1:]]
        if bounded.proven:
            assert max(np.abs(s).max() for s in found) <= bounded.value + 1e-12
        if forgets.proven:
            exponents = lyapunov_spectrum(layer, x).exponents
            assert exponents.max() <= math.log(forgets.value) + 1e-9 + 2 / 30, "but for the turn of norms"
            near = [0.1 * rng.uniform(-1, 1, s.shape) for s in found]
            other = [np.asarray(s) for s in layer(x, initial_state=near if len(near) > 1 else near[0])[1:]]
            apart = np.linalg.norm(np.concatenate(found, 1) - np.concatenate(other, 1), axis=1)
            start = np.linalg.norm(np.concatenate(near, 1), axis=1)
            assert np.all(apart <= 10 * forgets.value**30 * start + 1e-14)
    assert proved[0] == (True, True)
    assert not proved[-1][1], "weights of this size are beyond the condition"


def scalar(w, make=keras_seq.SimpleRNN, **given):
    layer = make(1, dtype="float64", **given)
    layer.build((None, None, 1))
    layer.set_weights([np.array(v) for v in ([[2.0]], [[w]], [-0.5])])
    return layer


def test_a_scalar_has_the_bound_of_its_geometric_series():
    found = bibo_certificate(scalar(0.5, activation=None), 3.0)
    assert found.proven
    assert found.value == pytest.approx((3 * 2 + 0.5) / (1 - 0.5))
    layer = scalar(0.5, activation=None)
    h = layer(np.full((1, 60, 1), -3.0))  # the input that reaches it
    assert abs(float(h[0, 0])) == pytest.approx(found.value)
    assert contraction_certificate(layer).value == pytest.approx(0.5)
    assert contraction_certificate(scalar(3.0, activation="sigmoid")).value == pytest.approx(0.75)
    assert bibo_certificate(scalar(9.0)).value == 1


@pytest.mark.parametrize("w", [1.0, 1.5])
def test_beyond_the_condition_nothing_is_said(w):
    for certificate in (bibo_certificate, contraction_certificate):
        found = certificate(scalar(w, activation="relu"))
        assert not found.proven
        assert math.isnan(found.value)
        assert "Nothing is proved" in found.statement
    # tanh with w = 1 comes together all the same, but by no rate
    assert not contraction_certificate(scalar(1.0)).proven


class Doubling(keras_seq.SimpleRNNCell):
    def step(self, projected, states, constants=()):
        return 2 * states[0], (2 * states[0],)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras_seq.RNN(Doubling(3)),
        lambda: keras_seq.PeepholeLSTM(3),
        lambda: keras_seq.LSTM(3, normalize=True),
        lambda: keras_seq.SimpleRNN(3, zoneout=0.1),
        lambda: keras_seq.GRU(3, activation="relu"),
        lambda: keras_seq.SimpleRNN(3, activation="exponential"),
        lambda: keras_seq.ResidualRNN(3),
    ],
)
def test_of_what_the_conditions_are_not_about_they_say_nothing(make):
    layer = filled(make(), 0.01)
    for certificate in (bibo_certificate, contraction_certificate):
        assert not certificate(layer).proven


def test_a_time_delay_layer_is_bounded_by_construction():
    layer = keras_seq.TDNN(3, delays=4, activation="relu")
    layer.build((None, None, 2))
    found = bibo_certificate(layer, BOUND)
    kernel = layer.get_weights()[0]  # (4, 2, 3)
    unit = np.argmax(np.abs(kernel).sum(axis=(0, 1)))
    y = layer(BOUND * np.sign(kernel[None, :, :, unit]))  # the inputs that take it to its bound
    assert found.proven
    assert found.value == pytest.approx(float(np.max(y)), rel=1e-6)
    assert contraction_certificate(layer).value == 0


def test_of_a_stack_they_say_which_layer():
    stack = keras_seq.Stacked([keras_seq.GRU(3, return_sequences=True), keras_seq.ResidualRNN(3)])
    stack(np.ones((1, 2, 3)))
    assert [bibo_certificate(stack, of=i).proven for i in (0, 1)] == [True, False]
    with pytest.raises(ValueError, match="of: expected one of the recurrent layers"):
        bibo_certificate(stack)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bibo_certificate(scalar(1.0), 0), ValueError, "input_bound: expected a positive number"),
        (lambda: contraction_certificate(scalar(1.0), "x"), TypeError, "input_bound: expected a positive number"),
        (lambda: bibo_certificate(scalar(math.nan)), ValueError, "layer: expected finite weights, got NaN"),
        (lambda: bibo_certificate(keras_seq.GRU(3)), ValueError, "layer: expected a built layer"),
        (lambda: bibo_certificate(keras_seq.TDNN(3, delays=2)), ValueError, "layer: expected a built layer"),
        (lambda: bibo_certificate(keras.layers.Dense(3)), ValueError, "layer: expected a recurrent layer"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "name", named_rows(["LSTM", "GRU", "GRU, reset before", "Keras GRU"], quick=("LSTM", "GRU, reset before"))
)
def test_no_jacobian_is_beyond_its_bound(name):
    """Of one unit, for many weights, many of them zero, at states within the bounds and inputs up to the bound."""
    layer = LAYERS[name]()
    layer = type(layer).from_config({**layer.get_config(), "units": 1})
    layer.build((None, None, 1))
    dynamics, rng, reached = Dynamics(layer), np.random.default_rng(0), []
    for scale in np.tile([0.1, 0.5, 2.0, 5.0], 100):
        shapes = [w.shape for w in layer.get_weights()]
        layer.set_weights([scale * rng.normal(size=s) * rng.integers(0, 2, size=s) for s in shapes])
        states = np.where(rng.random((200, 1)) < 0.5, 1, rng.random((200, 1)))
        states = states * rng.choice([-1, 1], size=(200, len(dynamics.widths)))
        if name == "LSTM":
            gates = certificates._gates(layer.cell, BOUND, "ifgo")
            states = states * [1.0, float((gates["i"] * gates["g"] / (1 - gates["f"]))[0])]
            bound = certificates._lstm_matrix(layer.cell, BOUND)[::-1, ::-1]  # (h, c)
        else:
            bound = certificates._gru_rate(layer.cell, BOUND)
        x = BOUND * rng.choice([-1.0, 1.0], size=(200, 1)) * rng.integers(0, 2, size=(200, 1))
        found = np.abs(dynamics.jacobians_at(x, states)).max(axis=0)
        assert np.all(found <= bound + 1e-12)
        reached.append(found / np.maximum(bound, 1e-9))
    assert np.all(np.max(reached, axis=0) > 0.7), "the bounds are not beyond all need"

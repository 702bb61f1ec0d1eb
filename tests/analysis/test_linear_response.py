"""Responses of linear recurrences: those of NumPy, of closed forms, and of live layers."""

import math

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import linear_response, superposition_error

RNG = np.random.default_rng(0)
TURN = [[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]]


@pytest.mark.parametrize("w", [0.7, 0.9, 1.0, 1.1, -0.9])
def test_a_scalar_is_an_exponential(w):
    found = linear_response([[w]], [2.0], steps=30, input_matrix=[[1.5]])
    np.testing.assert_allclose(found.running[:, 0], 3.0 * w ** np.arange(31), rtol=1e-12)
    np.testing.assert_allclose(found.closed_form, found.running, rtol=1e-12)
    assert found.growth == pytest.approx(abs(w))
    assert found.period == (2 if w < 0 else math.inf)


def test_a_rotation_goes_round_and_a_diagonal_matrix_keeps_apart():
    turn = linear_response(0.95 * np.array(TURN), [1.0, 0.0], steps=40)
    t = np.arange(41)
    expected = 0.95**t * np.array([np.cos(0.5 * t), np.sin(0.5 * t)])
    np.testing.assert_allclose(turn.running.T, expected, atol=1e-12)
    assert (turn.growth, turn.period) == pytest.approx((0.95, 2 * math.pi / 0.5))
    assert turn.method == "eigenvectors"
    diagonal = linear_response(np.diag([0.5, 2.0]), [1.0, 1e-6], steps=20)
    np.testing.assert_allclose(diagonal.closed_form.T, [0.5 ** t[:21], 1e-6 * 2.0 ** t[:21]], rtol=1e-12)
    assert diagonal.growth == pytest.approx(2)


@pytest.mark.parametrize(
    ("matrix", "method"),
    [
        (RNG.normal(size=(6, 6)) / 2, "eigenvectors"),
        ([[0.9, 1.0, 0.0], [0.0, 0.9, 1.0], [0.0, 0.0, 0.9]], "matrix powers"),  # one eigenvector
        ([[0.9, 1.0], [1e-16, 0.9]], "matrix powers"),  # two, nearly one
        ([[0.0, 1.0], [0.0, 0.0]], "matrix powers"),
    ],
    ids=["complex pairs", "defective", "almost defective", "nilpotent"],
)
def test_running_agrees_with_the_closed_form(matrix, method):
    start = RNG.normal(size=len(matrix))
    found = linear_response(matrix, start, steps=60)
    assert found.method == method
    assert found.difference < 1e-9
    powers = [np.linalg.matrix_power(np.array(matrix), t) @ start for t in range(61)]
    np.testing.assert_allclose(found.running, powers, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("make", [keras_seq.SimpleRNN, keras.layers.SimpleRNN], ids=["ours", "Keras"])
def test_a_live_layer_is_its_matrix(make):
    layer = make(4, activation=None, bias_initializer="normal", dtype="float64")
    layer.build((None, None, 3))
    kernel, recurrent, _ = layer.get_weights()
    x = [1.0, -2.0, 0.5]
    found = linear_response(layer, x, steps=25)
    expected = linear_response(recurrent.T, x, steps=25, input_matrix=kernel.T)
    np.testing.assert_allclose(found.running, expected.running, atol=1e-12)
    np.testing.assert_allclose(found.closed_form, expected.closed_form, atol=1e-12)
    assert (found.growth, found.difference) == pytest.approx((1, 0), abs=1e-12)
    assert superposition_error(layer, RNG.normal(size=(9, 3))) < 1e-12


def test_superposition_holds_of_what_is_linear_alone():
    x = RNG.normal(size=(8, 3))
    assert superposition_error(RNG.normal(size=(3, 3)), x) < 1e-12
    assert superposition_error(RNG.normal(size=(2, 2)), x, RNG.normal(size=(2, 3))) < 1e-12
    layer = keras_seq.SimpleRNN(4)
    layer.build((None, None, 3))
    assert superposition_error(layer, x) > 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0, 2.0]], [1.0]), ValueError, r"system: expected a matrix \(n, n\) or a layer, got shape \(1, 2\)"),
        (([[math.nan]], [1.0]), ValueError, "system: expected finite numbers, got NaN"),
        (([[1.0]], [1.0, 2.0]), ValueError, r"inputs: expected shape \(1,\), got \(2,\)"),
        (([[1.0]], [1.0], 0), ValueError, "steps: expected a positive integer"),
        (([[1.0]], [1.0], 5, [1.0]), ValueError, r"input_matrix: expected shape \(1, d\), got \(1,\)"),
        ((3, [1.0]), TypeError, "layer: expected a"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        linear_response(*arguments)


def test_a_layer_that_is_not_linear_is_named():
    layer = keras_seq.SimpleRNN(4, name="bent")
    layer.build((None, None, 3))
    with pytest.raises(ValueError, match=r"system: expected a matrix or a layer whose step is linear.*bent"):
        linear_response(layer, [1.0, 2.0, 3.0])

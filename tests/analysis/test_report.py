"""The report: its numbers are those of the functions it stands on, and its sentences say what they mean."""

import math

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import (
    bibo_certificate,
    contraction_certificate,
    gradient_flow,
    lyapunov_spectrum,
    memory_length,
    stability_report,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 40, 3)).astype("float32")


def meanings(report):
    return {f.name: f.meaning for f in report.findings}


def test_its_numbers_are_those_of_its_functions():
    layer = keras_seq.LSTM(5)
    layer(X)
    report = stability_report(layer, X)
    np.testing.assert_array_equal(report.lyapunov.exponents, lyapunov_spectrum(layer, X, skip=4, leading=4).exponents)
    np.testing.assert_array_equal(report.gradients.log_norm, gradient_flow(layer, X).log_norm)
    others = np.roll(X[:, 0], 1, axis=0)
    pairs = [memory_length(layer, X[i, 0], others[i], following=X[i, 1:]) for i in range(4)]
    np.testing.assert_array_equal(report.memory.steps, [p.steps[0] for p in pairs])
    np.testing.assert_allclose(report.memory.distance, [p.distance[0] for p in pairs], atol=1e-6)
    bound = float(np.abs(X).max())
    assert report.bounded == bibo_certificate(layer, bound)
    assert report.forgets.proven == contraction_certificate(layer, bound).proven is False
    assert report.title == f"LSTM {layer.name}: states h 5, c 5, float32; along 4 x 40 steps"
    text = str(report)
    assert all(f.name in text and f.value in text for f in report.findings)
    assert max(map(len, text.splitlines())) < 140


def scaled(radius, units=24):
    layer = keras_seq.SimpleRNN(units)
    layer(X)
    kernel, recurrent, bias = layer.get_weights()
    layer.set_weights([0.1 * kernel, radius * recurrent, bias])  # an orthogonal start
    return layer


def test_what_fades_what_grows_and_what_is_proved():
    fades, grows = (stability_report(scaled(r), X) for r in (0.5, 4.0))
    assert "fade: they halve every" in meanings(fades)["greatest Lyapunov exponent"]
    assert "vanishes: below a half after" in meanings(fades)["gradient over 40 steps"]
    assert fades.forgets.proven
    assert fades.forgets.value == pytest.approx(0.5, rel=1e-5)
    assert fades.lyapunov.exponents.max() <= math.log(0.5) + 1e-4
    assert "under the mean input, 1 of them stable" in meanings(fades)["fixed points"]
    assert "grow: they double every" in meanings(grows)["greatest Lyapunov exponent"]
    assert "explodes" in meanings(grows)["gradient over 40 steps"]
    assert "Nothing is proved" in meanings(grows)["forgets its start"]
    assert "after all 40 steps" in meanings(grows)["memory of the first step"]


def test_masks_count_real_steps_alone():
    layer = keras_seq.GRU(4)
    layer(X)
    mask = np.arange(40) < np.array([[40], [40], [25], [25]])
    report = stability_report(layer, X, mask=mask)
    alone = gradient_flow(layer, X[2:, :25])
    np.testing.assert_allclose(report.gradients.log_norm[2:, :26], alone.log_norm, rtol=1e-4, atol=1e-4)
    assert np.isnan(report.gradients.log_norm[2:, 26:]).all()
    assert "gradient over 25 steps" in meanings(report)
    gaps = np.arange(40) % 2 > 0
    np.testing.assert_allclose(
        gradient_flow(layer, X, mask=np.broadcast_to(gaps, (4, 40))).log_norm[:, :21],
        gradient_flow(layer, X[:, gaps]).log_norm,
        rtol=1e-4,
        atol=1e-4,
    )


def test_of_a_blocked_memory_it_says_what_training_sees():
    layer = keras_seq.Elman(4)
    layer(X)
    report = stability_report(layer, X)
    assert "no gradient through: training sees one step" in meanings(report)["gradient over a step"]
    assert np.isfinite(report.lyapunov.exponents).all()


@pytest.mark.deep
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.LSTM(4),
        lambda: keras_seq.GRU(4, dtype="mixed_bfloat16"),
        lambda: keras_seq.GRU(4, go_backwards=True, stateful=True),
        lambda: keras_seq.NARX(4, 1, input_delays=3, output_delays=2, closed=True),
        lambda: keras_seq.SimpleRNN(4, activation="relu", recurrent_initializer="zeros"),
    ],
)
def test_every_kind_of_layer_has_one(make):
    layer = make()
    layer(X)
    report = stability_report(layer, X)
    assert len(report.findings) >= 6
    assert "nan" not in str(report)


@pytest.mark.deep
def test_of_a_wide_state_the_leading_part():
    layer = keras_seq.LSTM(150)
    layer(X)
    report = stability_report(layer, X)
    assert report.lyapunov.exponents.shape == (4, 4)
    assert report.gradients.log_largest is None
    assert report.fixed_points is None


@pytest.mark.deep
def test_within_a_stack_and_with_constants():
    stack = keras_seq.Stacked([keras_seq.TDNN(3, delays=2), keras_seq.GRU(4)])
    stack(X)
    assert stability_report(stack, X).title.startswith("GRU gru")
    layer = keras_seq.RNN(keras_seq.AttentionCell(keras_seq.GRUCell(4)))
    memory = RNG.normal(size=(4, 5, 3)).astype("float32")
    layer(X, constants=[memory])
    report = stability_report(layer, X, constants=[memory])
    assert report.fixed_points is None
    assert not report.bounded.proven


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stability_report(keras_seq.TDNN(3, delays=2), X), ValueError, "layer: expected a recurrent layer"),
        (lambda: stability_report(keras_seq.GRU(3), X), ValueError, "layer: expected a built layer"),
        (lambda: stability_report(scaled(1.0), X, tolerance=0), ValueError, "tolerance: expected a positive number"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Levenberg-Marquardt: its minima beside SciPy's, its Bayesian estimates beside the evidence written out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from levenberg_models import WARM_UP, curve, data, narx, small

from keras_seq.testing.differences import assert_close
from keras_seq.training import LevenbergMarquardt, residuals


def test_the_minimum_is_that_of_scipy():
    from scipy.optimize import least_squares

    x = np.linspace(-2, 2, 40)[:, None]
    y = np.tanh(2 * x + 1) + 0.5 * np.tanh(3 * x - 2) + 0.05 * np.random.default_rng(0).normal(size=x.shape)
    model = small(2)
    start = np.concatenate([w.ravel() for w in model.get_weights()]).astype("float64")

    def residual(w):
        return (np.tanh(x @ w[None, :2] + w[2:4]) @ w[4:6, None] + w[6] - y).ravel()

    expected = least_squares(residual, start, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    trainer = LevenbergMarquardt(model)
    history = trainer.fit(x, y, epochs=500, gradient_tolerance=1e-12, step_tolerance=1e-12, verbose=0).history
    assert history["loss"][-1] == pytest.approx(2 * expected.cost / len(x), rel=1e-9)
    assert trainer.stop_reason in ("gradient", "step")
    assert np.all(np.diff(history["loss"]) <= 0)
    found = np.concatenate([w.ravel() for w in model.get_weights()]).astype("float64")
    assert_close([residual(found)], [residual(expected.x)], 1e-5)


@pytest.mark.deep
def test_in_closed_loop_the_minimum_is_that_of_scipy():
    from scipy.optimize import least_squares

    model = narx("closed", units=None)
    (x, _), _ = data(model, rows=1, steps=60)
    y = np.zeros((1, 60, 1))
    for t in range(2, 60):
        y[0, t] = np.tanh(0.9 * y[0, t - 1] - 0.4 * y[0, t - 2] + x[0, t, 0] - 0.5 * x[0, t - 1, 1])
    y += 0.05 * np.random.default_rng(3).normal(size=y.shape)
    known, y = y[:, :WARM_UP], y[:, WARM_UP:]
    trainer = LevenbergMarquardt(model)
    fit = trainer._residuals
    prepared = residuals.prepared(fit, "", [x, known], y, None, 2**31)
    program, batch = fit.programs(prepared, True).jacobian, prepared.batches[0]

    def residual(w):
        return program(tf.constant(w), batch)[1].numpy()

    def jacobian(w):
        return program(tf.constant(w), batch)[0].numpy().T

    start = fit.current()
    history = trainer.fit([x, known], y, epochs=300, gradient_tolerance=1e-12, verbose=0).history
    expected = least_squares(residual, start, jacobian, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert history["loss"][-1] == pytest.approx(2 * expected.cost / y.size, rel=1e-9)
    assert_close([fit.current()], [expected.x], 1e-4)  # of float32
    step = 1e-6 * np.eye(len(start))[0]
    assert_close([jacobian(start)[:, 0]], [(residual(start + step) - residual(start - step)) / 2e-6], 1e-6)


def test_bayesian_estimates_are_those_of_the_evidence():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5)) * [3, 1, 0.3, 0.1, 0.02]
    y = x @ rng.normal(size=(5, 1)) + 0.3 * rng.normal(size=(30, 1))
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1, use_bias=False)])
    trainer = LevenbergMarquardt(model, bayesian=True, jit_compile=False)
    logs = {name: values[-1] for name, values in trainer.fit(x, y, epochs=100, verbose=0).history.items()}
    ratio = logs["alpha"] / logs["beta"]
    eigenvalues = np.linalg.eigvalsh(x.T @ x)
    weights = np.linalg.solve(x.T @ x + ratio * np.eye(5), x.T @ y)
    effective = np.sum(eigenvalues / (eigenvalues + ratio))
    assert logs["effective_parameters"] == pytest.approx(effective, rel=1e-5)
    assert 2 < effective < 5
    assert logs["alpha"] == pytest.approx(effective / (2 * np.sum(weights**2)), rel=1e-5)
    assert logs["beta"] == pytest.approx((30 - effective) / (2 * np.sum((x @ weights - y) ** 2)), rel=1e-5)
    assert_close(model.get_weights(), [weights], 1e-4)
    # of a linear model the outputs have a normal distribution, by alpha and beta
    spread = np.eye(30) / (2 * logs["beta"]) + x @ x.T / (2 * logs["alpha"])
    expected = -(30 * np.log(2 * np.pi) + np.linalg.slogdet(spread)[1] + (y.T @ np.linalg.solve(spread, y)).item()) / 2
    assert logs["log_evidence"] == pytest.approx(expected, rel=1e-6)


def test_bayesian_with_more_weights_than_residuals():
    x, y = curve(6)
    model = small(8)
    logs = LevenbergMarquardt(model, bayesian=True, jit_compile=False).fit(x, y, epochs=30, verbose=0).history
    assert all(np.all(np.isfinite(values)) for values in logs.values())
    assert all(0 < effective < 6 for effective in logs["effective_parameters"])

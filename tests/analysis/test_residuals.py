"""Residuals: correlations against NumPy and statsmodels, false alarms as often as is said, missing terms found."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_seq.analysis import plot_correlation, residual_tests

RNG = np.random.default_rng(3)
E = RNG.normal(size=80)
E[1:] += 0.4 * E[:-1]
U = RNG.normal(size=80)
# statsmodels 0.15.0: tsa.acf(E, nlags=5), acorr_ljungbox(E, lags=[5]), the same with model_df=1, tsa.ccf(E, U, adjusted=False)
OWN = [1.0, 0.1444234917, -0.1129891831, -0.0286752987, 0.0282767041, 0.0415964582]
WITH_INPUT = [0.1275900499, -0.0518506619, -0.0201775897, 0.032163002, 0.2110252049, 0.1087112644]
BEFORE_INPUT = [0.0773672643, 0.0998446374, 0.2075986956, 0.0623710641, -0.0694972336]
LJUNG_BOX = 3.09612775997493, 0.6851685697759051
LESS_ONE = 3.09612775997493, 0.5418695051413027


def test_correlations_are_those_of_statsmodels():
    found = residual_tests(E, U, lags=5).correlations
    own, cross = found["residual"], found["residual, input"]
    np.testing.assert_allclose(own.values, OWN, atol=1e-9)
    np.testing.assert_allclose((own.statistic, own.p_value), LJUNG_BOX)
    np.testing.assert_allclose(cross.values[5:], WITH_INPUT, atol=1e-9)
    np.testing.assert_allclose(cross.values[:5], BEFORE_INPUT[::-1], atol=1e-9)
    np.testing.assert_array_equal(cross.lags, range(-5, 6))
    own = residual_tests(E, lags=5, model_df=1).correlations["residual"]
    np.testing.assert_allclose((own.statistic, own.p_value), LESS_ONE)
    assert own.limit == pytest.approx(1.959963985 / np.sqrt(80))
    assert residual_tests(E, confidence=0.99).correlations["residual"].limit == pytest.approx(2.575829304 / np.sqrt(80))


def test_tests_of_higher_order_are_correlations_of_products():
    found = residual_tests(E, U, lags=4, higher_order=True).correlations
    e, u = E - E.mean(), U - U.mean()
    series = {
        "residual, input^2": (e, u**2),
        "residual^2, input^2": (e**2, u**2),
        "residual, residual * input": (e, e * u),
    }
    assert list(found) == ["residual", "residual, input", *series]
    for name, (a, b) in series.items():
        a, b = a - a.mean(), b - b.mean()
        expected = np.correlate(a, b, "full")[79:84] / np.sqrt(a @ a * (b @ b))  # at lags 0 .. 4
        np.testing.assert_allclose(found[name].values, expected[found[name].lags], err_msg=name)


def test_the_statistic_takes_in_how_an_input_correlates_with_itself():
    smooth = np.convolve(U, np.ones(6) / 6)[:80]
    found = residual_tests(E, smooth, lags=3).correlations["residual, input"]
    e, u = E - E.mean(), smooth - smooth.mean()
    own = np.array([u[k:] @ u[: 80 - k] for k in range(4)]) / (u @ u)
    r = found.values[found.tested]
    expected = 80 * r @ np.linalg.solve([[own[abs(i - j)] for j in range(4)] for i in range(4)], r)
    np.testing.assert_allclose(found.statistic, expected)
    np.testing.assert_allclose(r[2], e[2:] @ u[:-2] / np.sqrt(e @ e * (u @ u)))


@pytest.mark.parametrize("smooth", [0.0, 0.9])
def test_false_alarms_are_as_frequent_as_is_said(smooth):
    alarms, beyond = {}, {}
    for seed in range(200):
        e, w = np.random.default_rng(seed).normal(size=(2, 300))
        u = w.copy()
        for t in range(1, 300):
            u[t] += smooth * u[t - 1]
        for name, c in residual_tests(e, u, lags=10, higher_order=True).correlations.items():
            alarms.setdefault(name, []).append(c.p_value < 0.05)
            beyond.setdefault(name, []).append(len(c.beyond) / c.tested.sum())
    for name in alarms:  # 200 throws: 0.05 +- 0.015
        assert np.mean(alarms[name]) < 0.1, name
        assert 0.03 < np.mean(beyond[name]) < 0.07, name


def test_what_is_missing_is_found_at_its_lag():
    e, u = np.random.default_rng(0).normal(size=(2, 600))
    missing = {
        "residual": (e[1:] + 0.5 * e[:-1], u[1:], 1),
        "residual, input": (e[3:] + 0.5 * u[:-3], u[3:], 3),
        "residual, input^2": (e[2:] + 0.5 * u[:-2] ** 2, u[2:], 2),
        "residual, residual * input": (e[1:] + 0.5 * e[:-1] * u[:-1], u[1:], 1),
    }
    for name, (residuals, inputs, lag) in missing.items():
        found = residual_tests(residuals, inputs, higher_order=True).correlations[name]
        assert found.p_value < 1e-6, name
        assert lag in found.beyond
        assert found.lags[found.tested][np.argmax(np.abs(found.values[found.tested]))] == lag
    linear = residual_tests(*missing["residual, input^2"][:2]).correlations
    assert min(c.p_value for c in linear.values()) > 0.01, "which the linear tests do not see"


def test_rows_count_together_and_outputs_and_inputs_apart():
    e, u = RNG.normal(size=(3, 40, 2)), RNG.normal(size=(3, 40, 2))
    found = residual_tests(e, u, lags=4)
    assert list(found.correlations) == [
        *("residual 1", "residual 1, input 1", "residual 1, input 2"),
        *("residual 2", "residual 2, input 1", "residual 2, input 2"),
    ]
    one = found.correlations["residual 2, input 1"]
    a, b = (v - v.mean() for v in (e[..., 1], u[..., 0]))
    expected = sum(np.correlate(x, y, "full")[35:44] for x, y in zip(a, b, strict=True))  # at lags -4 .. 4
    np.testing.assert_allclose(one.values, expected / np.sqrt(np.sum(a**2) * np.sum(b**2)))
    assert found.steps == 120
    np.testing.assert_allclose(found.mean, e.mean(axis=(0, 1)))


def test_the_table_says_what_lies_beyond():
    text = str(residual_tests(E, U, lags=5))
    assert text == (
        f"80 residuals of mean {E.mean():.3g}; 95% of values within 0.219 by chance\n"
        "correlation of   beyond  greatest  at lag  statistic       p\n"
        "residual         0 of 5     0.144       1        3.1  0.6852\n"
        "residual, input  0 of 6     0.211       4        5.4  0.4921"
    )


def test_a_periodic_input_raises_no_alarm():
    for period in (3, 30):
        found = residual_tests(E, np.sin(np.arange(80) / period), lags=30).correlations["residual, input"]
        assert 0.01 < found.p_value < 1


def test_a_picture_shows_what_is_tested_and_what_lies_beyond():
    found = residual_tests(E[3:] + U[:-3], U[3:], lags=6).correlations
    ax = plot_correlation(found["residual, input"])
    points = [c for c in ax.collections if len(c.get_facecolor())]
    assert sorted(lag for c in points for lag in c.get_offsets()[:, 0]) == list(range(-6, 7))
    filled = [int(lag) for c in points if c.get_facecolor()[0, 0] == 0 for lag in c.get_offsets()[:, 0]]
    assert sorted(filled) == sorted(found["residual, input"].beyond)
    assert 3 in filled
    assert "beyond the limits, p < 0.0001" in ax.get_title()
    ax = plot_correlation(found["residual"], ax=Figure().subplots())
    shown = [lag for c in ax.collections if len(c.get_facecolor()) for lag in c.get_offsets()[:, 0]]
    assert sorted(shown) == [1, 2, 3, 4, 5, 6], "lag 0 is 1 whatever the residuals"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((E, None, 80), ValueError, "lags: expected fewer than the 80 steps of residuals, got 80"),
        ((E, U[1:]), ValueError, "inputs: expected 1 x 80 steps, as the other series has, got"),
        ((np.ones(30),), ValueError, "residuals: expected values that differ, got a constant"),
        ((E, np.ones(80)), ValueError, "inputs: expected values that differ, got a constant"),
        (
            (E, np.tile([1.0, -1.0], 40), 5, 0.95, True),
            ValueError,
            "inputs: of their squares: expected values that differ",
        ),
        ((E, None, 5, 0.95, True), ValueError, "inputs: expected some, which higher_order=True reads, got None"),
        ((E, None, 5, 0.0), ValueError, r"confidence: expected a number in \(0, 1\), got 0"),
        ((E, None, 5, 1.0), ValueError, r"confidence: expected a number in \[0, 1\), got 1"),
        ((E, None, 0), ValueError, "lags: expected a positive integer, got 0"),
        (
            (E, None, 5, 0.95, False, 5),
            ValueError,
            "model_df: expected an integer of at least 0 and less than lags=5, got 5",
        ),
        ((np.append(E, np.nan),), ValueError, "residuals: expected finite numbers"),
        (("abc",), TypeError, "residuals: expected numbers"),
        ((np.ones((2, 2, 2, 2)),), ValueError, r"residuals: expected shape \(t,\), \(t, k\) or \(b, t, k\)"),
    ],
)
def test_errors(given, error, message):
    with pytest.raises(error, match=message):
        residual_tests(*given)


def test_a_picture_of_something_else_is_refused():
    with pytest.raises(TypeError, match="correlation: expected one of residual_tests"):
        plot_correlation([1.0])

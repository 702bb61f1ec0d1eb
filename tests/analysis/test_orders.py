"""Delays: least squares and criteria against statsmodels, true orders found, and errors on a validation series."""

import math

import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import fit_arx, forecast_errors, select_orders
from keras_seq.analysis.series import series

RNG = np.random.default_rng(3)
RNG.normal(size=160)
X = RNG.normal(size=120)
NOISE = RNG.normal(size=120)
Y = np.zeros(120)
for step in range(2, 120):
    Y[step] = 1.1 * Y[step - 1] - 0.4 * Y[step - 2] + 0.7 * X[step - 1] + 0.3 * NOISE[step]
# statsmodels 0.15.0: OLS of Y[3:] on the lagged X, the lagged Y and a constant: delays, AIC, BIC, weights
OLS = [
    ([1], [1], 148.1603553117419, 156.44687711613517, [0.6812987562233438, 0.7498991989890207, -0.004787606186059074]),
    (
        *([1], [1, 2], 57.7231853132852, 68.77188105247623),
        [0.6945229220155182, 1.0781037173220471, -0.423857015639782, 0.01342774750490816],
    ),
    (
        *([0, 1], [1, 2, 3], 60.55469973787868, 77.12774334666521),
        [
            *(0.02152545890360381, 0.6927229692690716, 1.0608348745930227),
            *(-0.3815638105633004, -0.03630579122995551, 0.013697436238692177),
        ],
    ),
]


def found_of(selection, p, q):
    return next(o for o in selection.orders if (o.input_delays, o.output_delays) == (p, q))


def test_criteria_are_those_of_statsmodels_less_a_constant():
    found = select_orders(Y, X, [[1], [0, 1]], [1, 2, 3])
    constant = 117 * (math.log(2 * math.pi) + 1)
    for p, q, aic, bic, weights in OLS:
        order = found_of(found, p, q)
        assert order.weights == len(weights)
        np.testing.assert_allclose((order.aic + constant, order.bic + constant), (aic, bic), rtol=1e-9)
        n, k = 117, len(weights)
        volume = math.exp((order.aic - 2 * k) / n)
        assert order.fpe == pytest.approx(volume * (1 + k / n) / (1 - k / n))
        assert order.aicc == pytest.approx(order.aic + 2 * k * (k + 1) / (n - k - 1))
        assert math.isnan(order.one_step)
    best = found.best()
    assert (best.input_delays, best.output_delays) == ([1], [1, 2])


@pytest.mark.parametrize("row", [1, 2])
def test_weights_are_those_of_statsmodels(row):
    p, q, *_, weights = OLS[row]
    layer = fit_arx(Y[3 - max(q) :], X[3 - max(q) :], p, q)
    found = np.concatenate([np.ravel(w) for w in (layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias)])
    np.testing.assert_allclose(found, weights, rtol=1e-5)
    assert layer.delays == max(q)


def test_many_outputs_and_inputs_in_rows():
    rng = np.random.default_rng(1)
    a, b = np.array([[0.5, 0.2], [-0.3, 0.6]]), rng.normal(size=(3, 2))
    x, y = rng.normal(size=(4, 50, 3)), np.zeros((4, 50, 2))
    for t in range(2, 50):
        y[:, t] = y[:, t - 1] @ a + x[:, t - 2] @ b + 0.7
    layer = fit_arx(y, x, input_delays=[2], output_delays=1)
    np.testing.assert_allclose(layer.cell.recurrent_kernel, a, atol=1e-5)
    np.testing.assert_allclose(layer.cell.kernel, b, atol=1e-5)
    np.testing.assert_allclose(layer.cell.bias, [0.7, 0.7], atol=1e-5)
    noisy = y + 0.1 * rng.normal(size=y.shape)
    found = select_orders(noisy, x, [[1], [2]], [1, 2], validation=(noisy[:1], x[:1]))
    assert found.best("free_run").input_delays == [2]
    order = found.orders[2]
    e = noisy[:, 2:] - np.asarray(fit_arx(noisy, x, [2], [1])(x, targets=noisy))[:, 2:]
    e = e.reshape(-1, 2)
    expected = len(e) * math.log(np.linalg.det(e.T @ e / len(e))) + 2 * 12
    assert order.weights == 12
    n = 2 * len(e)
    assert order.fpe == pytest.approx(math.exp((expected - 24) / len(e)) * ((n + 12) / (n - 12)) ** 2, rel=1e-3)
    assert order.aic == pytest.approx(expected, rel=1e-3)


def test_errors_on_the_validation_series_are_those_of_the_layer():
    found = select_orders(Y[:80], X[:80], [[1]], [2], validation=(Y[80:], X[80:])).orders[0]
    layer = fit_arx(Y[:80], X[:80], [1], 2)
    errors = forecast_errors(layer, Y[80:], X[80:], horizons=[1])
    np.testing.assert_allclose((found.one_step, found.free_run), errors.rmse[0], rtol=1e-4)


def test_layers_are_judged_as_linear_models_are():
    given = {"input_delays": [[1], [0, 1]], "output_delays": [1, 2], "validation": (Y[80:], X[80:])}
    asked = []

    def fit(p, q):
        asked.append((p, q))
        return fit_arx(Y[2 - max(q) : 80], X[2 - max(q) : 80], p, q)

    linear, layers = select_orders(Y[:80], X[:80], **given), select_orders(Y[:80], X[:80], fit=fit, **given)
    assert asked == [([1], [1]), ([1], [1, 2]), ([0, 1], [1]), ([0, 1], [1, 2])]
    for one, other in zip(linear.orders, layers.orders, strict=True):
        assert one[:3] == other[:3]
        np.testing.assert_allclose(one[3:], other[3:], rtol=2e-4, atol=1e-4)


def test_a_series_without_inputs_and_the_table():
    found = select_orders(Y[:80], output_delays=[1, [1, 24], [1, 2, 3]], validation=Y[80:])
    assert [o.input_delays for o in found.orders] == [None] * 3
    lines = str(found).splitlines()
    assert lines[0].split()[:5] == ["input", "delays", "output", "delays", "weights"]
    assert [line.split("  ")[0] for line in lines[1:4]] == ["-"] * 3
    assert "1, 24" in lines[2]
    assert "1..3" in lines[3]
    assert lines[-1].startswith("* the least of its column; AIC, AICc and BIC are shown as what they are above it")
    best = found.best("bic")
    for line, order in zip(lines[1:4], found.orders, strict=True):
        assert f" {order.bic - best.bic:.1f}" in line
    assert sum(line.count("*") for line in lines[1:4]) == 6


def test_a_model_that_diverges_is_last():
    grows = 1.05 ** np.arange(400.0)
    found = select_orders(grows[:60], output_delays=[1], validation=np.tile(np.sin(np.arange(40)), 10))
    assert found.orders[0].free_run < math.inf  # it starts at 0 and what rounding adds does not grow enough
    wild = select_orders(2.0 ** np.arange(20.0), output_delays=[1], validation=np.sin(np.arange(40)) + 1)
    assert wild.orders[0].free_run == math.inf
    assert "diverges" in str(wild)


WRONG = [
    (
        lambda: fit_arx(Y, X, None),
        TypeError,
        "input_delays: expected what NARX takes, as there are sequences, got None",
    ),
    (lambda: select_orders(Y, X, validation=(Y, 3)), ValueError, "validation sequences: expected shape"),
    (lambda: select_orders(Y, X, fit=object), TypeError, "fit: expected a function"),
    (lambda: fit_arx(Y, X[1:]), ValueError, "sequences: expected 1 x 120 steps"),
    (
        lambda: fit_arx(Y[:4], X[:4], 2, 2),
        ValueError,
        "targets: expected more steps after the delays than the 5 weights, got 2",
    ),
    (
        lambda: fit_arx(Y[:4], X[:4], [7], 2),
        ValueError,
        "targets: expected more steps than the longest delay, 7, got 4",
    ),
    (lambda: fit_arx(Y, X, input_delays="a"), TypeError, "input_delays: expected a positive integer or a list"),
    (lambda: fit_arx(Y, X, output_delays=[0]), ValueError, "output_delays: expected distinct integers from 1 on"),
    (
        lambda: select_orders(Y, X, 3),
        TypeError,
        "input_delays: expected a list of what NARX takes as input_delays, got 3",
    ),
    (lambda: select_orders(Y, X, [1], []), TypeError, "output_delays: expected a list"),
    (lambda: select_orders(Y, X, validation=Y), ValueError, r"validation: expected \(targets, sequences\)"),
    (
        lambda: select_orders(Y, X, validation=(series("y", np.ones((9, 2))), np.ones(9))),
        ValueError,
        "validation: expected",
    ),
    (lambda: select_orders(Y, X, [1], [1], fit=3), TypeError, "fit: expected a function"),
    (
        lambda: select_orders(Y, X, [1], [1], fit=lambda p, q: None),
        TypeError,
        "fit: expected a function that gives a NARX",
    ),
    (
        lambda: select_orders(Y, X, [1], [2], fit=lambda p, q: fit_arx(Y, X, 1, 1)),
        ValueError,
        r"fit: expected a layer of delays \(\[0\], \[1, 2\]\), got \(\[0\], \[1\]\)",
    ),
    (lambda: select_orders(Y).best("loss"), ValueError, "criterion: expected one of"),
    (lambda: select_orders(Y).best("free_run"), ValueError, "criterion: expected another than 'free_run', which needs"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_layer_is_a_start_for_training():
    layer = fit_arx(Y, X, [1], 2)
    assert isinstance(layer, keras_seq.NARX)
    assert layer.return_sequences
    assert isinstance(fit_arx(Y, output_delays=2), keras_seq.AR)

"""Errors k steps ahead against forecasts made one by one; free runs that diverge; pictures of both."""

import concurrent.futures
import math

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import (
    ensemble_interval,
    fit_arx,
    fit_percentage,
    forecast_errors,
    plot_forecast_errors,
    plot_forecasts,
)

RNG = np.random.default_rng(0)
U = RNG.normal(size=(2, 40, 1))
Y = np.zeros((2, 40, 1))
for step in range(2, 40):
    Y[:, step] = 0.9 * Y[:, step - 1] - 0.3 * Y[:, step - 2] + U[:, step - 1] + 0.1 * RNG.normal(size=(2, 1))


def narx(**further):
    layer = keras_seq.NARX(3, 1, input_delays=[0, 2], output_delays=[1, 3], return_sequences=True, **further)
    layer.build((None, None, 1))
    return layer


def one_by_one(layer, u, y, horizons, known):
    """The errors, each forecast asked for alone."""
    found, first = {}, known + horizons[-1] - 1
    for k in horizons:
        errors = []
        for t in range(first, y.shape[1]):
            start = t - k + 1
            x = u[:, start - known : t + 1].astype("float32")
            forecast = np.asarray(layer.forecast(y[:, start - known : start].astype("float32"), sequences=x))
            errors.append(forecast[:, -1] - y[:, t])
        found[k] = np.sqrt(np.mean(np.square(errors)))
    return found


def test_errors_are_those_of_forecasts_one_by_one():
    layer, u, y = narx(), U[:, :18], Y[:, :18]
    found = forecast_errors({"net": layer}, y, u, horizons=[1, 4])
    assert (found.warm_up, found.first, found.names) == (3, 6, ["net", "last value"])
    expected = one_by_one(layer, u, y, [1, 4], 3)
    np.testing.assert_allclose(found.rmse[0, :2], list(expected.values()), rtol=1e-4)
    free = np.asarray(layer.forecast(y[:, :3].astype("float32"), sequences=u.astype("float32")))
    np.testing.assert_allclose(found.free_runs["net"], free, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.rmse[0, 2], np.sqrt(np.mean((free[:, 3:] - y[:, 6:]) ** 2)), rtol=1e-4)
    size = np.linalg.norm(y[:, 6:] - y[:, 6:].mean())
    np.testing.assert_allclose(found.fit, 100 * (1 - found.rmse * np.sqrt(y[:, 6:].size) / size), rtol=1e-4)
    np.testing.assert_allclose(found.rmse[1, 1], np.sqrt(np.mean((y[:, 2:14] - y[:, 6:]) ** 2)))
    opened = np.asarray(layer(u, targets=y))[:, 6:]
    np.testing.assert_allclose(found.rmse[0, 0], np.sqrt(np.mean((opened - y[:, 6:]) ** 2)), rtol=1e-4)


def test_pieces_give_what_all_at_once_gives():
    layer = narx()
    whole = forecast_errors(layer, Y, U, horizons=[1, 4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_seq.analysis.forecasts.AT_ONCE", 300)
        pieces = forecast_errors(layer, Y, U, horizons=[1, 4])
    np.testing.assert_allclose(pieces.rmse, whole.rmse, rtol=1e-5)


def test_functions_layers_of_other_cells_and_closed_layers():
    layer = narx()

    def scaled(targets, sequences):  # as a model with scaling inside
        return 2 * np.asarray(layer.forecast(targets / 2, sequences=sequences))

    found = forecast_errors({"a": layer.close_loop(), "b": scaled, "c": narx(dtype="float64")}, Y, U, [2], warm_up=5)
    again = forecast_errors({"a": scaled}, 2 * Y, U, [2], warm_up=5)
    np.testing.assert_allclose(2 * found.rmse[0], again.rmse[0], rtol=1e-5)
    jordan = keras_seq.Jordan(3, outputs=1, return_sequences=True)
    jordan.build((None, None, 1))
    found = forecast_errors(jordan, Y, U, [1, 3], warm_up=5)
    average = np.zeros((2, 1))  # its state
    for t in range(5):
        average = (average + Y[:, t]) / 2
    free = jordan(U[:, 5:], initial_state=[average])
    np.testing.assert_allclose(found.free_runs["model"], free, rtol=1e-4, atol=1e-5)


def test_a_series_without_inputs():
    series = np.sin(np.arange(60) / 4) + 0.01 * RNG.normal(size=60)
    ar = fit_arx(series[:40], output_delays=3)
    found = forecast_errors({"AR": ar}, series[30:], horizons=[1, 2])
    assert found.rmse[0, 0] < 0.03
    assert found.free_runs["AR"].shape == (1, 27, 1)
    text = str(found).splitlines()
    assert text[0] == "root mean squared error and fit, steps 4 to 29"
    assert text[1].split() == ["ahead", "AR", "fit", "%", "last", "value", "fit", "%"]
    assert [line.split("  ")[0] for line in text[2:]] == ["1 step", "2 steps", "free, 3 known"]


def test_a_free_run_that_diverges_is_named_with_its_step():
    layer = fit_arx(Y, U, input_delays=[1], output_delays=1)
    layer.cell.recurrent_kernel.assign([[2.0]])
    found = forecast_errors({"wild": layer}, Y, U, horizons=[1, 3])
    free = found.free_runs["wild"]
    at = found.diverged["wild"]
    most = 100 * np.ptp(Y)
    assert np.isfinite(free[:, : at - 1]).all()
    assert np.isnan(free[:, at - 1]).any()
    assert np.nanmax(np.abs(free - Y.mean())) <= most
    assert found.rmse[0, -1] == math.inf
    assert found.fit[0, -1] == -math.inf
    assert np.isfinite(found.rmse[0, :-1]).all()
    assert str(found).splitlines()[-1].split()[3:6] == ["diverges", "at", str(at)]
    longer = fit_arx(np.tile(Y, (1, 8, 1)), np.tile(U, (1, 8, 1)), input_delays=[1], output_delays=1)
    longer.cell.recurrent_kernel.assign([[2.0]])  # beyond float32
    text = str(forecast_errors({"wild": longer}, np.tile(Y, (1, 8, 1)), np.tile(U, (1, 8, 1)), [1, 250]))
    assert "e+" not in text
    assert "nan" not in text
    ax = plot_forecasts(Y, found.free_runs, known=1)
    assert f"wild (diverges at step {at})" in ax.get_legend_handles_labels()[1]
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    low, high = ax.get_ylim()
    assert low <= crosses[0].get_ydata()[0] <= high
    assert high - low < 10 * np.ptp(Y)
    ax = plot_forecast_errors(found)
    assert f"wild (free run diverges at step {at})" in ax.get_legend_handles_labels()[1]


def test_what_comes_back_has_diverged_nevertheless():
    def leaves(targets, sequences):
        steps = sequences.shape[1] - targets.shape[1]
        return np.broadcast_to(np.where(np.arange(steps) == 5, 1e9, 0.0)[:, None], (len(targets), steps, 1))

    found = forecast_errors(leaves, Y, U, [1], warm_up=3)
    assert found.diverged == {"model": 8}
    np.testing.assert_array_equal(np.isnan(found.free_runs["model"][0, :, 0]), np.arange(37) >= 5)


def test_the_fit_is_that_of_its_equation():
    y, z = RNG.normal(size=(2, 30))
    expected = 100 * (1 - np.linalg.norm(y - z) / np.linalg.norm(y - y.mean()))
    assert fit_percentage(y, z) == pytest.approx(expected)
    assert fit_percentage(y, y) == 100
    assert fit_percentage(y, np.full(30, y.mean())) == pytest.approx(0)
    both = fit_percentage(np.stack([y, z], -1), np.stack([z, y], -1))
    assert both.shape == (2,)
    assert both[0] == pytest.approx(expected)
    assert fit_percentage(y, np.where(np.arange(30) > 20, np.inf, z)) == -math.inf


@pytest.mark.parametrize("log", [False, True])
def test_a_picture_of_errors_has_a_line_for_each_model(log):
    y = Y * (0.001 if log else 1)
    arx = fit_arx(y, U, input_delays=[1], output_delays=2)
    models = (
        {"ARX": arx, "off": lambda t, s: np.full((len(t), s.shape[1] - t.shape[1], 1), 0.1)} if log else {"ARX": arx}
    )
    found = forecast_errors(models, y, U, horizons=range(1, 8), warm_up=4)
    ax = plot_forecast_errors(found)
    assert ax.get_yscale() == ("log" if log else "linear")
    lines = [line for line in ax.lines if len(line.get_xdata()) == 7]
    for line, errors in zip(lines, found.rmse, strict=True):
        np.testing.assert_allclose(line.get_ydata(), errors[:-1])
    free = [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(free, found.rmse[:, -1])
    assert ax.get_xticklabels()[-1].get_text() == "free"


def test_a_picture_of_forecasts_has_the_series_and_its_intervals():
    many = np.stack([Y[0, 10:, 0] + 0.1 * i for i in range(5)])
    interval = ensemble_interval(many)
    ax = plot_forecasts(Y, {"five": interval, "first": many[0]}, known=10)
    true, _, five, first = ax.lines
    np.testing.assert_allclose(true.get_ydata(), Y[0, :, 0])
    np.testing.assert_allclose(five.get_ydata(), many.mean(axis=0))
    np.testing.assert_allclose(first.get_xdata(), range(10, 40))
    assert five.get_linestyle() != first.get_linestyle()
    assert ax.get_legend_handles_labels()[1] == ["true", "five, 90% interval", "first"]
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert {round(v, 9) for v in interval.lower} <= {round(v, 9) for v in edges}
    assert plot_forecasts(Y[0], interval, known=10).lines[0].get_xdata()[-1] == 39


WRONG = [
    (lambda: forecast_errors({}, Y, U), ValueError, "models: expected at least one"),
    (lambda: forecast_errors({"last value": narx()}, Y, U), ValueError, "models: expected at least one, and none of"),
    (lambda: forecast_errors(3, Y, U), ValueError, "warm_up: expected a positive integer for models other than NARX"),
    (
        lambda: forecast_errors(3, Y, U, warm_up=3),
        TypeError,
        "models: expected a NARX, an RNN that feeds its output back",
    ),
    (
        lambda: forecast_errors(keras_seq.LSTM(3, return_sequences=True), Y, U, warm_up=3),
        TypeError,
        "models: expected a layer that feeds its output back, .*, got lstm",
    ),
    *[
        (
            lambda given=given: forecast_errors(keras_seq.Jordan(3, 1, name="j", **given), Y, U, warm_up=3),
            TypeError,
            "models: expected .* return_sequences=True, stateful=False and return_internals=False, got j",
        )
        for given in (
            {},
            {"return_sequences": True, "stateful": True},
            {"return_sequences": True, "return_internals": True},
        )
    ],
    (
        lambda: forecast_errors(lambda t, s: t, Y, U, horizons=[2], warm_up=3),
        ValueError,
        "models: expected forecasts of shape",
    ),
    (lambda: forecast_errors(narx(), Y), ValueError, "sequences: expected the inputs that narx.* reads, got None"),
    (lambda: forecast_errors(narx(), Y, U[:, 1:]), ValueError, "sequences: expected 2 x 40 steps"),
    (
        lambda: forecast_errors(narx(), Y, U, warm_up=2),
        ValueError,
        "warm_up: expected at least the 3 of the delays, got 2",
    ),
    (
        lambda: forecast_errors(narx(), Y, U, [38]),
        ValueError,
        "horizons: expected at most 37, the steps after the warm-up",
    ),
    (lambda: forecast_errors(narx(), Y, U, [2, 2]), ValueError, "horizons: expected rising positive integers"),
    (lambda: forecast_errors(narx(), Y, U, 3), TypeError, "horizons: expected rising positive integers, got 3"),
    (lambda: forecast_errors(narx(), Y, U, [1.5]), TypeError, "horizons: expected a positive integer, got 1.5"),
    (lambda: forecast_errors(narx(), 0 * Y, U), ValueError, "targets: expected values that differ, got a constant"),
    (lambda: fit_percentage([1.0, 1.0], [1.0, 2.0]), ValueError, "true: expected values that differ"),
    (
        lambda: fit_percentage([1.0, 2.0], [1.0]),
        ValueError,
        r"predicted: expected shape \(2,\), as true has, got \(1,\)",
    ),
    (lambda: fit_percentage([1.0, 2.0], "ab"), TypeError, "predicted: expected numbers, got 'ab'"),
    (lambda: forecast_errors(lambda t, s: "ab", Y, U, [2], 3), TypeError, "models: of forecasts: expected numbers"),
    (lambda: plot_forecast_errors(3), TypeError, "errors: expected what forecast_errors gives, got 3"),
    (lambda: plot_forecasts(Y, Y, known=1), ValueError, "forecasts: expected the 39 steps from known=1 on, got 40"),
    (
        lambda: plot_forecasts(Y, Y, known=40),
        ValueError,
        "known: expected an integer of at least 0 and less than the 40",
    ),
    (lambda: plot_forecasts(Y, Y, row=2), IndexError, "row: expected one of the 2 of true, got 2"),
    (lambda: plot_forecasts(Y, "a"), TypeError, "forecasts: expected numbers, got 'a'"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_model_with_scaling_inside_forecasts_in_the_units_of_the_data(tmp_path):
    """What docs/narx.md says of Keras's Normalization: it travels with the model, into files too."""
    y, u = 100 + 20 * Y, 5 + U
    scale, unscale = (keras.layers.Normalization(axis=-1, mean=100.0, variance=400.0, invert=v) for v in (False, True))
    layer = fit_arx(Y, U, input_delays=[1], output_delays=2)
    x, known = keras.Input((None, 1)), keras.Input((2, 1))
    shift = keras.layers.Normalization(axis=-1, mean=5.0, variance=1.0)
    closed = keras.Model([x, known], unscale(layer.close_loop()(shift(x), targets=scale(known)))[:, 2:])
    closed.save(tmp_path / "plant.keras")
    loaded = keras.models.load_model(tmp_path / "plant.keras")
    found = forecast_errors({"units": lambda t, s: loaded([s, t])}, y, u, [1, 3], warm_up=2)
    bare = forecast_errors(layer, Y, U, [1, 3])
    np.testing.assert_allclose(found.rmse, 20 * bare.rmse, rtol=1e-3)


@pytest.mark.deep
@pytest.mark.parametrize("policy", ["float64", "mixed_bfloat16", "mixed_float16", "float16", "bfloat16"])
def test_a_layer_of_another_float_type_gives_nearly_the_same(policy):
    layer = narx()
    found = forecast_errors({"one": layer, "other": like(layer, policy)}, Y, U, horizons=[1, 4])
    np.testing.assert_allclose(found.rmse[1], found.rmse[0], rtol=1e-5 if policy == "float64" else 0.05)


def like(layer, policy):
    other = narx(dtype=policy)
    other.set_weights(layer.get_weights())
    return other


@pytest.mark.deep
def test_threads_do_not_disturb_one_another():
    layer = narx()
    expected = forecast_errors(layer, Y, U, horizons=[1, 4]).rmse
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(forecast_errors, layer, Y, U, [1, 4]) for _ in range(8)]
    for run in runs:
        np.testing.assert_array_equal(run.result().rmse, expected)

"""The NARX example: its parts against the equations, and the whole of it, small."""

import pathlib
import sys
import time

import numpy as np
import pytest

import keras_seq

FOLDER = pathlib.Path(__file__).parents[2] / "examples"
SMALL = ("--epochs", "20", "--fine-epochs", "16", "--units", "6", "--batch", "16", "--newton-epochs", "12", "--no-jit")


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(FOLDER))
    try:
        import narx

        yield narx
    finally:
        sys.path.remove(str(FOLDER))


def test_plant(example):
    """Without noise each step is the published equation; the noise of the sensor does not go round the loop."""
    u = example.staircase(50, np.random.default_rng(0))
    assert u.shape == (50,)
    assert np.abs(u).max() <= 2
    assert 5 < len(np.unique(u)) < 50
    y, clean = example.plant(u, np.random.default_rng(1), process_noise=0, sensor_noise=0)
    np.testing.assert_array_equal(y, clean)
    for t in range(2, 50):
        expected = y[t - 1] * y[t - 2] * (y[t - 1] + 2.5) / (1 + y[t - 1] ** 2 + y[t - 2] ** 2) + u[t - 1]
        assert y[t] == pytest.approx(expected, abs=1e-12)
    noisy, clean = example.plant(u, np.random.default_rng(1), process_noise=0, sensor_noise=0.1)
    np.testing.assert_array_equal(clean, y)
    assert 0.05 < np.std(noisy - y) < 0.2
    moved, _ = example.plant(u, np.random.default_rng(1), process_noise=0.1, sensor_noise=0)
    assert np.abs(moved - y).max() > 0.05


def test_windows_and_their_levels(example):
    series = np.random.default_rng(0).normal(size=(23, 2))
    pieces = example.windows(series, 8, 3)
    assert pieces.shape == (6, 8, 2)
    np.testing.assert_allclose(pieces[4], series[12:20], rtol=1e-6)
    found, level, scale = example.relative(pieces, 5)
    np.testing.assert_allclose(found * scale + level, pieces, atol=1e-6)
    np.testing.assert_allclose(found[:, :5].mean(1), 0, atol=1e-6)


@pytest.mark.parametrize("exogenous", [True, False])
def test_least_squares_finds_a_linear_system(example, exogenous):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 12, 2)), rng.normal(size=(40, 12, 1))
    for t in range(3, 12):
        y[:, t] = 0.5 * y[:, t - 1] - 0.3 * y[:, t - 3] + 0.1
        if exogenous:
            y[:, t] += x[:, t] @ [[1.0], [-2.0]] + x[:, t - 2] @ [[0.5], [0.25]]
    delays = {"output_delays": [1, 3], "return_sequences": True, "dtype": "float64"}
    layer = keras_seq.NARX(input_delays=[0, 2], **delays) if exogenous else keras_seq.AR(**delays)
    example.least_squares(layer, x if exogenous else y, y, 3)
    weights = {w.name: w.numpy().ravel() for w in layer.weights}
    np.testing.assert_allclose(weights["recurrent_kernel"], [0.5, -0.3], atol=1e-9)
    np.testing.assert_allclose(weights["bias"], [0.1], atol=1e-9)
    if exogenous:
        np.testing.assert_allclose(weights["kernel"], [1, -2, 0.5, 0.25], atol=1e-9)
    for found in example.predictions(layer, x, y, 3):
        np.testing.assert_allclose(found, y[:, 3:], atol=1e-9)


def test_plant_whole(example, tmp_path, capsys):
    results = example.main(["--task", "plant", "--steps", "1200", *SMALL, "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert "closed loop  epoch  16/16" in out
    assert "free, 390 steps" in out
    assert "best, one step ahead: " in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plant.png", "plant_seconds.png"]
    rows = results["plant"]
    assert np.all(np.isfinite(list(rows.values())))
    assert rows[example.AFTER][1] < rows[example.BEFORE][1]
    assert rows[example.AFTER][1] < rows[example.LAST][1]
    assert "LM, closed   epoch  12/12" in out
    assert rows[example.CLOSED][1] < rows[example.AFTER][1]
    assert rows[example.CLOSED][1] < rows[example.OPEN][1]


def test_etth1_whole(example, tmp_path, capsys, data_folder):
    data = data_folder("timeseries").parent
    flags = ("--task", "etth1", "--rows", "1500", "--stride", "6", "--data", str(data), "--output", str(tmp_path))
    results = example.main([*flags, *SMALL])
    out = capsys.readouterr().out
    assert "ETTh1: 1500 hours; 139 windows to train, 229 windows to validation, 229 windows to test" in out
    assert "24 hours free" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["etth1.png", "etth1_seconds.png"]
    rows = results["etth1"]
    assert np.all(np.isfinite(list(rows.values())))
    assert rows[example.YESTERDAY][0] == rows[example.YESTERDAY][1]
    assert rows[example.ARX][0] < rows[example.YESTERDAY][0]


def test_the_clock_stops_while_it_looks(example):
    clock = example.Clock(lambda: time.sleep(0.2) or 0.5)
    clock.set_params({"epochs": 2})
    begun = time.perf_counter()
    for _ in range(2):
        clock.on_train_begin()
        for epoch in range(2):
            clock.on_epoch_end(epoch)
    assert [error for _, error in clock.curve] == [0.5] * 4
    assert clock.stages == [0, 2]
    assert clock.seconds <= time.perf_counter() - begun - 4 * 0.2
    assert np.all(np.diff([seconds for seconds, _ in clock.curve]) >= 0)


def test_without_the_data(example, tmp_path, capsys):
    results = example.main(["--task", "etth1", "--data", str(tmp_path / "none"), "--output", str(tmp_path)])
    assert results == {"etth1": None}
    out = capsys.readouterr().out
    assert "ETTh1 is left out: no file" in out
    assert "written to" in out
    assert "nothing" in out

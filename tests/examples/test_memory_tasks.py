"""The example on memory: what its tasks ask, what they give one who forgets, and a small run."""

import pathlib
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import memory_tasks


def test_sums_are_of_the_marked_numbers():
    x, y = memory_tasks.adding(np.random.default_rng(0), 500, 30)
    assert x.shape == (500, 30, 2)
    assert y.shape == (500, 1)
    assert np.all((x[..., 1] == 1).sum(1) == 2)
    assert np.all((x[..., 1] == 0).sum(1) == 28)
    for numbers, (total,) in zip(x, y, strict=True):
        first, second = np.nonzero(numbers[:, 1])[0]
        assert total == pytest.approx(numbers[first, 0] + numbers[second, 0], abs=1e-6)
    assert set(np.nonzero(x[..., 1])[1]) == set(range(30)), "any place may be marked"
    assert 0 <= x[..., 0].min() < 0.01 < 0.99 < x[..., 0].max() <= 1


def test_copies_are_of_the_first_ten():
    x, y = memory_tasks.copy(np.random.default_rng(0), 50, 7)
    assert x.shape == (50, 27, 10)
    assert y.shape == (50, 27)
    seen = x.argmax(-1)
    np.testing.assert_array_equal(x.sum(-1), 1)
    np.testing.assert_array_equal(seen[:, :10], y[:, -10:])
    np.testing.assert_array_equal(seen[:, 10:16], 0)
    np.testing.assert_array_equal(seen[:, 16:], 9)
    np.testing.assert_array_equal(y[:, :17], 0)
    assert set(seen[:, :10].ravel()) == set(range(1, 9))


def test_floors_are_what_one_who_forgets_gets():
    rng = np.random.default_rng(0)
    _, sums = memory_tasks.adding(rng, 20000, 10)
    floor = memory_tasks.TASKS["adding"][5](10)
    assert floor == pytest.approx(1 / 6)
    assert np.mean((sums - 1) ** 2) == pytest.approx(floor, rel=0.03)
    _, said = memory_tasks.copy(rng, 100, 30)
    scores = np.full((*said.shape, 10), -50.0, "float32")
    scores[:, :-10, 0] = 0  # blank for certain
    scores[:, -10:, 1:9] = 0  # any of the eight
    _, _, loss, *_, floor, _ = memory_tasks.TASKS["copy"]
    assert float(loss(said, scores)) == pytest.approx(floor(30), rel=1e-4)
    assert floor(30) == pytest.approx(10 * np.log(8) / 50)


@pytest.mark.parametrize(("width", "outputs", "steps", "every_step"), [(2, 1, 40, False), (10, 10, 60, True)])
def test_models_are_of_one_size_and_see_all(width, outputs, steps, every_step):
    tcn = memory_tasks.tcn(width, outputs, steps, every_step)
    lstm = memory_tasks.lstm(width, outputs, steps, every_step, tcn.count_params())
    assert lstm.count_params() == pytest.approx(tcn.count_params(), rel=0.05)
    assert tcn.layers[0].receptive_field >= steps
    shape = (3, steps, outputs) if every_step else (3, outputs)
    assert tcn.output_shape[1:] == lstm.output_shape[1:] == shape[1:]
    assert tuple(keras.ops.shape(lstm(np.zeros((3, steps, width), "float32")))) == shape


@pytest.mark.filterwarnings("ignore:.*shorter than the receptive field")
def test_a_small_run(tmp_path, capsys):
    arguments = ["--length", "10", "--steps", "60", "--batch", "16", "--no-jit"]
    runs = memory_tasks.main([*arguments, "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert set(runs) == {"adding", "copy"}
    for task, (results, curves, floor) in runs.items():
        for name in ("TCN", "LSTM"):
            assert f"| {task:6} | {name:5} |" in out
            _, steps, loss, right, _ = results[name]
            assert steps == 50, "in whole pieces of the training"
            assert 0 < loss < 10 * floor
            assert 0 <= right <= 1
            assert curves[name][-1][1] == loss
    assert (tmp_path / "memory_tasks.png").stat().st_size > 5000

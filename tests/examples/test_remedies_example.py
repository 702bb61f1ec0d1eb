"""The example on remedies: what it asks, what it says of a loss, and a small run."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import remedies


def test_one_symbol_is_to_be_said_at_the_end():
    x, y = remedies.copy_one(np.random.default_rng(0), 200, 7)
    assert x.shape == (200, 9, 10)
    seen = x.argmax(-1)
    np.testing.assert_array_equal(seen[:, 0], y)
    np.testing.assert_array_equal(seen[:, 1:7], 0)
    np.testing.assert_array_equal(seen[:, 7:], 9)
    assert set(y) == set(range(1, 9))


def test_what_a_loss_says():
    said = [remedies.verdict(loss, 1.0) for loss in (0.4, 0.6, 0.95, float("nan"))]
    assert said == ["yes", "a little", "no", "exploded"]


def test_memories_are_of_about_one_size():
    class Options:
        units, steps, seed, jit = 64, 10, 0, False

    counts = {r: remedies.model_of(r, "adding", (20, 2), Options).count_params() for r in remedies.REMEDIES}
    assert len(counts) == 13
    assert max(counts.values()) < 1.15 * min(counts.values())
    starts = {
        r: remedies.model_of(r, "adding", (20, 2), Options).layers[0].cell.recurrent_kernel.numpy()
        for r in ("none", "radius", "identity")
    }
    np.testing.assert_array_equal(starts["identity"], np.eye(64))
    assert np.max(np.abs(np.linalg.eigvals(starts["radius"]))) == pytest.approx(1, rel=1e-3)


def test_a_small_run(tmp_path, capsys):
    chosen = ["none", "constraint", "irnn", "open"]
    arguments = ["--quick", "--batch", "8", "--no-jit", "--remedy", *chosen, "--output", str(tmp_path)]
    runs, before = remedies.main(arguments)
    out = capsys.readouterr().out
    assert set(runs) == {(task, length, r) for task in ("adding", "copy") for length in (5, 10) for r in chosen}
    assert {len(curve) for curve in before.values()} == {5}
    for _, loss, share, _, curve in runs.values():
        assert 0 < loss < 5
        assert 0 <= share <= 1
        assert [n for n, _ in curve] == [10, 20]
        assert curve[-1][1] == loss
    for r in chosen:
        assert f"| {remedies.REMEDIES[r][0]} |" in out
    for name in ("remedies.png", "gradients.png"):
        assert (tmp_path / name).stat().st_size > 5000

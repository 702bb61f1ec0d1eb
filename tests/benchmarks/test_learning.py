"""The benchmark of what is learned: its tasks, its contestants, what it writes, and what it says without torch."""

import pathlib
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.deep
FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def learning():
    sys.path.insert(0, str(FOLDER))
    try:
        import learning

        if not learning.tasks.DATA.exists():
            pytest.skip("no data: KERAS_SEQ_DATA")
        yield learning
    finally:
        sys.path.remove(str(FOLDER))


NAMES = ["characters", "translation", "captions", "plant", "system", "forecast", "tagging", "memory"]


def test_the_tasks_are_these(learning):
    assert list(learning.tasks.TASKS) == NAMES
    assert list(learning.learners.OURS) == list(learning.learners.KERAS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_contestants_are_the_same_model(learning, name):
    """As many weights, outputs like the targets; a translation's differ, as attention stands elsewhere."""
    task, seen = learning.prepared(name, quick=True)
    assert len(task.targets) % task.batch == 0
    assert all(len(x) == len(task.targets) for x in (*task.inputs, *seen[0]))
    models = learning.learners.OURS[name](task), learning.learners.KERAS[name](task)
    for model, inputs in zip(models, (task.inputs, seen[0]), strict=True):
        y = np.asarray(model(learning.single([x[:3] for x in inputs])))
        assert np.all(np.isfinite(y))
        assert y.shape[:2] == task.targets[:3].shape[:2]
    counts = [model.count_params() for model in models]
    if name == "translation":
        assert counts[0] == pytest.approx(counts[1], rel=0.1)
    elif name == "system":
        scales = sum(part.units for part in models[0].layers[0].parts)  # of the weight normalisation
        assert counts[0] - scales == counts[1]
    else:
        assert counts[0] == counts[1]


def test_the_floor_is_what_the_simple_way_gives(learning):
    """Of frequencies: the readout's bias alone, before anything is learned."""
    task, _ = learning.prepared("characters", quick=True)
    (vocabulary,) = learning.learners.vocabularies(task)
    shares = (np.array(vocabulary.counts) + 1) / (np.sum(vocabulary.counts) + len(vocabulary))
    asked = task.held_out[1]
    assert task.floor == pytest.approx(-np.log(shares[asked[asked > 0]]).mean(), rel=1e-3)


def test_lagged_inputs_are_those_of_the_narx(learning):
    u, y = np.arange(1.0, 6).reshape(1, 5, 1), 10 * np.arange(1.0, 6).reshape(1, 5, 1)
    expected = [[1, 0, 0, 0], [2, 1, 10, 0], [3, 2, 20, 10], [4, 3, 30, 20], [5, 4, 40, 30]]
    np.testing.assert_array_equal(learning.learners.lagged(u, y, 2)[0], expected)


def test_free_runs_agree(learning):
    """A NARX in closed loop, and the same weights as a net over lagged inputs, its outputs fed back one by one."""
    task, _ = learning.prepared("plant", quick=True)
    task.held_out = tuple(x[:2, :30] for x in task.held_out[0]), task.held_out[1][:2, :30]
    inputs = (learning.learners.lagged(*task.held_out[0], learning.tasks.LAGS),)
    narx, net = learning.learners.plant(task), learning.learners.keras_plant(task)
    kernel, recurrent, bias, *readout = narx.get_weights()
    net.set_weights([np.concatenate([kernel, recurrent]), bias, *readout])
    found = [learning.free_run(narx, task, task.held_out[0]), learning.free_run(net, task, inputs)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0] > 0


def test_what_it_writes(learning, tmp_path, monkeypatch, capsys):
    """Two tasks cut to a few batches, without torch."""

    def few(make):
        def task(quick):
            found = make(quick)
            found.inputs, found.targets = (
                tuple(x[: 2 * found.batch] for x in found.inputs),
                found.targets[: 2 * found.batch],
            )
            found.held_out = tuple(x[:8] for x in found.held_out[0]), found.held_out[1][:8]
            return found

        return task

    for name in ("characters", "memory"):
        monkeypatch.setitem(learning.tasks.TASKS, name, few(learning.tasks.TASKS[name]))
    flags = ["--only", "characters", "memory", "--quick", "--seeds", "2", "--torch", "true", "--output", str(tmp_path)]
    monkeypatch.setattr(learning.starts, "sections", lambda quick: ["## Sizes at the start"])
    found = learning.main(flags)
    assert list(found) == ["characters", "memory"]
    _, runs = found["characters"]
    assert list(runs) == [learning.OURS, learning.BEFORE, learning.KERAS]
    assert all(len(each) == 2 and len(curve) == 3 for each in runs.values() for curve, _ in each)
    first = {whose: each[0][0][0][1] for whose, each in runs.items()}
    assert first[learning.OURS] < first[learning.KERAS] - 0.2  # the frequencies are there from the start
    text = (tmp_path / "LEARNING.md").read_text()
    assert text.startswith("# What is learned at the first try")
    assert "python benchmarks/learning.py --only characters memory" in text
    assert "torch none found" in text
    assert "| ours, started as Keras does | " in text
    assert text.rstrip().endswith("## Sizes at the start")
    assert (tmp_path / "learning.png").stat().st_size > 5000
    assert "memory       plain Keras" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["translation", "system"])
def test_what_is_learned_now_and_was_not_before(learning, name):
    """A plain Seq2Seq leaves the frequencies of the words; a TCN begins no larger than what it learns."""
    task, _ = learning.prepared(name, quick=True)
    inputs = [task.inputs, task.held_out[0]]
    now, before = (
        learning.of_keras(name, task, 0, lambda t, then=then: learning.learners.OURS[name](t, before=then), inputs)[0]
        for then in (False, True)
    )
    if name == "translation":
        assert now[-1][1] < task.floor - 0.5
        assert before[-1][1] > task.floor - 0.1
    else:
        assert now[-1][1] < 2 * task.floor
        assert before[-1][1] > 10 * task.floor


def test_sizes_at_the_start(learning):
    starts = learning.starts
    table = starts.over_depth((1, 4))
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ")[1:] for row in table.splitlines()[2:]}
    assert list(rows) == list(starts.DEEP)
    alone = [row.strip("| ").split(" | ") for row in starts.over_length((2,)).splitlines()[2:]]
    assert [name for name, *_ in alone] == list(starts.ALONE)
    assert all(float(size) > 0 for name, size, *_ in alone if not name.startswith("AR"))
    now, before = (float(rows[name][1]) for name in ("TCN", "TCN, He's start as before"))
    assert now < 1.5 < before
    models = [row.strip("| ").split(" | ") for row in starts.of_models(quick=True).splitlines()[2:]]
    for before, now in zip(models[::2], models[1::2], strict=True):
        assert (before[0], before[1], now[1]) == (now[0], "before", "now")
        assert float(before[2]) < 0.05 < 0.9 < float(now[2])

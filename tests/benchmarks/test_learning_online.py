"""The benchmarks of online learning and of the monitor: what they compare, and small runs."""

import pathlib
import sys
import types

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
import gradient_monitor
import online

import keras_seq


def test_what_is_to_be_said_came_before():
    stream, said = online.echo(20, 3, seed=1)
    assert stream.shape == said.shape == (20, 1, 1)
    np.testing.assert_array_equal(said[3:], stream[:-3])


@pytest.mark.filterwarnings("ignore:.*lets no gradient through its states")
def test_both_gradients_start_from_the_same_memory():
    exact, one_step = (online.learner(blocked, 4, seed=2) for blocked in (False, True))
    for a, b in zip(exact.cell.get_weights(), one_step.cell.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    options = types.SimpleNamespace(samples=40, delays=[2], seeds=1, units=4)
    table = online.learned(options).splitlines()
    assert [row.split("|")[2].strip() for row in table[2:]] == ["RTRL", "k = 1"]
    assert table[0].split("|")[3].strip() == "after 4"


def test_the_monitor_measures_once_in_a_run():
    functions, monitor = gradient_monitor.contestants(lambda u: [keras_seq.GRU(u)], (2, 5, 3, 4), jit=False)
    functions["without"]()
    assert monitor.measurements == []
    functions["with"]()
    assert len(monitor.measurements) == 1

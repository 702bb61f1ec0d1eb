"""What `newton_report` tells is what happens, and it leaves the layer as it is."""

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.analysis import newton_report


def data(steps=200):
    return np.random.default_rng(0).normal(size=(2, steps, 3)).astype("float32")


def test_iterations_and_levels_by_length():
    keras.utils.set_random_seed(0)
    layer, x = keras_seq.GRU(8, stateful=True), data()
    layer.build(x.shape)
    report = newton_report(layer, x, lengths=[20, 200])
    assert [one.steps for one in report.lengths] == [20, 200]
    assert all(one.converged and one.iterations <= 8 for one in report.lengths)
    assert max(one.difference for one in report.lengths) < 1e-5
    assert report.lengths[1].levels == 17 * report.lengths[1].iterations
    assert len(str(report).splitlines()) == 4
    assert not np.any(layer.states[0])


def test_it_says_where_the_loop_ran():
    layer, x = keras_seq.LSTM(8, solver=keras_seq.Newton(max_iterations=2)), data(30)
    layer(x)
    mask = np.arange(30) < np.array([[30], [12]])
    report = newton_report(layer, x, mask)
    (only,) = report.lengths
    assert not only.converged
    assert only.difference == 0
    assert "did not converge, the loop ran" in str(report)


def test_wrong_arguments():
    layer, x = keras_seq.GRU(4), data(12)
    with pytest.raises(ValueError, match="layer: expected a built layer, got gru"):
        newton_report(layer, x)
    layer(x)
    with pytest.raises(TypeError, match=r"layer: expected a keras_seq\.RNN"):
        newton_report(keras.layers.Dense(2), x)
    with pytest.raises(ValueError, match=r"lengths: expected integers from 1 to 12, got \[13\]"):
        newton_report(layer, x, lengths=[13])
    with pytest.raises(TypeError, match=r"lengths: expected a positive integer, got 1\.5"):
        newton_report(layer, x, lengths=[1.5])
    linear = keras_seq.MinGRU(4)
    linear(x)
    with pytest.raises(ValueError, match="layer: expected one whose states are found step by step"):
        newton_report(linear, x)

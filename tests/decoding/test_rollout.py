"""Outputs fed back: equal to the sequence of what was fed, ended rows, random numbers, compiled."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import D
from conformance import assert_close, randomised
from keras import ops

import keras_seq
from keras_seq.decoding import feed_back


def layer(units=D):
    made = keras_seq.LSTM(units, return_sequences=True)
    made.build((None, None, D))
    return randomised(made)


X = np.random.default_rng(0).normal(size=(4, D)).astype("float32")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_is_fed_back_makes_the_outputs(jit_compile):
    memory = layer()
    run = tf.function(lambda x: feed_back(memory.step, x, memory.initial_state(4), 7), jit_compile=jit_compile)
    found = run(X)
    read = np.concatenate([X[:, None], found[:, :-1]], axis=1)
    assert_close([found], [memory(read)], 1e-5)


def test_feed_makes_the_next_input():
    memory = layer(5)
    found = feed_back(memory.step, X, memory.initial_state(4), 6, feed=lambda y: 2 * y[:, :D])
    read = np.concatenate([X[:, None], found[:, :-1]], axis=1)
    assert_close([found], [2 * memory(read)[..., :D]], 1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rows_end(jit_compile):
    """A counter: row i ends when it has reached its limit; the loop stops when the last has."""
    limit, calls = np.array([3, 5, 1, 4]), []

    def step(x, state):
        calls.append(1)
        return x + 1, [state[0] + 1]

    def run(x):
        return feed_back(step, x, [ops.zeros((4,))], 9, ended=lambda y: y[:, 0] >= limit)

    found = tf.function(run, jit_compile=jit_compile)(tf.zeros((4, 1), "int32"))[..., 0]
    expected = [[1, 2, 3, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0, 0, 0, 0], [1] + [0] * 8, [1, 2, 3, 4] + [0] * 5]
    np.testing.assert_array_equal(found, expected)
    assert len(calls) == 1, "one trace"
    counted = []
    feed_back(
        lambda x, s: (counted.append(1), (x + 1, s))[1],
        tf.zeros((4, 1), "int32"),
        [],
        9,
        ended=lambda y: y[:, 0] >= limit,
    )
    assert len(counted) == 5


def test_random_numbers_are_new_at_each_step():
    seed = keras.random.SeedGenerator(1)
    uniform = ops.zeros((2, 50))
    found = feed_back(
        lambda x, s: (uniform, s),
        ops.zeros((2,), "int32"),
        [],
        40,
        feed=lambda y: keras.random.categorical(y, 1, seed=seed)[:, 0],
    )
    assert found.shape == (2, 40)
    assert len(set(found.numpy().flatten())) > 20


def test_wrong_inputs_are_named():
    memory = layer(5)
    with pytest.raises(ValueError, match="steps: expected a positive integer, got 0"):
        feed_back(memory.step, X, memory.initial_state(4), 0)
    with pytest.raises(ValueError, match=r"feed: expected the next input, of shape \(4, 3\), got \(4, 5\)"):
        feed_back(memory.step, X, memory.initial_state(4), 2)

"""A learner of a stream: what it computes, that it goes on where it was saved, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.testing.differences import assert_close
from keras_seq.training import RTRL, OnlineLearner

RULES = ["rtrl", "snap1", "uoro"]


def stream(steps, rows=1, seed=0):
    """Signs, and what was said three steps before."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (steps + 3, rows, 1)).astype("float32")
    return list(zip(signs[3:], signs[:-3], strict=True))


def made(rule="rtrl", rows=1, **settings):
    keras.utils.set_random_seed(4)
    learner = OnlineLearner(keras_seq.SimpleRNNCell(6, outputs=1, seed=1), 1, rows, rule)
    learner.compile(keras.optimizers.Adam(0.01), "mse", **settings)
    return learner


def test_it_is_the_rule_and_the_optimizer_step_by_step():
    learner, cell = made(rows=2), made(rows=2).cell
    data = stream(6, rows=2)
    cell.set_weights(learner.cell.get_weights())
    rule, optimizer = RTRL(cell), keras.optimizers.Adam(0.01)
    state = rule.initial_state(2)
    for x, target in data:
        _, expected, gradients, state = rule.step(x, state, lambda y, t=target: tf.reduce_mean((y - t) ** 2))
        optimizer.apply(gradients, rule.weights)
        assert_close([learner(x)], [expected], 1e-5)
        assert_close([learner.learn(x, target)], [expected], 1e-5)
    assert_close(learner.cell.get_weights(), cell.get_weights(), 1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_it_learns_a_delayed_echo(rule):
    learner = made(rule)
    losses = [float(np.mean((learner.learn(x, y) - y) ** 2)) for x, y in stream(1500)]
    assert np.mean(losses[-200:]) < (0.5 if rule == "rtrl" else 0.95) * np.mean(losses[:200])


def test_fit_is_learning_step_by_step():
    data = stream(40)
    one, other = made(), made()
    for x, y in data:
        one.learn(x, y)
    xs, ys = (np.concatenate(part) for part in zip(*data, strict=True))
    history = other.fit(xs, ys, batch_size=1, shuffle=False, verbose=0).history
    assert history["loss"][0] > 0
    assert_close(other.get_weights(), one.get_weights(), 1e-6)


@pytest.mark.parametrize("rule", ["rtrl", "snap1"])
def test_a_saved_learner_goes_on_where_it_stood(rule, tmp_path):
    data = stream(60)
    learner = made(rule)
    for x, y in data[:30]:
        learner.learn(x, y)
    learner.save(tmp_path / "learner.keras")
    again = keras.models.load_model(tmp_path / "learner.keras")
    for x, y in data[30:]:
        assert_close([again.learn(x, y)], [learner.learn(x, y)], 1e-6)
    assert_close(again.get_weights(), learner.get_weights(), 1e-6)


@pytest.mark.deep
def test_compiled_by_xla():
    one, other = made(jit_compile=False), made(jit_compile=True)
    for x, y in stream(8):
        assert_close([other.learn(x, y)], [one.learn(x, y)], 1e-5)


def test_a_new_stream_begins_as_the_first_did():
    learner = made()
    data = stream(5)
    first = learner(data[0][0])
    weights = learner.cell.get_weights()
    for x, y in data:
        learner.learn(x, y)
    learner.reset_stream()
    learner.cell.set_weights(weights)
    assert_close([learner(data[0][0])], [first], 1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: OnlineLearner(keras.layers.LSTMCell(2), 2), TypeError, "cell: expected a keras_seq.Cell"),
        (lambda: OnlineLearner(keras_seq.GRUCell(2), 2, rows=0), ValueError, "rows: expected a positive integer"),
        (lambda: OnlineLearner(made().cell, 3), ValueError, "features: expected 1, for which simple_rnn_cell"),
        (lambda: OnlineLearner(keras_seq.GRUCell(2), 2).learn(1.0, 1.0), ValueError, "expected a compiled model"),
        (lambda: OnlineLearner(keras_seq.GRUCell(2), 2, rule="bptt"), ValueError, "rule: expected one of"),
        (
            lambda: OnlineLearner(keras_seq.GRUCell(2, dropout=0.5), 2),
            ValueError,
            "expected one without dropout",
        ),
        (
            lambda: made().learn(np.ones((3, 1)), np.ones((3, 1))),
            ValueError,
            r"inputs: expected shape \(1, 1\), a step of each row, got",
        ),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()

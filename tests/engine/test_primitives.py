"""`dot` outside of an engine, inside of handlers, and after an error."""

import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.engine import intercept_dot, recurrent_dropout_mask

RNG = np.random.default_rng(0)
X, KERNEL = (tf.constant(RNG.normal(size=shape)) for shape in [(2, 3), (3, 4)])


def test_alone_it_is_the_product():
    np.testing.assert_allclose(keras_seq.dot(X, KERNEL), X.numpy() @ KERNEL.numpy(), rtol=1e-12)
    stacked = tf.stack([X, 2 * X])
    np.testing.assert_allclose(keras_seq.dot(stacked, KERNEL), stacked.numpy() @ KERNEL.numpy(), rtol=1e-12)


def test_handlers_nest_and_end():
    with intercept_dot(lambda x, kernel: "outer"):
        with intercept_dot(lambda x, kernel: "inner"):
            assert keras_seq.dot(X, KERNEL) == "inner"
        assert keras_seq.dot(X, KERNEL) == "outer"
    assert keras_seq.dot(X, KERNEL).shape == (2, 4)


def test_dropping_multiplies_what_the_next_handler_sees():
    mask = tf.constant([[0.0, 2.0, 0.0], [2.0, 0.0, 2.0]], "float64")
    with recurrent_dropout_mask(mask):
        np.testing.assert_allclose(keras_seq.dot(X, KERNEL), (X * mask).numpy() @ KERNEL.numpy(), rtol=1e-12)
    with intercept_dot(lambda x, kernel: x), recurrent_dropout_mask(mask):
        np.testing.assert_array_equal(keras_seq.dot(X, KERNEL), X * mask)
    with recurrent_dropout_mask(None):
        np.testing.assert_allclose(keras_seq.dot(X, KERNEL), X.numpy() @ KERNEL.numpy(), rtol=1e-12)


def test_an_error_in_a_step_leaves_no_handler_behind():
    class Failing(keras_seq.Cell):
        state_names, state_size, output_size = ("h",), [3], 3

        def step(self, projected, states, constants=()):
            raise RuntimeError("in the step")

    with pytest.raises(RuntimeError, match="in the step"):
        keras_seq.RNN(Failing())(tf.ones((2, 5, 3)))
    assert keras_seq.dot(X, KERNEL).shape == (2, 4)

"""The linear recurrence by doubling, beside a loop: values, gradients, and gradients of these."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.engine import linear_recurrence

RNG = np.random.default_rng(0)


def by_a_loop(a, b, initial):
    found, h = [], initial
    for t in range(b.shape[0]):
        h = (a if isinstance(a, float) else a[t]) * h + b[t]
        found.append(h)
    return tf.stack(found)


def derivatives(recurrence, weights, a, b, initial):
    """The result, its gradient along `weights`, and the gradient of the sine of that."""
    given = [x for x in (a, b, initial) if not isinstance(x, float)]
    with tf.GradientTape() as outer:
        outer.watch(given)
        with tf.GradientTape() as inner:
            inner.watch(given)
            result = recurrence(a, b, initial)
            loss = tf.reduce_sum(weights * result * result)
        first = inner.gradient(loss, given, unconnected_gradients="zero")
        total = sum(tf.reduce_sum(tf.sin(g)) for g in first)
    return [result, *first, *outer.gradient(total, given, unconnected_gradients="zero")]


@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("time", [1, 3, 33, 70])
def test_values_and_derivatives(time, constant):
    weights, a, b = (tf.constant(RNG.normal(size=(time, 2, 3))) for _ in range(3))
    initial = tf.constant(RNG.normal(size=(2, 3)))
    a = 0.7 if constant else a
    expected = derivatives(by_a_loop, weights, a, b, initial)
    sequence, state = tf.TensorSpec((None, None, 3), "float64"), tf.TensorSpec((None, 3), "float64")

    def ours(weights, b, initial, *varying):
        return derivatives(linear_recurrence, weights, varying[0] if varying else a, b, initial)

    given = (weights, b, initial, *([] if constant else [a]))
    signature = [sequence, sequence, state, *([] if constant else [sequence])]
    functions = [ours, tf.function(ours, jit_compile=True), tf.function(ours, input_signature=signature)]
    for function in functions:
        for found, wanted in zip(function(*given), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", ["eager", "graph", "xla", "any number of steps"])
def test_complex_numbers(way):
    """Values, and gradients as TensorFlow has them: dL/dx + i dL/dy of z = x + iy."""

    def numbers(*shape):
        return tf.constant(0.7 * (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)), "complex128")

    a, b, initial, weights = numbers(7, 2, 3), numbers(7, 2, 3), numbers(2, 3), numbers(7, 2, 3)

    def with_gradients(recurrence):
        def function(a, b, initial):
            with tf.GradientTape() as tape:
                tape.watch([a, b, initial])
                h = recurrence(a, b, initial)
                loss = tf.reduce_sum(tf.math.real(weights * h * h))
            return [h, *tape.gradient(loss, [a, b, initial])]

        return function

    ours = with_gradients(linear_recurrence)
    if way == "any number of steps":
        sequence, state = tf.TensorSpec((None, None, 3), "complex128"), tf.TensorSpec((None, 3), "complex128")
        ours = tf.function(ours, input_signature=[sequence, sequence, state])
    elif way != "eager":
        ours = tf.function(ours, jit_compile=way == "xla")
    for found, wanted in zip(ours(a, b, initial), with_gradients(by_a_loop)(a, b, initial), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-11)

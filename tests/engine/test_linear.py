"""The linear recurrence by doubling, beside a loop: values, gradients, and gradients of these."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.engine import linear_recurrence, matrix_recurrence

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


@pytest.mark.parametrize("rows", [1, 2])
def test_one_matrix_for_all_steps(rows):
    """In a graph, where TensorFlow might take what comes in of a single row for the bias of a product."""
    kernel, b, initial = (RNG.normal(size=shape) for shape in ((3, 3), (9, rows, 3), (rows, 3)))
    expected, h = [], initial
    for now in b:
        h = h @ kernel + now
        expected.append(h)
    found = tf.function(matrix_recurrence)(*(tf.constant(x, "float32") for x in (kernel, b, initial)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


LONG = 65536
FACTORS = {
    "below one": 1 - 10.0 ** -np.array([3.0, 6.0]),
    "one": np.ones(2),
    "minus one": -np.ones(2),
    "complex": 0.99999 * np.exp(1j * np.array([0.3, 3e-4])),
    "matrix": 0.99999 * np.array([[0.6, 0.8], [-0.8, 0.6]]),
}


@pytest.mark.deep
@pytest.mark.parametrize("way", ["graph", "xla", "any number of steps"])
@pytest.mark.parametrize("name", FACTORS)
def test_long_sequences_in_single_precision(name, way):
    """What fades slowly or not at all is right after 65,536 steps: beside a loop in double precision."""
    dtype = "complex64" if name == "complex" else "float32"
    factor, is_matrix = FACTORS[name].astype(dtype), name == "matrix"
    b = np.random.default_rng(1).normal(size=(LONG, 1, 2)).astype(dtype)
    expected, h = np.empty_like(b, "complex128"), np.ones((1, 2))
    for t in range(LONG):
        h = (h @ factor.astype("complex128") if is_matrix else factor.astype("complex128") * h) + b[t]
        expected[t] = h
    a = factor if is_matrix else np.broadcast_to(factor, (LONG, 1, 2))
    state = tf.TensorSpec((None, 2), dtype)
    signature = [state if is_matrix else tf.TensorSpec((None, 1, 2), dtype), tf.TensorSpec((None, 1, 2), dtype), state]
    recurrence = tf.function(
        matrix_recurrence if is_matrix else linear_recurrence,
        jit_compile=way == "xla",
        input_signature=signature if way == "any number of steps" else None,
    )
    found = recurrence(tf.constant(a), tf.constant(b), tf.ones((1, 2), dtype))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())

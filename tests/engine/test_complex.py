"""Complex states, inputs, constants and weights: values and gradients are those of autodiff through a written-out loop."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.engine import dot, scan

B, T, U = 3, 5, 4
MASK = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]], bool)


def numbers(seed, *shape):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape) + 1j * rng.normal(size=shape), "complex128")


def given():
    """Inputs, a complex and a real state, a constant that scales each unit, and the matrix of a product."""
    real = tf.constant(np.random.default_rng(5).normal(size=(B, 2)))
    return [numbers(1, B, T, U), numbers(2, B, U), real, numbers(3, B, U), 0.4 * numbers(4, U, U)]


def step(projected, states, constants):
    (z, length), (scale, kernel) = states, constants
    z = dot(scale * z, kernel) + projected * tf.cast(tf.tanh(length[:, :1]), "complex128")
    length = 0.5 * length + tf.abs(z[:, :2])
    return {"z": z, "length": length}, (z, length)


def project(weights, inputs):
    return inputs


def run_step(weights, projected, states, constants):
    return step(projected, states, constants)


def written_out(x, z, length, scale, kernel, mask, backwards):
    """`(outputs, states)` by a loop in Python."""
    order = range(T - 1, -1, -1) if backwards else range(T)
    found, last = [], {"z": tf.zeros_like(z), "length": tf.zeros_like(length)}
    for t in order:
        output, (new_z, new_length) = step(x[:, t], (z, length), (scale, kernel))
        shown = tf.constant(np.ones(B, bool) if mask is None else mask[:, t])[:, None]
        z, length = tf.where(shown, new_z, z), tf.where(shown, new_length, length)
        last = {name: tf.where(shown, output[name], last[name]) for name in output}
        found.append(last)
    return {name: tf.stack([f[name] for f in found], 1) for name in last}, (z, length)


def with_gradients(run):
    """A function to `(results, gradients of all that is given)`, of a loss that sees real and imaginary parts."""

    def function(*values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            results = tf.nest.flatten(run(*values))
            parts = [(tf.math.real(r), tf.math.imag(tf.cast(r, "complex128"))) for r in results]
            loss = sum(tf.reduce_sum(tf.square(real) + 2 * tf.sin(imaginary)) for real, imaginary in parts)
        return results, tape.gradient(loss, values)

    return function


def by_the_engine(mask=None, backwards=False, **further):
    def run(x, z, length, scale, kernel):
        shown = None if mask is None else tf.constant(mask)
        return scan(project, run_step, x, (z, length), (scale, kernel), (), shown, go_backwards=backwards, **further)

    return with_gradients(run)


def by_hand(mask=None, backwards=False):
    return with_gradients(lambda *values: written_out(*values, mask, backwards))


def close(found, expected):
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["eager", "graph", "XLA"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_values_and_gradients(masked, backwards, mode):
    mask = MASK if masked else None
    run = by_the_engine(mask, backwards)
    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "XLA")
    close(run(*given()), by_hand(mask, backwards)(*given()))


@pytest.mark.parametrize(
    "further", [{"save_residuals": False}, {"checkpoint": True}, {"independent_rows": True}], ids=str
)
def test_other_ways_to_run_it(further):
    """With the forward pass run again, in chunks, and with the rows apart (the kernel is no constant of rows there)."""
    if "independent_rows" in further:
        kernel = given()[-1]

        def run(scan_it):
            def of_rows(x, z, length, scale):
                return scan_it(x, (z, length), (scale,))

            return with_gradients(of_rows)

        def one(weights, projected, states, constants):
            return step(projected, states, (*constants, kernel))

        whole = run(lambda x, s, c: scan(project, one, x, s, c))
        apart = run(lambda x, s, c: scan(project, one, x, s, c, independent_rows=True))
        close(tf.function(apart)(*given()[:-1]), whole(*given()[:-1]))
        return
    close(tf.function(by_the_engine(MASK, **further))(*given()), by_hand(MASK)(*given()))


def test_truncation_cuts_the_gradient_alone():
    (found, cut), (expected, whole) = (
        tf.function(by_the_engine(truncate=2))(*given()),
        tf.function(by_the_engine())(*given()),
    )
    close(found, expected)
    assert np.max(np.abs(cut[1] - whole[1])) > 1e-3


def test_real_and_complex_factors_are_not_mixed():
    for x, kernel in ((numbers(1, 2, 3), tf.ones((3, 3))), (tf.ones((2, 3)), numbers(1, 3, 3))):
        with pytest.raises(
            TypeError, match="kernel of dot: expected complex numbers where x has some, and only there, got"
        ):
            dot(x, kernel)

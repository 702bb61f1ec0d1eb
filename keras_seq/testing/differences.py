"""Comparing: two sets of results, and a gradient with finite differences."""

import numpy as np
import tensorflow as tf


def assert_close(actual, desired, tolerance, what="", names=None):
    """Equal up to `tolerance`, relative to the largest entry or to one; NaN is equal to nothing.

    Args:
        actual, desired: lists of tensors, or nests of them.
        tolerance: the largest difference allowed; 0.0 for none.
        what: said first where they differ.
        names: one for each tensor, by default their numbers.
    """
    tf.nest.assert_same_structure(list(actual), list(desired))
    actual, desired = tf.nest.flatten(list(actual)), tf.nest.flatten(list(desired))
    names = range(len(actual)) if names is None else names
    for name, a, b in zip(names, actual, desired, strict=True):
        a, b, name = np.asarray(a), np.asarray(b), f"{what} {name}".strip()
        assert a.shape == b.shape, f"{name}: shape {a.shape}, expected {b.shape}"
        assert_finite([b, a], f"{name}:", ["the expected value", "the value"])
        a, b = (v.astype("float64") if v.dtype.kind not in "fc" else v for v in (a, b))
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        error = float(np.max(np.abs(a - b), initial=0.0)) / scale
        assert error <= tolerance, f"{name}: differs by {error:.1e} of {scale:.1e}, allowed {tolerance:.0e}"


def assert_finite(values, what, names):
    """Neither NaN nor infinity in any of them."""
    for name, value in zip(names, values, strict=True):
        value = np.asarray(value)
        wrong = value.size - np.count_nonzero(np.isfinite(value))
        assert not wrong, f"{what} {name} is NaN or infinite in {wrong} of {value.size} places"


def assert_differences(function, values, gradients, names, directions=2, step=1e-5, accepted=1e-6):
    """`gradients` are those of `function(values) -> float` by central differences, in random directions, in float64.

    A gradient that is None is left out.

    Returns:
        The names of the values that no gradient reaches: it is zero, and so are the differences.
    """
    rng = np.random.default_rng(3)
    unreached = []
    for i, (name, gradient) in enumerate(zip(names, gradients, strict=True)):
        if gradient is None:
            continue
        gradient = np.asarray(gradient)
        assert_finite([gradient], "the gradient of", [name])
        for _ in range(directions):
            direction = rng.normal(size=gradient.shape)
            moved = [[v + sign * step * direction if i == j else v for j, v in enumerate(values)] for sign in (1, -1)]
            expected = (function(moved[0]) - function(moved[1])) / (2 * step)
            actual = float(np.sum(gradient * direction))
            error = abs(actual - expected) / max(abs(expected), 1e-2)
            assert error <= accepted, (
                f"the gradient of {name} along a random direction is {actual:.9g}, differences give {expected:.9g}: "
                f"off by {error:.1e}, allowed {accepted:.0e}"
            )
        if not np.any(gradient):
            unreached.append(name)
    return unreached

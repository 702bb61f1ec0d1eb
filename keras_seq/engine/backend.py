"""What the engine has for the Keras backend in use; on TensorFlow all, on others what Keras has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

scan: Callable[..., Any] | None = None
"""The loop over time, or None where Keras's own has to serve."""
scan_levels: Callable[..., Any] | None = None
"""The loop over the levels of trees, or None where there is none."""


linear_loop: Callable[..., Any] | None = None
"""`h_t = a_t h_{t-1} + b_t`, one step after the other, or None if there is no loop that is as cheap as what it does."""

custom_gradient: Callable[..., Any] = keras.ops.custom_gradient
"""A function with a gradient of its own."""


def linear_loop_is_cheap() -> bool:
    """Whether what is traced now becomes a program in which `linear_loop` is as fast as memory is."""
    return False


def iterate(step: Callable[..., Any], first: Any, count: Any, reverse: bool = False) -> Any:
    """`(the last state, what each step gave, one after the other)` of `step(state, index) -> (state, given)`.

    The index runs from 0 to count - 1, or back from there; what a step gives is like the state.
    """
    return keras.ops.scan(step, first, keras.ops.arange(count, dtype="int32"), reverse=reverse)


def gather(x: Any, index: Any, axis: int, batch_dims: int = 0) -> Any:
    """`x` at an index of 0 or more along an axis; along the last one each place of the first `batch_dims` axes has its own.

    With x (b, t, k), index (b, t), axis 2 and `batch_dims` 2 it is x[b, t, index[b, t]].
    """
    if not batch_dims:
        return keras.ops.take(x, index, axis=axis)
    own = keras.ops.shape(index)[:batch_dims]
    found = keras.ops.reshape(index, (*own, *[1] * (axis - batch_dims), -1))
    found = keras.ops.take_along_axis(x, found, axis=axis)
    return found[..., 0] if len(index.shape) == batch_dims else found


def complex_of(real: Any, imaginary: Any) -> Any:
    """The complex numbers of two real tensors, of their precision."""
    return keras.ops.view_as_complex(keras.ops.stack([real, imaginary], axis=-1))


def uniform(shape: Any, generator: Any) -> Any:
    """Random numbers of [0, 1) from a `keras.random.SeedGenerator`."""
    return keras.random.uniform(shape, dtype="float32", seed=generator)


if keras.config.backend() == "tensorflow":
    from keras_seq.engine.tensorflow import (  # noqa: F401
        complex_of,
        custom_gradient,
        gather,
        iterate,
        linear_loop,
        linear_loop_is_cheap,
        scan,
        scan_levels,
        uniform,
    )

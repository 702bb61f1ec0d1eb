"""A linear recurrence one step after the other, and the numbers that it may be of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_seq.engine.tensorflow._tensorflow import compiled_by_xla
from keras_seq.engine.tensorflow.arrays import like, loop, size, stack, unstack


def linear_loop_is_cheap() -> bool:
    """Whether what is traced now becomes a program of XLA for processors: a step of its loops calls no kernel."""
    return compiled_by_xla() and not tf.config.list_physical_devices("GPU")


def complex_of(real: tf.Tensor, imaginary: tf.Tensor) -> tf.Tensor:
    """The complex numbers of two real tensors, of their precision: Keras's are always complex64."""
    return tf.complex(real, imaginary)


def linear_loop(a: tf.Tensor, b: tf.Tensor, initial: tf.Tensor, times: Callable[..., Any]) -> tf.Tensor:
    """h_t = times(a_t, h_{t-1}) + b_t, (t, ...)."""
    time = size(b, 0)
    factors, terms = unstack(a, time), unstack(b, time)

    def body(index, h, found):
        (now,) = like([times(factors.read(index), h) + terms.read(index)], [h])
        return index + 1, now, found.write(index, now)

    return loop(time, body, (initial, stack(initial, time)))[2].stack()

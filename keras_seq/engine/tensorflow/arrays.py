"""Small things that a loop over time on TensorFlow is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf


def loop(time: int | tf.Tensor, body: Callable[..., Any], carried: Sequence[Any]) -> Any:
    """Run `body(index, *carried) -> (index + 1, *carried)` for every index below `time`."""
    return tf.while_loop(lambda index, *_: index < time, body, (tf.constant(0), *carried), maximum_iterations=time)


def stack(example: tf.Tensor, time: int | tf.Tensor) -> tf.TensorArray:
    """An array of `time` tensors of the type and static shape of the example, to be written one by one."""
    return tf.TensorArray(example.dtype, size=time, element_shape=example.shape)


def unstack(x: tf.Tensor, time: int | tf.Tensor) -> tf.TensorArray:
    """An array of the `time` slices of `x` along its first axis, to be read one by one."""
    return tf.TensorArray(x.dtype, size=time, element_shape=x.shape[1:], clear_after_read=False).unstack(x)


def swap(x: tf.Tensor) -> tf.Tensor:
    """`x` with its first two axes, batch and time, exchanged."""
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def column(mask: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """`mask` with as many axes as `like`."""
    return tf.reshape(mask, tf.concat([tf.shape(mask), [1] * (len(like.shape) - len(mask.shape))], 0))


def like(tensors: Iterable[tf.Tensor], examples: Iterable[tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """The tensors with the static shapes of the examples: a loop must not lose what it knew of its shapes."""
    return tuple(
        t if t.shape == e.shape else tf.ensure_shape(t, e.shape) for t, e in zip(tensors, examples, strict=True)
    )


def known_shape(x: tf.Tensor, shape: Any) -> tf.Tensor:
    """`x` with the static shape that it has by the way it was made. No operation checks it: LiteRT has none that does."""
    if x.shape != shape:
        x = tf.identity(x)
        x.set_shape(shape)
    return x


def select(mask: tf.Tensor, new: Iterable[tf.Tensor], old: Iterable[tf.Tensor]) -> list[tf.Tensor]:
    """The new tensors in the rows of the mask (b,), the old in the others."""
    return [tf.where(column(mask, n), n, o) for n, o in zip(new, old, strict=True)]


def size(x: tf.Tensor, axis: int) -> int | tf.Tensor:
    """The size of `x` along an axis, a tensor where it is not known yet."""
    return tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


def zeros_unless(gradient: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor:
    """A gradient of `x`, zeros where there is none."""
    return tf.zeros_like(x) if gradient is None else gradient


def at_least_one_step(x: tf.Tensor) -> tf.Tensor:
    """`x` (b, t, ...), made sure that t is not 0, where that is not known before the graph runs (XLA says so itself)."""
    if x.shape[1] is not None:
        return x  # not 0: the layer has checked it
    check = tf.debugging.assert_positive(tf.shape(x)[1], message="sequences: expected at least one time step, got none")
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(x)


def leading(x: tf.Tensor, sizes: tf.Tensor, static: tf.TensorShape, name: str) -> tf.Tensor:
    """`x`, made sure that its leading axes have these sizes, where that is not known before the graph runs."""
    x, known = tf.convert_to_tensor(x), len(static)
    if static.is_fully_defined() and x.shape[:known].is_fully_defined():
        return x  # the layer has compared them
    message = f"{name}: expected leading axes like those of the inputs"
    check = tf.debugging.assert_equal(tf.shape(x)[:known], sizes, message=message)
    with tf.control_dependencies([check] if check is not None else []):
        # XLA drops the assertion, but cannot reshape to another size
        shaped = tf.reshape(x, tf.concat([sizes, tf.shape(x)[known:]], 0))
    return known_shape(shaped, static.concatenate(x.shape[known:]))


def distinct(tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
    """The same values by operations that a tape sees, so that the gradients of the tensors are no two of them one tensor.

    Two terms of one sum have the same gradient. TensorFlow's tape gives both one tensor and counts a reference too many: it,
    and the graph that it is in, would stay for ever.
    """
    return [tf.reshape(x, x.shape if x.shape.is_fully_defined() else tf.shape(x)) for x in tensors]


def differentiable(x: Any) -> bool:
    """Whether a tensor or variable may have a gradient: its numbers are real or complex."""
    dtype = tf.as_dtype(x.dtype)
    return dtype.is_floating or dtype.is_complex


def adjoint(kernel: tf.Tensor) -> tf.Tensor:
    """The transpose of a matrix, of complex numbers the conjugate one: what a product sends cotangents back by."""
    return tf.transpose(kernel, conjugate=True)


def product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """x @ kernel, any leading axes, in the type of the kernel; the result in that of x."""
    y = tf.cast(x, kernel.dtype)
    y = tf.matmul(y, kernel) if len(x.shape) == 2 else tf.tensordot(y, kernel, 1)
    return tf.cast(y, x.dtype)


def outer(x: tf.Tensor, delta: tf.Tensor, dtype: Any) -> tf.Tensor:
    """The sum over all leading axes of x^T delta, x conjugate if it is complex, in this type."""
    flat = [tf.cast(tf.reshape(v, (-1, v.shape[-1])), dtype) for v in (x, delta)]
    return tf.matmul(*flat, adjoint_a=True)


def take(x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """x[index[t, b], b] for x (t, b, ...) and index (t, b)."""
    return swap(tf.gather(swap(x), tf.transpose(index), axis=1, batch_dims=1))


def gather(x: tf.Tensor, index: int | tf.Tensor, axis: int, batch_dims: int = 0) -> tf.Tensor:
    """`keras_seq.engine.backend.gather` by one operation; those of Keras take ten for negative and broadcast indices."""
    return tf.gather(x, index, axis=axis, batch_dims=batch_dims)


def iterate(step: Callable[..., Any], first: Any, count: int | tf.Tensor, reverse: bool = False) -> Any:
    """`keras_seq.engine.backend.iterate` by a loop that carries its state as it is.

    `keras.ops.scan` keeps the state in arrays of tensors: outside XLA that costs as much as a small step does. Arrays are
    written in the order of the steps, the only one that ONNX has.
    """
    examples = tf.nest.flatten(first)

    def body(number, states, found):
        index = count - 1 - number if reverse else number
        state, given = step(tf.nest.pack_sequence_as(first, states), index)
        found = [array.write(number, y) for array, y in zip(found, tf.nest.flatten(given), strict=True)]
        return number + 1, list(like(tf.nest.flatten(state), examples)), found

    _, last, found = loop(count, body, (examples, [stack(x, count) for x in examples]))
    stacked = [array.stack() for array in found]
    if reverse:
        stacked = [tf.reverse(x, [0]) for x in stacked]
    return tf.nest.pack_sequence_as(first, last), tf.nest.pack_sequence_as(first, stacked)

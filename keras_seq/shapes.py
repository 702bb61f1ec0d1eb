"""What shapes are expected, and an error that says which came."""

from __future__ import annotations

import numbers

import keras
import numpy as np
from keras import backend, ops

from keras_seq.arguments import known


def fits(shape, expected):
    """Whether two static shapes may be the same at run time."""
    sizes = [(static(a), static(b)) for a, b in zip(shape, expected, strict=False)]
    return len(shape) == len(expected) and all(a == b or None in (a, b) for a, b in sizes)


def static(size):
    """A size of a static shape, None where it is not a number: not known, or but a name, as in `export` on JAX."""
    return size if isinstance(size, numbers.Integral) else None


def as_long(x, sequences):
    """`x` (b, t, ...) with as many steps as the sequences, if JAX has another name for their number.

    It names every unknown size apart, and then nothing can be put side by side. If they differ when it runs, all is NaN.
    """
    steps, length = sequences.shape[1], x.shape[1]
    if None in (steps, length) or steps == length:
        return x
    same = ops.convert_to_tensor(steps) == ops.convert_to_tensor(length)
    return ops.where(same, ops.take(x, ops.arange(steps, dtype="int32"), axis=1), float("nan"))


def spec_of(sequences_shape):
    """What a layer takes that is built for sequences of this shape: any (b, t, d) with its d, which is not 0."""
    if sequences_shape[-1] == 0:
        raise ValueError(f"sequences: expected at least one feature, got shape {tuple(sequences_shape)}")
    return keras.layers.InputSpec(ndim=3, axes={-1: sequences_shape[-1]})


def check_rows(batch_size):
    """An error for a number of rows that is none; a tensor, or a name as in `export` on JAX, is not looked at."""
    if hasattr(batch_size, "shape") or _is_name(batch_size):
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, numbers.Integral):
        raise TypeError(f"batch_size: expected an integer, got {batch_size!r}")
    if batch_size < 0:
        raise ValueError(f"batch_size: expected an integer of at least 0, got {batch_size!r}")


def _is_name(size):
    if isinstance(size, numbers.Integral) or keras.config.backend() != "jax":
        return False
    from jax import export

    return export.is_symbolic_dim(size)


def shapes_of_states(states, name="initial_state"):
    """The shape of each of the states that are given, a flat list; a TypeError that names the argument if one is no tensor."""
    wrong = [s for s in states if not hasattr(s, "shape")]
    if wrong:
        raise TypeError(f"{name}: expected tensors, got {wrong[0]!r:.80}")
    return [tuple(s.shape) for s in states]


def check_sequences(sequences, mask):
    """An error for anything but numbers (b, t, d) with at least one step, and a mask (b, t)."""
    if hasattr(sequences, "row_splits"):
        raise TypeError(
            "sequences: expected a tensor, got a ragged one; give `ragged.to_tensor()`, and as the mask "
            "`tf.sequence_mask(ragged.row_lengths())`"
        )
    if hasattr(sequences, "dense_shape"):
        raise TypeError("sequences: expected a dense tensor, got a sparse one; give `tf.sparse.to_dense(sequences)`")
    check_real("sequences", sequences)
    if len(sequences.shape) != 3 or sequences.shape[1] == 0:
        raise ValueError(f"sequences: expected shape (b, t, d) with t of 1 or more, got {tuple(sequences.shape)}")
    check_mask(sequences, mask)


def check_real(name, x):
    """A TypeError that names the argument unless its tensor is of real numbers, integers or booleans."""
    kind = backend.standardize_dtype(x.dtype)
    if not any(word in kind for word in ("float", "int", "bool")):
        raise TypeError(f"{name}: expected real numbers, got {kind}")


def check_mask(sequences, mask, like="(b, t) like the sequences'"):
    """An error for a mask of another shape than `like` says, or, where its values are known, not of True and False."""
    if mask is None:
        return
    if not hasattr(mask, "shape"):
        raise TypeError(f"mask: expected an array or a tensor (b, t), got a {type(mask).__name__}")
    if not fits(mask.shape, sequences.shape[:2]):
        raise ValueError(f"mask: expected shape {like}, {tuple(sequences.shape[:2])}, got {tuple(mask.shape)}")
    kind = backend.standardize_dtype(mask.dtype)
    if kind == "bool":
        return
    if not ("float" in kind or "int" in kind):
        raise TypeError(f"mask: expected booleans, got {kind}")
    values = known(mask)
    if values is not None and not np.isin(values, (0, 1)).all():
        raise ValueError(f"mask: expected True and False, or 1 and 0, got {values[~np.isin(values, (0, 1))][0]}")

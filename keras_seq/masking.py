"""Rows and steps that a mask hides."""

from __future__ import annotations

from keras import ops


def where_rows(mask, new, old):
    """The new tensors in the rows of the mask, the old in the others."""
    if mask is None:
        return list(new)
    return [
        ops.where(ops.reshape(mask, (-1, *[1] * (len(n.shape) - 1))), n, ops.cast(o, n.dtype))
        for n, o in zip(new, old, strict=True)
    ]


def over_real_steps(function, sequences, mask, zero_output=False, every=1):
    """`function` of sequences from which the hidden steps have been taken out, its results put back in their places.

    For functions that see more than one step at once. The real steps of a row move to its start, zeros follow them, so
    that the row is treated as it would be alone; a hidden step repeats the last output (zeros before the first), or gives
    zeros with `zero_output`. Of a function that gives but every n-th step, the outputs of a row stay at its start.
    Nothing behind the mask reaches a value or a gradient.
    """
    if mask is None:
        return function(sequences)
    mask = ops.cast(mask, "bool")
    steps = ops.arange(ops.shape(mask)[1], dtype="int32")
    count = ops.cumsum(ops.cast(mask, "int32"), axis=1)
    order = ops.argsort(ops.where(mask, steps, steps + ops.shape(mask)[1]), axis=1)
    front = ops.take_along_axis(sequences, ops.expand_dims(order, -1), axis=1)
    real = ops.expand_dims(steps < count[:, -1:], -1)
    outputs = function(ops.where(real, front, ops.zeros_like(front)))
    if every == 1:
        place, shown = count - 1, mask if zero_output else count > 0
    else:
        place = ops.minimum(ops.arange(ops.shape(outputs)[1], dtype="int32"), (count[:, -1:] + every - 1) // every - 1)
        shown = skipped_mask(mask, every) if zero_output else ops.logical_and(place >= 0, count[:, -1:] > 0)
    outputs = ops.take_along_axis(outputs, ops.expand_dims(ops.maximum(place, 0), -1), axis=1)
    return ops.where(ops.expand_dims(shown, -1), outputs, ops.zeros_like(outputs))


def last_real(sequences, mask=None):
    """The last real step of each row, (b, d); zeros for a row without one."""
    if mask is None:
        return sequences[:, -1]
    mask = ops.cast(mask, "bool")
    steps = ops.where(mask, ops.arange(1, ops.shape(mask)[1] + 1, dtype="int32"), 0)
    last = ops.max(steps, axis=1, initial=0)[:, None, None]  # also of no rows at all
    found = ops.take_along_axis(sequences, ops.maximum(last - 1, 0), axis=1)
    return ops.where(last > 0, found, ops.zeros_like(found))[:, 0]


def skipped_mask(mask, every):
    """The mask of what `over_real_steps` gives of every n-th step: as many at the start of a row as there are."""
    count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
    places = (
        ops.cumsum(ops.ones_like(mask[:, ::every], dtype="int32"), axis=1) - 1
    )  # of a mask of any length, symbolic too
    return ops.less(every * places, count)

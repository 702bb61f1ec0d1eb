"""What sequence layers share: a form that takes one step at a time, and skipping the steps that a mask hides."""

from __future__ import annotations

import numbers
import typing
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import backend, ops

# Mixed precision: the type that Keras casts weights to while a layer is called. Keras does not export it.
from keras.src.backend.common.variables import AutocastScope

from keras_seq.cells.arguments import boolean, known, positive_integer, tensor
from keras_seq.typing import Tensor


class Prepared(typing.NamedTuple):
    """Constants as a step reads them: a nest of tensors."""

    tensors: tuple


class Stepwise:
    """A sequence layer that can be run step by step.

        state = layer.initial_state(batch)
        y_t, state = layer.step(x_t, state)

    gives, one by one, the y_t of the whole sequence. A subclass has `output_width`, `first_state(batch)`, a list of tensors
    with the batch first, and `advance(x_t, states, mask) -> (y_t, new states)`, which leaves the states of hidden rows as
    they were. A layer that cannot says why in `not_stepwise`.
    """

    not_stepwise: str | None = None
    """Why the layer has no step form, as a sentence; None if it has one."""
    zero_output_for_mask = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_with_input_shape(kwargs))

    def initial_state(self, batch_size: int | Tensor, states: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The state before the first step: a flat list of tensors, `batch_size` rows each.

        Its last tensor is the last output, which a hidden step repeats; it begins at zero. With `states`, those that the
        layer takes as its `initial_state`, it begins with these, in the types of its own.
        """
        self._check_stepwise()
        check_rows(batch_size)
        own = self.first_state(batch_size)
        last = ops.zeros((batch_size, self.output_width), dtype=self.compute_dtype)
        return [*(own if states is None else _like(own, states)), last]

    def step(
        self, inputs: Tensor, state: Sequence[Tensor], mask: Tensor | None = None, **further: Any
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """One step.

        Args:
            inputs: x_t, (b, d).
            state: what `initial_state` or the step before gave.
            mask: boolean (b,), False for rows that have no step now: their state stays, and their last output is repeated
                (a layer that returns sequences gives zeros with `zero_output_for_mask`).
            **further: what the layer reads besides: `constants` as in its call, or `layer.prepared(constants)`, which is
                then not made anew at every step; `targets` (b, k).

        Returns:
            `(y_t, state)`: the output (b, u) and a list like the one given.

        Raises:
            ValueError: a layer that is not built or cannot be run by steps, inputs that are not (b, d), a state of another
                number of tensors or another width, a mask that is not (b,).
        """
        self._check_stepwise()
        inputs = tensor("inputs", inputs, "numbers")
        if not isinstance(state, (list, tuple)):
            raise TypeError(f"state: expected what `initial_state` or the step before gave, got {state!r:.80}")
        state = self._checked_step(inputs, [ops.convert_to_tensor(s) for s in state], mask)
        mask = None if mask is None else ops.cast(mask, "bool")
        with AutocastScope(self.compute_dtype):
            return self.advanced(inputs, state, mask, **further)

    def advanced(
        self, inputs: Tensor, state: Sequence[Tensor], mask: Tensor | None, zeros: bool = True, **further: Any
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """`step`, of what has been checked; without `zeros` a hidden step repeats the last output in any case."""
        *states, last = state
        outputs, states = self.advance(inputs, states, mask, **further)
        if mask is not None:
            zeros = zeros and self.zero_output_for_mask and self.return_sequences
            hidden = ops.zeros_like(outputs) if zeros else last
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, hidden)
        return outputs, [*states, outputs]

    def needs_targets(self, width: int | None = None) -> bool:
        """Whether the layer cannot run on sequences of this width, None for any, but with true outputs as `targets`."""
        return False

    def _returns_states(self, asked):
        """Whether a call returns the final states: as it is asked to, or with None as the constructor says."""
        return self.return_state if asked is None else boolean("return_state", asked)

    def _check_stepwise(self):
        if self.not_stepwise:
            raise ValueError(f"{self.name}: expected a layer that can be run step by step; {self.not_stepwise}")
        if not self.built:
            raise ValueError(f"{self.name}: expected a built layer, call it or build it first")

    def _checked_step(self, inputs, state, mask):
        """The state, in the types of the layer's own."""
        width = self.input_spec.axes.get(-1)
        if not fits(inputs.shape, (None, width)):
            raise ValueError(f"inputs: expected one step of shape (b, {width or 'd'}), got {tuple(inputs.shape)}")
        if mask is not None and not fits(mask.shape, inputs.shape[:1]):
            raise ValueError(
                f"mask: expected shape {tuple(inputs.shape[:1])} like the inputs', got {tuple(mask.shape)}"
            )
        own = self.initial_state(1)
        expected = [(inputs.shape[0], *s.shape[1:]) for s in own]
        shapes = [tuple(s.shape) for s in state]
        if len(shapes) != len(expected) or not all(map(fits, shapes, expected)):
            raise ValueError(f"state: expected {len(expected)} tensors of shapes {expected}, got {shapes}")
        return [ops.cast(s, o.dtype) for s, o in zip(state, own, strict=True)]


def _like(own, states):
    """The states that are given, in the types of the layer's own; a ValueError for others than it has."""
    given = [ops.convert_to_tensor(s) for s in states]
    expected, shapes = [[(None, *s.shape[1:]) for s in x] for x in (own, given)]
    if len(expected) != len(shapes) or not all(map(fits, shapes, expected)):
        raise ValueError(f"states: expected {len(expected)} tensors of shapes {expected}, got {shapes}")
    return [ops.cast(s, o.dtype) for s, o in zip(given, own, strict=True)]


def _with_input_shape(kwargs):
    """The arguments of a Keras layer, with `input_shape` (t, d) for `input_length` t, or any, and `input_dim` d."""
    if kwargs.get("input_dim") is None and kwargs.get("input_length") is None:
        return {name: value for name, value in kwargs.items() if name not in ("input_dim", "input_length")}
    width, steps, shape = (kwargs.pop(name, None) for name in ("input_dim", "input_length", "input_shape"))
    if shape is not None:
        raise ValueError(f"input_shape: expected None with input_dim or input_length, got {shape!r}")
    if steps is not None:
        steps = positive_integer("input_length", steps)
    return {**kwargs, "input_shape": (steps, positive_integer("input_dim", width))}


def kept(mask, new, old):
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
    last = ops.max(steps, axis=1)[:, None, None]
    found = ops.take_along_axis(sequences, ops.maximum(last - 1, 0), axis=1)
    return ops.where(last > 0, found, ops.zeros_like(found))[:, 0]


def skipped_mask(mask, every):
    """The mask of what `over_real_steps` gives of every n-th step: as many at the start of a row as there are."""
    count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
    places = (
        ops.cumsum(ops.ones_like(mask[:, ::every], dtype="int32"), axis=1) - 1
    )  # of a mask of any length, symbolic too
    return ops.less(every * places, count)


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
    """An error for a number of rows that is none; it may be a tensor, which is not looked at."""
    if hasattr(batch_size, "shape"):
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, numbers.Integral):
        raise TypeError(f"batch_size: expected an integer, got {batch_size!r}")
    if batch_size < 0:
        raise ValueError(f"batch_size: expected an integer of at least 0, got {batch_size!r}")


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
    kind = backend.standardize_dtype(sequences.dtype)
    if not any(word in kind for word in ("float", "int", "bool")):
        raise TypeError(f"sequences: expected real numbers, got {kind}")
    if len(sequences.shape) != 3 or sequences.shape[1] == 0:
        raise ValueError(f"sequences: expected shape (b, t, d) with t of 1 or more, got {tuple(sequences.shape)}")
    check_mask(sequences, mask)


def check_mask(sequences, mask):
    """A ValueError for a mask that is not (b, t) like the sequences, or, where its values are known, not of True and False."""
    if mask is None:
        return
    if not fits(mask.shape, sequences.shape[:2]):
        raise ValueError(
            f"mask: expected shape (b, t) like the sequences', {tuple(sequences.shape[:2])}, got {tuple(mask.shape)}"
        )
    kind = backend.standardize_dtype(mask.dtype)
    if kind == "bool":
        return
    if not ("float" in kind or "int" in kind):
        raise TypeError(f"mask: expected booleans, got {kind}")
    values = known(mask)
    if values is not None and not np.isin(values, (0, 1)).all():
        raise ValueError(f"mask: expected True and False, or 1 and 0, got {values[~np.isin(values, (0, 1))][0]}")

"""What sequence layers share: a form that takes one step at a time."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_seq._keras import AutocastScope
from keras_seq.arguments import boolean, positive_integer, tensor
from keras_seq.shapes import check_rows, fits
from keras_seq.typing import Tensor


class PreparedConstants(typing.NamedTuple):
    """Constants as a step reads them: a nest of tensors."""

    tensors: tuple


class Streamable:
    """A sequence layer that can be run step by step.

        state = layer.initial_state(batch)
        y_t, state = layer.step(x_t, state)

    gives, one by one, the y_t of the whole sequence. A subclass has `output_width`, `first_state(batch)`, a list of tensors
    with the batch first, and `step_states(x_t, states, mask) -> (y_t, new states)`, which leaves the states of hidden rows as
    they were. A layer that cannot says why in `not_stepwise`.
    """

    not_stepwise: str | None = None
    """The reason why the layer has no step form, a sentence; None if it has one."""
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
            **further: what the layer reads besides: `constants` as in its call, or `layer.prepare_constants(constants)`,
                which is then not made anew at every step; `targets` (b, k).

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
            return self.unchecked_step(inputs, state, mask, **further)

    def unchecked_step(
        self, inputs: Tensor, state: Sequence[Tensor], mask: Tensor | None, zeros: bool = True, **further: Any
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """`step`, of what has been checked; without `zeros` a hidden step repeats the last output in any case."""
        *states, last = state
        outputs, states = self.step_states(inputs, states, mask, **further)
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

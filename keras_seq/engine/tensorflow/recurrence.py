"""What one call of `scan` is about: a step, all that it reads, and in which form the results are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_seq.engine.tensorflow.arrays import column, differentiable, swap
from keras_seq.engine.tensorflow.step import run_step


@dataclasses.dataclass(frozen=True)
class Recurrence:
    """`y_t, s_t = step(weights, project(weights, x_t), s_{t-1}, constants)`; see `scan` for what each field is."""

    project: Callable[..., Any]
    step: Callable[..., Any]
    inputs: Any
    time: tf.Tensor | int
    states: tuple[tf.Tensor, ...]
    constants: tuple[tf.Tensor, ...]
    weights: tuple[tf.Tensor, ...]
    mask: tf.Tensor | None
    go_backwards: bool
    return_sequences: bool
    zero_output_for_mask: bool
    detach_states: bool
    independent_rows: bool

    @property
    def rows(self) -> list[tf.Tensor]:
        """What has a row for each sequence of the batch, flat: the inputs, the states, the constants."""
        return [*tf.nest.flatten(self.inputs), *self.states, *self.constants]

    @property
    def args(self) -> list[tf.Tensor]:
        """What gradients are taken of: of `rows` and the weights those of floating or complex type."""
        return [x for x in [*self.rows, *self.weights] if differentiable(x)]

    def with_rows(self, rows: Sequence[tf.Tensor], mask: tf.Tensor | None) -> Recurrence:
        """The same of other rows."""
        n = len(tf.nest.flatten(self.inputs))
        states, constants = rows[n : n + len(self.states)], rows[n + len(self.states) :]
        inputs = tf.nest.pack_sequence_as(self.inputs, rows[:n])
        given = {"inputs": inputs, "states": tuple(states), "constants": tuple(constants), "mask": mask}
        return dataclasses.replace(self, **given)

    def with_args(self, args: Sequence[tf.Tensor]) -> Recurrence:
        """The same of other `args`."""
        new = iter(args)
        rows = [next(new) if differentiable(x) else x for x in self.rows]
        return dataclasses.replace(self.with_rows(rows, self.mask), weights=tuple(new))

    def take_step(
        self, projected: Any, states: Sequence[tf.Tensor], constants: Sequence[tf.Tensor] | None = None
    ) -> tuple[Any, list[tf.Tensor]]:
        """`(output, new states)`; constants are by default its own."""
        states = [tf.stop_gradient(s) for s in states] if self.detach_states else states
        return run_step(self.step, self.weights, projected, states, self.constants if constants is None else constants)

    def time_major(self) -> tuple[Any, tf.Tensor | None]:
        """`(inputs, mask)`, the time first, in order of time; inputs that the mask hides are zeros."""
        inputs = tf.nest.map_structure(swap, self.inputs)
        if self.mask is None:
            return inputs, None
        mask = tf.transpose(self.mask)
        return tf.nest.map_structure(lambda x: tf.where(column(mask, x), x, tf.zeros_like(x)), inputs), mask

    def project_all(self) -> Any:
        """The projection of all inputs, (t, b, ...), in order of time."""
        return self.project(self.weights, self.time_major()[0])

    def place(self, index: Any) -> Any:
        """The place in order of time of the step at `index` in order of processing."""
        return self.time - 1 - index if self.go_backwards else index

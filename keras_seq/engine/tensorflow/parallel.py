"""All steps as one, over t * b rows, where the states before each of them are known: there is no loop over time.

They are known where a cell can compute them by itself (sums, true outputs fed back), and, in the backward pass of a
memory that lets no gradient through its states, from the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_seq.engine.tensorflow.arrays import column, known_shape, swap, take
from keras_seq.engine.tensorflow.gradients import Forward
from keras_seq.engine.tensorflow.recurrence import Recurrence


def run(recurrence: Recurrence, states_before: Callable[..., Sequence[tf.Tensor]]) -> Forward:
    """The outputs and final states, differentiable.

    `states_before(weights, projected, initial states)` says the states before each step, in order of processing.
    """

    def before(projected, real):
        """Those of all steps from those of the real steps alone."""
        seen = projected if real is None else tf.nest.map_structure(real.compacted, projected)
        found = states_before(recurrence.weights, seen, recurrence.states)
        return found if real is None else [real.expanded(s) for s in found]

    return _run(recurrence, before)


def backward(
    recurrence: Recurrence, states_before: Sequence[tf.Tensor], cotangents: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Gradients of `recurrence.args`, none of them through the states before each step."""
    args = recurrence.args
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(args)
        found = _run(recurrence, lambda *_: states_before)
        results = [*found.outputs, *found.states]
    return tape.gradient(results, args, output_gradients=list(cotangents), unconnected_gradients="zero")


def _run(recurrence, states_before):
    """As `run`, with the states before each step from `states_before(projected, real steps)`."""
    projected, mask = project_in_order(recurrence)
    real = None if mask is None else RealSteps(mask)
    output, after = take_all_steps(recurrence, projected, states_before(projected, real))
    return as_results(recurrence, real, output, after)


def as_results(recurrence: Recurrence, real: RealSteps | None, output: Any, after: Sequence[tf.Tensor]) -> Forward:
    """The outputs and final states from those of each step as if all steps were real, (t, b, ...)."""
    outputs = tf.nest.flatten(output)
    if real is None:
        final = [s[-1] for s in after]
    else:
        each = zip(after, recurrence.states, strict=True)
        final = [tf.where(column(real.any, s), real.at_last(a), s) for a, s in each]
        outputs = [real.filled_forward(o, recurrence.zero_output_for_mask) for o in outputs]
    outputs = [swap(o) if recurrence.return_sequences else o[-1] for o in outputs]
    structure = tf.nest.map_structure(lambda _: None, output)
    final = [known_shape(f, s.shape) for f, s in zip(final, recurrence.states, strict=True)]
    return Forward(outputs, structure, final, None)


def project_in_order(recurrence: Recurrence) -> tuple[Any, tf.Tensor | None]:
    """`(projection of all inputs, mask)`, both (t, b, ...) in order of processing."""
    inputs, mask = recurrence.time_major()
    if recurrence.go_backwards:
        inputs = tf.nest.map_structure(lambda x: tf.reverse(x, [0]), inputs)
        mask = None if mask is None else tf.reverse(mask, [0])
    return recurrence.project(recurrence.weights, inputs), mask


def take_all_steps(
    recurrence: Recurrence, projected: Any, states_before: Sequence[tf.Tensor]
) -> tuple[Any, list[tf.Tensor]]:
    """`(outputs, states after)` of every step from the states before it, all (t, b, ...)."""
    before, now, constants = as_rows(recurrence, projected, states_before)
    output, after = recurrence.take_step(now, before, constants)
    time = tf.shape(states_before[0])[0]
    return tf.nest.map_structure(lambda x: as_steps(x, time), output), [as_steps(s, time) for s in after]


def as_steps(x: tf.Tensor, time: int | tf.Tensor) -> tf.Tensor:
    """What one step over t * b rows gave, (t, b, ...)."""
    return tf.reshape(x, tf.concat([[time, -1], tf.shape(x)[1:]], 0))


def as_rows(
    recurrence: Recurrence, projected: Any, states_before: Sequence[tf.Tensor]
) -> tuple[list[tf.Tensor], Any, list[tf.Tensor]]:
    """`(states before, projection, constants)` of all steps as those of one step over t * b rows."""
    time = tf.shape(states_before[0])[0]

    def rows(x):
        return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))

    everywhere = [tf.tile(c, tf.concat([[time], tf.ones_like(tf.shape(c)[1:])], 0)) for c in recurrence.constants]
    return [rows(s) for s in states_before], tf.nest.map_structure(rows, projected), everywhere


class RealSteps:
    """Where the steps are that a mask (t, b) leaves."""

    def __init__(self, mask):
        self.mask = mask
        self.order = tf.argsort(tf.cast(mask, "int32"), axis=0, direction="DESCENDING", stable=True)
        self.count = tf.cumsum(tf.cast(mask, "int32"), axis=0)
        self.any = self.count[-1] > 0
        self.last = take(self.order, tf.maximum(self.count - 1, 0))  # the last real step up to each, if there is one

    def compacted(self, x):
        """`x` with its real steps before all others, their order kept."""
        return take(x, self.order)

    def expanded(self, x):
        """What the compacted form holds for the next real step, at every step."""
        return take(x, self.count - tf.cast(self.mask, "int32"))

    def at_last(self, x):
        return take(x, self.last[-1:])[0]

    def filled_forward(self, x, zero):
        """`x` at real steps; at others what it was at the last one, or zeros."""
        if zero:
            return tf.where(column(self.mask, x), x, tf.zeros_like(x))
        return tf.where(column(self.count > 0, x), take(x, self.last), tf.zeros_like(x))

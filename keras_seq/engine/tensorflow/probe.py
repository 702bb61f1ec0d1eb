"""One step taken before the loop, for what the loop must know of every step."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_seq.engine.primitives import intercept_dot
from keras_seq.engine.tensorflow.arrays import differentiable, distinct, product
from keras_seq.engine.tensorflow.fused_dots import fused_dots
from keras_seq.engine.tensorflow.recurrence import Recurrence
from keras_seq.engine.tensorflow.step import argument_of, place_among


class Dot(NamedTuple):
    """A `dot` of a step.

    `weight` is the number of the weight that its kernel is, None if it is made of weights; `argument` the number of the state
    that it multiplies, or an example of what it multiplies; `part` the number of the part of the projection that its result
    is added to, if neither has another use.
    """

    kernel: tf.Tensor
    weight: int | None
    argument: tf.Tensor | int
    result: tf.Tensor
    part: int | None


class Probe(NamedTuple):
    """What one step shows.

    The number of its rows, where that is known; its projected input; its outputs, flat, and the nest that they are packed
    in; its `dot`s in order; and of the constants of floating type and the weights, whether a step reads each but by `dot`.
    """

    rows: int | None
    projected: Any
    outputs: list[tf.Tensor]
    structure: Any
    dots: list[Dot]
    reads: list[bool]

    @property
    def fused(self) -> dict[int, int]:
        """From the number of each `dot` that is only added to a part of the projection to that of the part."""
        return {j: dot.part for j, dot in enumerate(self.dots) if dot.part is not None}


def probe(recurrence: Recurrence, projections: Any) -> Probe:
    """Take the step of the first of these projections, (t, b, ...), from the initial states.

    Raises:
        ValueError: a kernel of `dot` that depends on a state or an input; new states unlike the old ones.
    """
    states, projected = recurrence.states, tf.nest.map_structure(lambda x: x[0], projections)
    kernels: list[tf.Tensor] = []
    results: list[tf.Tensor] = []
    arguments: list[tf.Tensor] = []
    moving = [x for x in [*tf.nest.flatten(projected), *states] if differentiable(x)]
    fixed = [x for x in [*recurrence.constants, *recurrence.weights] if differentiable(x)]

    def record(x, kernel):
        kernels.append(tf.convert_to_tensor(kernel))
        arguments.append(x)
        with besides_dots.stop_recording():
            results.append(product(x, kernels[-1]))
        return results[-1]

    with (
        tf.GradientTape(persistent=True, watch_accessed_variables=False) as of_moving,
        tf.GradientTape(watch_accessed_variables=False) as besides_dots,
        intercept_dot(record),
    ):
        of_moving.watch(moving)
        besides_dots.watch(fixed)
        output, new_states = recurrence.take_step(projected, states, distinct(recurrence.constants))
    if any(g is not None for k in kernels for g in of_moving.gradient(k, moving)):
        raise ValueError(
            "kernel of dot: expected a matrix made of weights and constants alone, got one that depends on a state "
            "or an input; use keras.ops.matmul for such a product"
        )
    _check_states(states, new_states)
    outputs = [tf.convert_to_tensor(x) for x in tf.nest.flatten(output)]
    returned = [*outputs, *(tf.convert_to_tensor(s) for s in new_states)]
    parts = fused_dots(results, tf.nest.flatten(projected), returned)  # before more uses are made of these tensors
    dots = [
        Dot(kernel, place_among(kernel, recurrence.weights), argument_of(x, states), result, part)
        for kernel, x, result, part in zip(kernels, arguments, results, parts, strict=True)
    ]
    reads = [g is not None for g in besides_dots.gradient([*returned, *arguments], fixed)]
    structure = tf.nest.map_structure(lambda _: None, output)
    return Probe(recurrence.rows[0].shape[0], projected, outputs, structure, dots, reads)


def _check_states(old, new):
    def say(states):
        return [f"{tuple(s.shape)} {tf.as_dtype(s.dtype).name}" for s in states]

    same = len(old) == len(new) and all(
        o.shape.is_compatible_with(s.shape) and o.dtype == s.dtype for o, s in zip(old, new, strict=True)
    )
    if not same:
        raise ValueError(f"step: expected new states like the old ones, {say(old)}, got {say(new)}")

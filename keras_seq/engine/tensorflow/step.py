"""One step and its derivatives, free of any loop.

A step is a pure function `(weights, projected, states, constants) -> (output, new states)`; its products with the state are
marked by `dot`. Its derivatives here are what the loop over time, its backward pass, real-time recurrent learning and the
analysis of Jacobians are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_seq.engine.primitives import intercept_dot
from keras_seq.engine.tensorflow.arrays import differentiable, distinct, product, zeros_unless


class Residuals(NamedTuple):
    """What is kept of a step to replay it: its projected input, the states before it, the results of its `dot`s."""

    projected: Any
    states: tuple[tf.Tensor, ...]
    dots: list[tf.Tensor]


class StepCotangents(NamedTuple):
    """Cotangents of what one step read.

    `projected` are those of the parts of floating type, `constants` and `weights` those that a step reads but by `dot`, None
    of the others. `dots` are those of the results of the `dot`s; with what each multiplied, `arguments`, they give the
    gradients of the kernels. An argument that is a state is given by the number of the state.
    """

    states: list[tf.Tensor]
    projected: list[tf.Tensor]
    constants: list[tf.Tensor | None]
    weights: list[tf.Tensor | None]
    dots: list[tf.Tensor]
    arguments: list[tf.Tensor | int]


def run_step(
    step: Callable[..., Any],
    weights: Sequence[tf.Tensor],
    projected: Any,
    states: Sequence[tf.Tensor],
    constants: Sequence[tf.Tensor],
) -> tuple[Any, list[tf.Tensor]]:
    """`(output, new states)`, the states as a list, whatever the step gives them in."""
    output, new_states = step(weights, projected, tuple(states), tuple(constants))
    return output, list(new_states) if isinstance(new_states, (list, tuple)) else [new_states]


def step_vjp(
    step: Callable[..., Any],
    weights: Sequence[tf.Tensor],
    residuals: Residuals,
    constants: Sequence[tf.Tensor],
    transposed: Sequence[tf.Tensor],
    cotangents: Sequence[tf.Tensor],
) -> StepCotangents:
    """Pull the cotangents of a step's outputs, flat, and new states back to what it read, by replaying it.

    No `dot` multiplies anew: each returns its kept result, which automatic differentiation takes for one more input.
    From the last to the first its cotangent then goes on to its argument, by `transposed`, its kernel's adjoint.
    """
    arguments: list[tf.Tensor] = []

    def replay(x, _):
        arguments.append(x)
        return dots[len(arguments) - 1]

    parts = [p for p in tf.nest.flatten(residuals.projected) if differentiable(p)]
    groups = [list(residuals.states), parts, [c for c in constants if differentiable(c)], list(weights)]
    sources = [x for group in groups for x in group]
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape, intercept_dot(replay):
        tape.watch([*sources, *residuals.dots])
        states, dots, constants = distinct(residuals.states), distinct(residuals.dots), distinct(constants)
        projected = tf.nest.pack_sequence_as(residuals.projected, distinct(tf.nest.flatten(residuals.projected)))
        output, new_states = run_step(step, weights, projected, states, constants)
        results = [*tf.nest.flatten(output), *new_states]
    found = tape.gradient(results, [*sources, *residuals.dots], output_gradients=list(cotangents))
    numbered = [argument_of(x, states) for x in arguments]
    for j in reversed(range(len(dots))):
        found[len(sources) + j] = delta = zeros_unless(found[len(sources) + j], dots[j])
        back = product(delta, transposed[j])
        if isinstance(numbered[j], int):
            more = {numbered[j]: back}
        else:
            targets = [*sources, *residuals.dots[:j]]
            more = dict(enumerate(tape.gradient(arguments[j], targets, output_gradients=back)))
        for i, gradient in more.items():
            found[i] = gradient if found[i] is None else found[i] if gradient is None else found[i] + gradient
    taken = iter(found)
    dstates, dparts, dconstants, dweights = ([next(taken) for _ in group] for group in groups)
    return StepCotangents(
        [zeros_unless(g, s) for g, s in zip(dstates, states, strict=True)],
        [zeros_unless(g, p) for g, p in zip(dparts, parts, strict=True)],
        dconstants,
        dweights,
        list(taken),
        numbered,
    )


def place_among(x: tf.Tensor, tensors: Sequence[tf.Tensor]) -> int | None:
    """The number of the one of the tensors that this is, if it is one."""
    return next((i for i, y in enumerate(tensors) if x is y), None)


def argument_of(x: tf.Tensor, states: Sequence[tf.Tensor]) -> tf.Tensor | int:
    """What a `dot` multiplies: the number of the state that this is, or else itself."""
    place = place_among(x, states)
    return x if place is None else place


def step_jvp(
    step: Callable[..., Any],
    weights: Sequence[tf.Tensor],
    projected: Any,
    states: Sequence[tf.Tensor],
    constants: Sequence[tf.Tensor],
    tangents: dict[str, Any],
) -> tuple[tuple[Any, list[tf.Tensor]], tuple[Any, list[tf.Tensor]]]:
    """A step and how it changes: `((output, new states), (its tangent, their tangents))`.

    Args:
        tangents: of any of "weights", "projected", "states" and "constants", tensors like them in the same nest; what is not
            named does not change.
    """
    given = {"weights": list(weights), "projected": projected, "states": list(states), "constants": list(constants)}
    primals = [x for name in tangents for x in tf.nest.flatten(given[name])]
    changes = [x for name in tangents for x in tf.nest.flatten(tangents[name])]
    with tf.autodiff.ForwardAccumulator(primals, changes) as accumulator:
        results = run_step(step, weights, projected, states, constants)
    changed = tf.nest.map_structure(lambda x: accumulator.jvp(x, unconnected_gradients="zero"), results)
    return results, changed


def step_jacobian(
    step: Callable[..., Any],
    weights: Sequence[tf.Tensor],
    projected: Any,
    states: Sequence[tf.Tensor],
    constants: Sequence[tf.Tensor],
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """`(new states, their Jacobian by the states)`: (b, n, n), all states side by side in one vector of width n.

    Of a step whose rows have nothing to do with each other, by one step of n times as many rows.
    """
    widths = [s.shape[-1] for s in states]
    n, rows = sum(widths), tf.shape(states[0])[0]

    def repeated(x):
        return tf.repeat(x, n, axis=0)

    identity = tf.tile(tf.eye(n, dtype=states[0].dtype), [rows, 1])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        many = [repeated(s) for s in states]
        tape.watch(many)
        _, new = run_step(
            step, weights, tf.nest.map_structure(repeated, projected), many, [repeated(c) for c in constants]
        )
    found = tape.gradient(new, many, output_gradients=tf.split(identity, widths, axis=-1), unconnected_gradients="zero")
    new = [tf.reshape(s, (rows, n, s.shape[-1]))[:, 0] for s in new]
    return new, tf.reshape(tf.concat(found, axis=-1), (rows, n, n))


def step_diagonal(
    step: Callable[..., Any],
    weights: Sequence[tf.Tensor],
    projected: Any,
    states: Sequence[tf.Tensor],
    constants: Sequence[tf.Tensor],
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """`(new states, the diagonal of `step_jacobian` (b, n))` by one step and a gradient for each state, with no product more.

    Of a step that is elementwise but for its `dot`s, each of a state with blocks of square matrices, as gates are. What else
    a step does counts as if it were so: then this is near the diagonal, not the diagonal.
    """
    dots: list[tuple[tf.Tensor, tf.Tensor]] = []
    results: list[tf.Tensor] = []

    def keep(x, kernel):
        dots.append((x, tf.convert_to_tensor(kernel)))
        results.append(tf.stop_gradient(product(*dots[-1])))
        tape.watch(results[-1])
        return results[-1]

    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape, intercept_dot(keep):
        states = distinct(states)
        tape.watch(states)
        _, new = run_step(step, weights, projected, states, constants)
    diagonal = []
    for number, (state, after) in enumerate(zip(states, new, strict=True)):
        found = tape.gradient(after, [state, *results])
        total = zeros_unless(found[0], state)
        for (x, kernel), delta in zip(dots, found[1:], strict=True):
            width = state.shape[-1]
            if delta is not None and place_among(x, states) == number and kernel.shape[-1] % width == 0:
                through = tf.linalg.diag_part(tf.transpose(tf.reshape(kernel, (width, -1, width)), (1, 0, 2)))
                by_block = tf.reshape(delta, (-1, kernel.shape[-1] // width, width))
                total += tf.reduce_sum(by_block * tf.cast(through, delta.dtype), axis=1)
        diagonal.append(total)
    return new, tf.concat(diagonal, axis=-1)

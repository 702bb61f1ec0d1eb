"""Running a step over time on TensorFlow: which way is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_seq.engine.tensorflow import checkpointed, loop, newton, parallel
from keras_seq.engine.tensorflow.arrays import at_least_one_step, differentiable, leading, size
from keras_seq.engine.tensorflow.recurrence import Recurrence


def scan(
    project: Callable[..., Any],
    step: Callable[..., Any],
    inputs: Any,
    states: Sequence[Any],
    constants: Sequence[Any] = (),
    weights: Sequence[Any] = (),
    mask: Any = None,
    *,
    go_backwards: bool = False,
    return_sequences: bool = True,
    zero_output_for_mask: bool = False,
    save_residuals: bool = True,
    detach_states: bool = False,
    independent_rows: bool = False,
    states_before: Callable[..., Any] | None = None,
    truncate: int | None = None,
    checkpoint: bool = False,
    solver: newton.Settings | None = None,
) -> tuple[Any, tuple[Any, ...]]:
    """Run `step` over the time axis of `inputs`; differentiable once by the fused backward, and further by autodiff.

        p_t = project(weights, x_t);   y_t, s_t = step(weights, p_t, s_{t-1}, constants)

    A step that `mask` hides leaves the states as they were and repeats the last output (zeros before the first one, or
    always with `zero_output_for_mask` and `return_sequences`); the inputs there are read as zeros, so that no NaN of
    theirs reaches a gradient.

    Where the states before all steps are known without the loop, by `states_before` or, in the backward pass with
    `detach_states`, from the forward pass, all steps are taken as one, over t * b rows; constants then are (b, ...).

    Args:
        project: function `(weights, inputs) -> projected`, a tensor or a nest of tensors; of inputs with any leading axes.
        step: function `(weights, projected, states, constants) -> (output, new_states)`; an output may be a nest of tensors.
        inputs: tensor (b, t, d...), or a nest of such.
        states: tensors (b, ...), the initial states.
        constants: tensors that do not change in time; those of floating or complex type get gradients.
        weights: the tensors that `project` and `step` are given first, real or complex.
        mask: boolean tensor (b, t), True for real steps, or None.
        go_backwards: read time in reverse; the outputs come in the order of processing.
        return_sequences: return all outputs, (b, t, ...), else that of the last real step, (b, ...).
        zero_output_for_mask: as above.
        save_residuals: keep what the backward pass needs. If False, a gradient is as right, but runs the loop again first.
        detach_states: let no gradient through the states that a step reads.
        independent_rows: the rows (first axes) of inputs, states and constants have nothing to do with each other: they may
            run in lanes, side by side in one loop.
        states_before: function `(weights, projected, states) -> states before each step`, of (t, b, ...) tensors and the
            initial states, or None; the inputs of masked steps are left out of what it sees.
        truncate: let no gradient pass from a step to the one before it where that is the last of k, 2k, ... steps.
        checkpoint: keep of about sqrt(t) steps only the states, and run the others again for the backward pass; with
            `truncate`, of every k-th.
        solver: how to find the states before all steps, where they are not known, by iterations over all steps at once; the
            rows are independent then.

    Returns:
        `(outputs, states)`, states as a tuple.

    Raises:
        TypeError: weights that are not real or complex.
        ValueError: a step that returns states of another number, shape or type than it got, or calls `dot` with a kernel
            that is no matrix or depends on a state or an input.
    """
    inputs = tf.nest.map_structure(lambda x: at_least_one_step(tf.convert_to_tensor(x)), inputs)
    first = tf.nest.flatten(inputs)[0]
    sizes = tf.shape(first)[:2]
    inputs = tf.nest.map_structure(lambda x: leading(x, sizes, first.shape[:2], "inputs"), inputs)
    states = [leading(s, sizes[:1], first.shape[:1], "initial_state") for s in states]
    mask = None if mask is None else leading(mask, sizes, first.shape[:2], "mask")
    weights = [tf.convert_to_tensor(w) for w in weights]
    if not all(map(differentiable, weights)):
        raise TypeError(f"weights: expected tensors of real or complex numbers, got {[w.dtype.name for w in weights]}")
    recurrence = Recurrence(
        project,
        step,
        inputs,
        size(first, 1),
        tuple(states),
        tuple(tf.convert_to_tensor(c) for c in constants),
        tuple(weights),
        mask,
        go_backwards=go_backwards,
        return_sequences=return_sequences,
        zero_output_for_mask=zero_output_for_mask and return_sequences,
        detach_states=detach_states,
        independent_rows=independent_rows,
    )
    args = recurrence.args
    # a tensor given twice is two arguments, each with a gradient of its own
    recurrence = recurrence.with_args(
        [tf.identity(x) if any(x is y for y in args[:i]) else x for i, x in enumerate(args)]
    )
    if truncate is not None or checkpoint:
        found = checkpointed.run(recurrence, truncate, truncate is not None, save_residuals)
    elif states_before is not None:
        found = parallel.run(recurrence, states_before)
    elif solver is not None:
        found = newton.run(recurrence, solver, save_residuals)
    else:
        found = loop.run(recurrence, save_residuals)
    return tf.nest.pack_sequence_as(found.structure, found.outputs), tuple(found.states)

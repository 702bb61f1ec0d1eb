"""The loop over time on TensorFlow: which way a sequence is run."""

import tensorflow as tf

from keras_seq.engine import together
from keras_seq.engine.arrays import at_least_one_step, leading
from keras_seq.engine.chunks import Chunks
from keras_seq.engine.loop import Loop
from keras_seq.engine.step import Step


def scan(
    project,
    step,
    inputs,
    states,
    constants=(),
    weights=(),
    mask=None,
    *,
    go_backwards=False,
    return_sequences=True,
    zero_output_for_mask=False,
    keep=True,
    blocked=False,
    independent=False,
    history=None,
    truncate=None,
    checkpoint=False,
):
    """Run `step` over the time axis of `inputs`; differentiable once by the fused backward, and further by autodiff.

        p_t = project(x_t);   y_t, s_t = step(p_t, s_{t-1}, constants)

    A step that `mask` hides leaves the states as they were and repeats the last output (zeros before the first one, or
    always with `zero_output_for_mask` and `return_sequences`); the inputs there are read as zeros, so that no NaN of
    theirs reaches a gradient.

    Where the states before all steps are known without the loop, by `history` or, in the backward pass of a `blocked`
    one, from the forward pass, all steps are taken as one, over t * b rows; constants then are (b, ...), one row each.

    Args:
        project: function of the inputs, on any leading axes; returns a tensor or a nest of tensors.
        step: function `(projected, states, constants) -> (output, new_states)`; an output may be a nest of tensors.
        inputs: tensor (b, t, d...), or a nest of such.
        states: tensors (b, ...), the initial states.
        constants: tensors that do not change in time; those of floating or complex type get gradients.
        weights: Keras variables that `project` and `step` read.
        mask: boolean tensor (b, t), True for real steps, or None.
        go_backwards: read time in reverse; the outputs come in the order of processing.
        return_sequences: return all outputs, (b, t, ...), else that of the last real step, (b, ...).
        zero_output_for_mask: as above.
        keep: keep what the backward pass needs. If False, a gradient is as right, but runs the loop again first.
        blocked: let no gradient through the states that a step reads.
        independent: the rows (first axes) of inputs, states and constants have nothing to do with each other: they may run
            in lanes, side by side in one loop.
        history: function `(projected, states) -> states before each step`, of (t, b, ...) tensors and the initial states,
            or None; the inputs of masked steps are left out of what it sees.
        truncate: let no gradient pass from a step to the one before it where that is the last of k, 2k, ... steps.
        checkpoint: keep of about sqrt(t) steps only the states, and run the others again for the backward pass; with
            `truncate`, of every k-th.

    Returns:
        `(outputs, states)`, states as a tuple.

    Raises:
        ValueError: a step that returns states of another number, shape or type than it got, or calls `dot` with a kernel
            that is no matrix or depends on a state or an input.
    """
    inputs = tf.nest.map_structure(at_least_one_step, inputs)
    first = tf.nest.flatten(inputs)[0]
    sizes = tf.shape(first)[:2]
    inputs = tf.nest.map_structure(lambda x: leading(x, sizes, first.shape[:2], "inputs"), inputs)
    states = tuple(leading(s, sizes[:1], first.shape[:1], "initial_state") for s in states)
    mask = None if mask is None else leading(mask, sizes, first.shape[:2], "mask")
    given = project, step, inputs, states, tuple(constants), tuple(weights), mask
    settings = go_backwards, zero_output_for_mask and return_sequences, blocked
    if truncate is not None or checkpoint:
        over_time = Chunks(*given, *settings, return_sequences, independent, size=truncate, cut=truncate is not None)
        results = over_time.run(keep)
    elif history is None:
        over_time = Loop(*given, *settings, return_sequences, independent)
        results = over_time.run(keep)
    else:
        over_time = Step(*given, *settings)
        results = together.run(over_time, over_time.args, return_sequences, history=history)
    n = len(results) - len(states)
    return tf.nest.pack_sequence_as(over_time.structure, results[:n]), tuple(results[n:])

"""All steps as one, over t * b rows, where the states before each of them are known: there is no loop over time.

They are known where a cell can compute them by itself (sums, true outputs fed back), and, in the backward pass of a
memory that lets no gradient through its states, from the forward pass.
"""

import tensorflow as tf

from keras_seq.engine.arrays import column, like, swap, take


def run(step, args, return_sequences, history=None, before=None):
    """`(*outputs, *final states)` of a `Step` as a differentiable function of `args`.

    The states before each step are `before`, in order of processing, or what `history(projected, initial states)` says.
    """
    inputs, states, constants, values = step.unpack(args)
    mask = None if step.mask is None else tf.transpose(step.mask)
    if step.go_backwards:
        inputs = tf.nest.map_structure(lambda x: tf.reverse(x, [0]), inputs)
        mask = None if mask is None else tf.reverse(mask, [0])
    real = None if mask is None else RealSteps(mask)
    with step.reading(values):
        projected = step.project(inputs)
        if before is None:
            seen = projected if real is None else tf.nest.map_structure(real.first, projected)
            before = history(seen, states)
            before = before if real is None else [real.back(s) for s in before]
        time = tf.shape(before[0])[0]

        def rows(x):
            return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))

        def steps(x):
            return tf.reshape(x, tf.concat([[time, -1], tf.shape(x)[1:]], 0))

        everywhere = tuple(tf.tile(c, tf.concat([[time], tf.ones_like(tf.shape(c)[1:])], 0)) for c in constants)
        outputs, after = step.take(tf.nest.map_structure(rows, projected), tuple(map(rows, before)), everywhere)
    outputs, after = [steps(o) for o in outputs], [steps(s) for s in after]
    if real is None:
        final = [s[-1] for s in after]
    else:
        final = [tf.where(column(real.any, s), real.at_last(a), s) for a, s in zip(after, states, strict=True)]
        outputs = [real.shown(o, step.zero_output_for_mask) for o in outputs]
    outputs = [swap(o) if return_sequences else o[-1] for o in outputs]
    return (*outputs, *like(final, states))


def backward(step, args, cotangents, return_sequences, before):
    """Gradients of `args`, none of them through the states `before` each step."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(args)
        results = run(step, args, return_sequences, before=before)
    return tape.gradient(results, args, output_gradients=list(cotangents), unconnected_gradients="zero")


class RealSteps:
    """Where the steps are that a mask (t, b) leaves."""

    def __init__(self, mask):
        self.mask = mask
        self.order = tf.argsort(tf.cast(mask, "int32"), axis=0, direction="DESCENDING", stable=True)
        self.count = tf.cumsum(tf.cast(mask, "int32"), axis=0)
        self.any = self.count[-1] > 0
        self.last = take(self.order, tf.maximum(self.count - 1, 0))  # the last real step up to each, if there is one

    def first(self, x):
        """`x` with its real steps before all others, their order kept."""
        return take(x, self.order)

    def back(self, x):
        """What the `first` form holds for the next real step, at every step."""
        return take(x, self.count - tf.cast(self.mask, "int32"))

    def at_last(self, x):
        return take(x, self.last[-1:])[0]

    def shown(self, x, zero):
        """`x` at real steps; at others what it was at the last one, or zeros."""
        if zero:
            return tf.where(column(self.mask, x), x, tf.zeros_like(x))
        return tf.where(column(self.count > 0, x), take(x, self.last), tf.zeros_like(x))

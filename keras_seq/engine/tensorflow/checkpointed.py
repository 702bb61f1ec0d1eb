"""The loop over time in chunks, of which forward keeps the first states alone.

Backward takes the chunks from the last to the first: it runs each forward once more, now keeping what it needs, and then
backward. With chunks of sqrt(t) steps the memory for t steps grows as sqrt(t), at the cost of one more forward pass.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_seq.engine.tensorflow import arrays, loop
from keras_seq.engine.tensorflow.arrays import differentiable, known_shape, like, select, stack, unstack
from keras_seq.engine.tensorflow.gradients import Forward, differentiable_once
from keras_seq.engine.tensorflow.parallel import RealSteps
from keras_seq.engine.tensorflow.probe import probe
from keras_seq.engine.tensorflow.recurrence import Recurrence


def run(recurrence: Recurrence, size: int | None, cut: bool, save_residuals: bool) -> Forward:
    """The outputs and final states, differentiable, in chunks of `size` steps, None for the square root of their number.

    No gradient passes from a chunk to the one before it if `cut`.
    """

    def forward(here, save):  # chunks matter to the gradient alone
        return _forward(here, size, cut) if save else loop.forward(here, save_residuals=False)

    return differentiable_once(
        recurrence,
        forward,
        lambda here, starts, cotangents: _backward(here, size, cut, starts, cotangents),
        lambda here: _forward(here, size, cut),
        save_residuals,
    )


def _forward(recurrence, size, cut):
    """The outputs and final states, and as residuals the states before each chunk."""
    chunks = _Chunks(recurrence, size)
    one = probe(recurrence, recurrence.project_all())
    zeros = tuple(tf.zeros_like(o) for o in one.outputs)

    def body(index, outputs, states, starts, stacks):
        starts = tuple(s.write(index, v) for s, v in zip(starts, states, strict=True))
        if cut:
            states = tuple(tf.where(index > 0, tf.stop_gradient(s), s) for s in states)
        found = loop.forward(chunks.at(index, states), save_residuals=False)
        if recurrence.return_sequences:
            stacks = tuple(s.write(index, o) for s, o in zip(stacks, found.outputs, strict=True))
        else:
            outputs = select(chunks.any(index), found.outputs, outputs)
        return index + 1, like(outputs, zeros), like(found.states, states), starts, stacks

    starts = tuple(stack(s, chunks.count) for s in recurrence.states)
    shapes = [o.shape[:1] + chunks.static_size + o.shape[1:] for o in zeros] if recurrence.return_sequences else []
    stacks = tuple(stack(tf.TensorSpec(s, o.dtype), chunks.count) for o, s in zip(zeros, shapes, strict=False))
    _, outputs, states, starts, stacks = arrays.loop(chunks.count, body, (zeros, recurrence.states, starts, stacks))
    if recurrence.return_sequences:
        outputs = [chunks.joined(s.stack()) for s in stacks]
    return Forward(list(outputs), one.structure, list(states), [s.stack() for s in starts])


def _backward(recurrence, size, cut, starts, cotangents):
    """Gradients of `recurrence.args` from the cotangents of outputs and final states and the states before each chunk."""
    chunks, args = _Chunks(recurrence, size), recurrence.args
    n, starts = len(cotangents) - len(starts), [unstack(s, chunks.count) for s in starts]
    doutputs, dstates = tuple(cotangents[:n]), tuple(cotangents[n:])
    each = None
    if recurrence.return_sequences:
        each, doutputs = [unstack(chunks.joined_vjp(d), chunks.count) for d in doutputs], ()
    inputs = [x for x in chunks.inputs if differentiable(x)]
    first, last = len(inputs), len(inputs) + len(starts)

    def body(count, doutputs, dstates, sums, stacks):
        index = chunks.count - 1 - count
        chunk = chunks.at(index, tuple(s.read(index) for s in starts))
        residuals = loop.forward(chunk, save_residuals=True).residuals
        if each is None:
            here, zeros = chunks.any(index), [tf.zeros_like(d) for d in doutputs]
            now, doutputs = select(here, doutputs, zeros), tuple(select(here, zeros, doutputs))
        else:
            now = [e.read(index) for e in each]
        gradients = loop.backward(chunk, residuals, [*now, *dstates])
        dstates = like(gradients[first:last], dstates)
        if cut:
            dstates = tuple(tf.where(index > 0, tf.zeros_like(d), d) for d in dstates)
        sums = tuple(s + g for s, g in zip(sums, gradients[last:], strict=True))
        stacks = tuple(s.write(index, g) for s, g in zip(stacks, gradients[:first], strict=True))
        return count + 1, doutputs, dstates, sums, stacks

    stacks = tuple(stack(tf.TensorSpec(x.shape[:1] + x.shape[2:], x.dtype), chunks.count) for x in inputs)
    sums = tuple(tf.zeros_like(a) for a in args[last:])
    _, _, dstates, sums, stacks = arrays.loop(chunks.count, body, (doutputs, dstates, sums, stacks))
    dinputs = [chunks.whole(s.stack()) for s in stacks]
    if recurrence.go_backwards:
        dinputs = [tf.reverse(d, [1]) for d in dinputs]
    return [*dinputs, *dstates, *sums]


class _Chunks:
    """The inputs and the mask of a recurrence in the order of processing, chunk by chunk: (b, n, size, ...)."""

    def __init__(self, recurrence, size):
        self.recurrence = recurrence
        inputs = tf.nest.flatten(recurrence.inputs)
        static = inputs[0].shape[1]
        self.time = recurrence.time
        self.size = size
        if size is None:
            root = tf.sqrt(tf.cast(self.time, "float64"))
            self.size = tf.cast(tf.math.ceil(root), "int32") if static is None else int(-(-(static**0.5) // 1))
        self.static_size = tf.TensorShape([self.size if isinstance(self.size, int) else None])
        self.count = (self.time - 1) // self.size + 1
        self.padding = self.count * self.size - self.time
        mask = recurrence.mask
        if recurrence.go_backwards:
            inputs = [tf.reverse(x, [1]) for x in inputs]
            mask = None if mask is None else tf.reverse(mask, [1])
        if mask is None and (static is None or self.padding):
            mask = tf.ones(tf.shape(inputs[0])[:2], "bool")
        self.inputs = [self.split(x) for x in inputs]
        self.mask = None if mask is None else self.split(mask)

    def split(self, x):
        rest = [[0, 0]] * (len(x.shape) - 2)
        padded = tf.pad(x, [[0, 0], [0, self.padding], *rest])
        shape = tf.concat([tf.shape(x)[:1], [self.count, self.size], tf.shape(x)[2:]], 0)
        count = tf.TensorShape([self.count if isinstance(self.count, int) else None])
        return known_shape(tf.reshape(padded, shape), x.shape[:1] + count + self.static_size + x.shape[2:])

    def whole(self, stacked):
        """(n, b, size, ...) to (b, t, ...)."""
        x = tf.transpose(stacked, [1, 0, *range(2, len(stacked.shape))])
        x = tf.reshape(x, tf.concat([tf.shape(x)[:1], [-1], tf.shape(x)[3:]], 0))[:, : self.time]
        steps = tf.TensorShape([self.time if isinstance(self.time, int) else None])
        return known_shape(x, stacked.shape[1:2] + steps + stacked.shape[3:])

    def any(self, index):
        """Whether a row has a real step in this chunk."""
        if self.mask is None:
            return tf.ones(tf.shape(self.inputs[0])[:1], "bool")
        return tf.reduce_any(tf.gather(self.mask, index, axis=1), axis=1)

    def at(self, index, states):
        """The recurrence over one chunk from these states."""
        recurrence = self.recurrence
        chunk = recurrence.with_rows(
            [*(tf.gather(x, index, axis=1) for x in self.inputs), *states, *recurrence.constants],
            None if self.mask is None else tf.gather(self.mask, index, axis=1),
        )
        # a masked step at the start of a chunk repeats what another chunk knows: see `joined`
        return dataclasses.replace(
            chunk, time=self.size, go_backwards=False, zero_output_for_mask=recurrence.return_sequences
        )

    def joined(self, stacked):
        """The outputs (b, t, ...) from those of all chunks."""
        outputs, recurrence = self.whole(stacked), self.recurrence
        if recurrence.mask is None or recurrence.zero_output_for_mask:
            return outputs
        mask = tf.transpose(tf.reverse(recurrence.mask, [1]) if recurrence.go_backwards else recurrence.mask)
        axes = [1, 0, *range(2, len(outputs.shape))]
        return tf.transpose(RealSteps(mask).filled_forward(tf.transpose(outputs, axes), False), axes)

    def joined_vjp(self, cotangent):
        """The cotangents of the outputs of all chunks from that of what `joined` makes of them."""
        shape = tf.concat([[self.count], tf.shape(cotangent)[:1], [self.size], tf.shape(cotangent)[2:]], 0)
        stacked = tf.zeros(shape, cotangent.dtype)
        count = tf.TensorShape([self.count if isinstance(self.count, int) else None])
        stacked = known_shape(stacked, count + cotangent.shape[:1] + self.static_size + cotangent.shape[2:])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(stacked)
            outputs = self.joined(stacked)
        return tape.gradient(outputs, stacked, output_gradients=cotangent)

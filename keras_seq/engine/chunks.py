"""The loop over time in chunks, of which forward keeps the first states alone.

Backward takes the chunks from the last to the first: it runs each forward once more, now keeping what it needs, and then
backward. With chunks of sqrt(t) steps the memory for t steps grows as sqrt(t), at the cost of one more forward pass.
"""

import dataclasses

import tensorflow as tf

from keras_seq.engine.arrays import column, differentiable, like, loop, unstack
from keras_seq.engine.loop import Loop
from keras_seq.engine.together import RealSteps


@dataclasses.dataclass
class Chunks(Loop):
    """As `Loop`, in chunks of `size` steps, None for the square root of their number; no gradient passes a `cut`."""

    size: int | None
    cut: bool

    def forward(self, args, keep):
        """`(*outputs, *final states)`, and the states before each chunk."""
        parts = _Parts(self, args)
        with self.reading(parts.values):
            inputs, states, constants, _ = self.unpack(args)
            zeros = self.probe(inputs, states, constants).outputs

        def body(index, outputs, states, starts, stacks):
            starts = tuple(s.write(index, v) for s, v in zip(starts, states, strict=True))
            if self.cut:
                states = tuple(tf.where(index > 0, tf.stop_gradient(s), s) for s in states)
            part, given = parts.at(index, states)
            results, _ = part.forward(given, keep=False)
            new, states = results[: len(outputs)], like(results[len(outputs) :], states)
            if self.return_sequences:
                stacks = tuple(s.write(index, o) for s, o in zip(stacks, new, strict=True))
            else:
                outputs = tuple(tf.where(column(parts.any(index), n), n, o) for n, o in zip(new, outputs, strict=True))
            return index + 1, like(outputs, zeros), states, starts, stacks

        starts = tuple(tf.TensorArray(s.dtype, parts.count, element_shape=s.shape) for s in states)
        shapes = [o.shape[:1] + parts.static_size + o.shape[1:] for o in zeros] if self.return_sequences else []
        stacks = tuple(
            tf.TensorArray(o.dtype, parts.count, element_shape=s) for o, s in zip(zeros, shapes, strict=False)
        )
        _, outputs, states, starts, stacks = loop(parts.count, body, (zeros, states, starts, stacks))
        if self.return_sequences:
            outputs = [parts.arranged(s.stack()) for s in stacks]
        return (*outputs, *states), [s.stack() for s in starts]

    def results(self, args):
        """Those of one loop over all steps: chunks matter to the gradient alone."""
        return Loop.forward(self, args, keep=False)[0]

    def backward(self, args, cotangents, kept):
        """Gradients of `args` from the cotangents of `(*outputs, *final states)` and the states before each chunk."""
        parts = _Parts(self, args)
        starts = [unstack(s) for s in kept]
        n = len(cotangents) - len(starts)
        doutputs, dstates = tuple(cotangents[:n]), tuple(cotangents[n:])
        each = [unstack(parts.arranged_back(d)) for d in doutputs] if self.return_sequences else None
        if self.return_sequences:
            doutputs = ()
        first, last = parts.floating_inputs, parts.floating_inputs + len(starts)

        def body(count, doutputs, dstates, sums, stacks):
            index = parts.count - 1 - count
            part, given = parts.at(index, tuple(s.read(index) for s in starts))
            _, record = part.forward(given, keep=True)
            if each is None:
                here = parts.any(index)
                now = [tf.where(column(here, d), d, tf.zeros_like(d)) for d in doutputs]
                doutputs = tuple(tf.where(column(here, d), tf.zeros_like(d), d) for d in doutputs)
            else:
                now = [e.read(index) for e in each]
            gradients = part.backward(given, (*now, *dstates), record)
            dstates = like(gradients[first:last], dstates)
            if self.cut:
                dstates = tuple(tf.where(index > 0, tf.zeros_like(d), d) for d in dstates)
            sums = tuple(s + g for s, g in zip(sums, gradients[last:], strict=True))
            stacks = tuple(s.write(index, g) for s, g in zip(stacks, gradients[:first], strict=True))
            return count + 1, doutputs, dstates, sums, stacks

        inputs = [x for x in parts.inputs if differentiable(x)]
        stacks = tuple(tf.TensorArray(x.dtype, parts.count, element_shape=x.shape[:1] + x.shape[2:]) for x in inputs)
        sums = tuple(tf.zeros_like(a) for a in args[last:])
        _, _, dstates, sums, stacks = loop(parts.count, body, (doutputs, dstates, sums, stacks))
        dinputs = [parts.whole(s.stack()) for s in stacks]
        if self.go_backwards:
            dinputs = [tf.reverse(d, [1]) for d in dinputs]
        return [*dinputs, *dstates, *sums]


class _Parts:
    """The inputs and the mask of a `Chunks` in the order of processing, chunk by chunk: (b, n, size, ...)."""

    def __init__(self, chunks, args):
        self.chunks = chunks
        inputs, self.states, self.constants, self.values = chunks.fill(args)
        self.args = args
        self.floating_inputs = sum(map(differentiable, inputs))
        static = inputs[0].shape[1]
        self.time = tf.shape(inputs[0])[1] if static is None else static
        self.size = chunks.size
        if self.size is None:
            root = tf.sqrt(tf.cast(self.time, "float64"))
            self.size = tf.cast(tf.math.ceil(root), "int32") if static is None else int(-(-(static**0.5) // 1))
        self.static_size = tf.TensorShape([self.size if isinstance(self.size, int) else None])
        self.count = (self.time - 1) // self.size + 1
        self.padding = self.count * self.size - self.time
        if chunks.go_backwards:
            inputs = [tf.reverse(x, [1]) for x in inputs]
        self.inputs = [self.split(x) for x in inputs]
        mask = chunks.mask
        self.mask = None
        if mask is not None:
            self.mask = self.split(tf.reverse(mask, [1]) if chunks.go_backwards else mask)
        elif static is None or self.padding:
            self.mask = self.split(tf.ones(tf.shape(inputs[0])[:2], "bool"))

    def split(self, x):
        rest = [[0, 0]] * (len(x.shape) - 2)
        padded = tf.pad(x, [[0, 0], [0, self.padding], *rest])
        shape = tf.concat([tf.shape(x)[:1], [self.count, self.size], tf.shape(x)[2:]], 0)
        count = tf.TensorShape([self.count if isinstance(self.count, int) else None])
        return tf.ensure_shape(tf.reshape(padded, shape), x.shape[:1] + count + self.static_size + x.shape[2:])

    def whole(self, stacked):
        """(n, b, size, ...) to (b, t, ...)."""
        x = tf.transpose(stacked, [1, 0, *range(2, len(stacked.shape))])
        x = tf.reshape(x, tf.concat([tf.shape(x)[:1], [-1], tf.shape(x)[3:]], 0))[:, : self.time]
        steps = tf.TensorShape([self.time if isinstance(self.time, int) else None])
        return tf.ensure_shape(x, stacked.shape[1:2] + steps + stacked.shape[3:])

    def any(self, index):
        """Whether a row has a real step in this chunk."""
        if self.mask is None:
            return tf.ones(tf.shape(self.inputs[0])[:1], "bool")
        return tf.reduce_any(tf.gather(self.mask, index, axis=1), axis=1)

    def at(self, index, states):
        """A `Loop` over one chunk from these states, and what it is a function of."""
        chunks = self.chunks
        inputs = [tf.gather(x, index, axis=1) for x in self.inputs]
        mask = None if self.mask is None else tf.gather(self.mask, index, axis=1)
        part = Loop(
            chunks.project,
            chunks.step,
            tf.nest.pack_sequence_as(chunks.inputs, inputs),
            states,
            self.constants,
            chunks.weights,
            mask,
            go_backwards=False,
            # a masked step at the start of a chunk repeats what another chunk knows: see `arranged`
            zero_output_for_mask=chunks.return_sequences,
            blocked=chunks.blocked,
            return_sequences=chunks.return_sequences,
            independent=chunks.independent,
        )
        floating = [x for x in inputs if differentiable(x)]
        return part, [*floating, *states, *self.args[len(floating) + len(states) :]]

    def arranged(self, stacked):
        """The outputs (b, t, ...) from those of all chunks."""
        outputs, chunks = self.whole(stacked), self.chunks
        if chunks.mask is None or chunks.zero_output_for_mask:
            return outputs
        mask = tf.transpose(tf.reverse(chunks.mask, [1]) if chunks.go_backwards else chunks.mask)
        axes = [1, 0, *range(2, len(outputs.shape))]
        return tf.transpose(RealSteps(mask).shown(tf.transpose(outputs, axes), False), axes)

    def arranged_back(self, cotangent):
        """The cotangents of the outputs of all chunks from that of what `arranged` makes of them."""
        shape = tf.concat([[self.count], tf.shape(cotangent)[:1], [self.size], tf.shape(cotangent)[2:]], 0)
        stacked = tf.zeros(shape, cotangent.dtype)
        count = tf.TensorShape([self.count if isinstance(self.count, int) else None])
        stacked = tf.ensure_shape(stacked, count + cotangent.shape[:1] + self.static_size + cotangent.shape[2:])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(stacked)
            outputs = self.arranged(stacked)
        return tape.gradient(outputs, stacked, output_gradients=cotangent)

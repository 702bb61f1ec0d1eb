"""The loop over time on TensorFlow, with an exact backward pass derived from the step alone.

Forward keeps, per step, the states, the projected inputs and the results of the `dot`s. Backward walks time in reverse
and replays one step after the other: each `dot` returns its kept result instead of multiplying, automatic
differentiation pulls the cotangents back through that one step, and the cotangent `d` of every `dot` goes on to its
argument as `d @ kernel^T` and onto a stack. After the loop, the gradient of each kernel is one product over all steps
and the batch, `sum_t x_t^T d_t`; so is the gradient of whatever `project` does to the inputs. What a step reads of its
weights without `dot` (peepholes, biases) is summed as the loop goes.

Every tensor that may need a gradient is an argument of one `tf.custom_gradient` function; a step reads its weights as
attributes all the same, through `keras.StatelessScope`.
"""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from keras_seq.engine import together
from keras_seq.engine.arrays import like, loop, outer, product, stack, swap, unstack, zeros_unless
from keras_seq.engine.marks import handling
from keras_seq.engine.merge import merged, merger
from keras_seq.engine.step import Step


def project_ahead():
    """Whether to project all inputs by one product before the loop (GPU), or each step's inside it (faster on CPU)."""
    return bool(tf.config.list_physical_devices("GPU"))


class _Kept(NamedTuple):
    """What forward kept of one step: its projected input, the states before it, the results of its `dot`s; and its mask."""

    projected: Any
    states: tuple
    results: list
    mask: tf.Tensor | None


class _Pulled(NamedTuple):
    """Cotangents of what one step came from.

    `projected` are those of the parts of floating type. `arguments` holds what each `dot` multiplied, or the number of the
    state that this is: that is on a stack already. `sums` are those of the floating constants and the weights, None where
    a step does not read one but by `dot`.
    """

    outputs: tuple
    states: tuple
    projected: list
    deltas: list
    arguments: list
    sums: list

    def stacked(self):
        return [*self.projected, *self.deltas, *(x for x in self.arguments if not isinstance(x, int))]

    def present_sums(self):
        return [g for g in self.sums if g is not None]


@dataclasses.dataclass
class Loop(Step):
    """The passes over time of one call of `scan`.

    Forward finds `merged`, from the number of a `dot` to that of the part of the projection that its result is added to, where
    neither has another use. Of these only the sum is kept, and the cotangent of the one is that of the other: half the
    memory, and 8 % of a training step of the LSTM at (b, t, d, u) = (16, 200, 64, 128) on two cores.
    """

    return_sequences: bool

    def run(self, keep):
        self.ahead = project_ahead()

        @tf.custom_gradient
        def forward(*args):
            results, kept = self.forward(args, keep)

            def gradient(*cotangents):
                record = kept if keep else self.forward(args, keep=True)[1]
                return self.differentiable_backward(args, cotangents, record)

            return results, gradient

        return forward(*self.args)

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(self, args, keep):
        """`(*outputs, *final states)`, and what backward wants of each step if `keep`."""
        inputs, states, constants, values = self.unpack(args)
        time = self.time(inputs)

        def leave(outputs, old_states, results, projected):
            """What a step leaves on the stacks."""
            left = [*outputs] if self.return_sequences else []
            if not keep:
                return left
            if self.blocked:
                return [*left, *old_states]
            projected = [] if self.ahead else tf.nest.flatten(projected)
            for j, i in self.merged.items():
                projected[i] = merger(results[j])
            return [*left, *old_states, *(r for j, r in enumerate(results) if j not in self.merged), *projected]

        with self.reading(values):
            probe = self.probe(inputs, states, constants)
            self.merged = {} if self.ahead else merged(probe)
            given = self.project(inputs) if self.ahead else inputs
            source = tf.nest.map_structure(unstack, given)
            mask = None if self.mask is None else unstack(tf.transpose(self.mask))

            def body(index, outputs, states, stacks):
                at = self.at(index, time)
                projected = tf.nest.map_structure(lambda s: s.read(at), source)
                if not self.ahead:
                    projected = self.project(projected)
                results = []

                def multiply(x, _):
                    results.append(product(x, probe.kernels[len(results)]))
                    return results[-1]

                with handling(multiply):
                    hidden = None if mask is None else mask.read(at)
                    new_outputs, new_states = self.advance(projected, outputs, states, constants, hidden)
                left = leave(new_outputs, states, results, projected)
                stacks = tuple(s.write(index, v) for s, v in zip(stacks, left, strict=True))
                return index + 1, new_outputs, like(new_states, states), stacks

            stacks = tuple(stack(v, time) for v in leave(probe.outputs, states, probe.results, probe.projected))
            _, outputs, final, stacks = loop(time, body, (probe.outputs, states, stacks))
        stacks = [s.stack() for s in stacks]
        if self.return_sequences:
            steps = tf.nest.flatten(inputs)[0].shape[:1]
            outputs = [swap(tf.ensure_shape(stacks.pop(0), steps + o.shape)) for o in probe.outputs]
        return (*outputs, *final), stacks + (tf.nest.flatten(given) if keep and self.ahead else [])

    # -- backward ----------------------------------------------------------------------------------------------------

    def differentiable_backward(self, args, cotangents, kept):
        """The fused backward; its own gradient, if ever asked for, is that of autodiff through the plain loop."""
        count = len(args)

        @tf.custom_gradient
        def backward(*operands):
            gradients = self.backward(operands[:count], operands[count:], kept)

            def gradient(*second):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(operands)
                    with tf.GradientTape(watch_accessed_variables=False) as inner:
                        inner.watch(operands[:count])
                        results, _ = self.forward(operands[:count], keep=False)
                    first = inner.gradient(
                        results, operands[:count], output_gradients=operands[count:], unconnected_gradients="zero"
                    )
                return tape.gradient(first, operands, output_gradients=second, unconnected_gradients="zero")

            return gradients, gradient

        return backward(*args, *cotangents)

    def backward(self, args, cotangents, kept):
        """Gradients of `args` from the cotangents of `(*outputs, *final states)` and what forward kept."""
        if self.blocked:
            return together.backward(self, args, cotangents, self.return_sequences, kept[: len(self.states)])
        inputs, states, constants, values = self.unpack(args)
        time = self.time(inputs)
        with self.reading(values):
            probe = self.probe(inputs, states, constants)
        transposed = [tf.transpose(k) for k in probe.kernels]
        read_step = self.reader(probe, kept, time)
        doutputs, dstates = tuple(cotangents[: len(probe.outputs)]), tuple(cotangents[len(probe.outputs) :])
        each = [unstack(swap(d)) for d in doutputs] if self.return_sequences else None
        if self.return_sequences:
            doutputs = tuple(tf.zeros_like(o) for o in probe.outputs)

        def pull(index, doutputs, dstates):
            if each is not None:
                doutputs = tuple(d + e.read(index) for d, e in zip(doutputs, each, strict=True))
            step = read_step(index)
            pulled = self.pull(step, probe.outputs, constants, values, transposed, (*doutputs, *dstates))
            return pulled._replace(deltas=[d for j, d in enumerate(pulled.deltas) if j not in self.merged])

        def body(count, doutputs, dstates, totals, stacks):
            index = time - 1 - count
            pulled = pull(index, doutputs, dstates)
            totals = tuple(t + g for t, g in zip(totals, pulled.present_sums(), strict=True))
            # the cotangent of the projection is stacked in order of time, all else in order of processing
            at = self.at(index, time)
            places = [at] * len(pulled.projected) + [index] * (len(stacks) - len(pulled.projected))
            stacks = tuple(s.write(i, v) for s, i, v in zip(stacks, places, pulled.stacked(), strict=True))
            return count + 1, pulled.outputs, like(pulled.states, dstates), totals, stacks

        # a step whose result is not used tells what is connected to what
        example = pull(time - 1, doutputs, dstates)
        totals = tuple(tf.zeros_like(g) for g in example.present_sums())
        stacks = tuple(stack(v, time) for v in example.stacked())
        _, _, dstates, totals, stacks = loop(time, body, (doutputs, dstates, totals, stacks))

        stacks = iter([s.stack() for s in stacks])
        dprojected = [next(stacks) for _ in example.projected]
        deltas = {j: next(stacks) for j in range(len(probe.kernels)) if j not in self.merged}
        places = [i for i, p in enumerate(tf.nest.flatten(probe.projected)) if p.dtype.is_floating]
        for j, i in self.merged.items():
            delta = dprojected[places.index(i)]
            deltas[j] = tf.reverse(delta, [0]) if self.go_backwards else delta
        arguments = [kept[x] if isinstance(x, int) else next(stacks) for x in example.arguments]
        dkernels = [outer(x, deltas[j], probe.kernels[j].dtype) for j, x in enumerate(arguments)]
        totals = iter(totals)
        sums = [None if g is None else next(totals) for g in example.sums]
        inside = [*[None] * (len(args) - len(dstates) - len(sums)), *dstates, *sums]
        outside = self.outside(args, [*dprojected, *dkernels])
        return [g if more is None else g + more for g, more in zip(outside, inside, strict=True)]

    def time(self, inputs):
        """The number of steps."""
        return tf.shape(tf.nest.flatten(inputs)[0])[0]

    def at(self, index, time):
        """The place in order of time of the step at `index` in order of processing."""
        return time - 1 - index if self.go_backwards else index

    def reader(self, probe, kept, time):
        """A function from an index to what was kept of that step: `(projected, states, results, mask)`."""
        stacks = [unstack(k) for k in kept]
        apart = [j for j in range(len(probe.kernels)) if j not in self.merged]
        n, m = len(self.states), len(self.states) + len(apart)
        mask = None if self.mask is None else unstack(tf.transpose(self.mask))

        def read(index):
            at = self.at(index, time)
            # a projection ahead of the loop was stacked in order of time, all else in order of processing
            projected = [s.read(at if self.ahead else index) for s in stacks[m:]]
            results = {j: s.read(index) for j, s in zip(apart, stacks[n:m], strict=True)}
            results |= {j: tf.zeros_like(projected[i]) for j, i in self.merged.items()}
            return _Kept(
                tf.nest.pack_sequence_as(probe.projected, projected),
                tuple(s.read(index) for s in stacks[:n]),
                [results[j] for j in range(len(results))],
                None if mask is None else mask.read(at),
            )

        return read

    def pull(self, kept, outputs, constants, values, transposed, cotangents):
        """Pull the cotangents of a step's `(*outputs, *states)` back to what it came from, by replaying it.

        `outputs` stand for those before, whose values no gradient depends on.
        """
        arguments, deltas = [], [None] * len(transposed)

        def replay(x, _):
            j = len(arguments)
            arguments.append(x)

            @tf.custom_gradient
            def kept_product(x, result):
                def gradient(delta):
                    deltas[j] = delta
                    return product(delta, transposed[j]), None

                return tf.identity(result), gradient

            return kept_product(x, kept.results[j])

        projected = [p for p in tf.nest.flatten(kept.projected) if p.dtype.is_floating]
        floating = [c for c in constants if c.dtype.is_floating]
        sources = [*outputs, *kept.states, *projected, *floating, *values]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*sources, *kept.results])
            with self.reading(values), handling(replay):
                new_outputs, new_states = self.advance(kept.projected, outputs, kept.states, constants, kept.mask)
        gradients = tape.gradient([*new_outputs, *new_states], sources, output_gradients=list(cotangents))
        n = len(outputs) + len(kept.states)
        p = n + len(projected)
        carried = [zeros_unless(g, v) for g, v in zip(gradients[:p], sources[:p], strict=True)]
        return _Pulled(
            tuple(carried[: len(outputs)]),
            tuple(carried[len(outputs) : n]),
            carried[n:],
            [zeros_unless(d, r) for d, r in zip(deltas, kept.results, strict=True)],
            [next((i for i, s in enumerate(kept.states) if x is s), x) for x in arguments],
            gradients[p:],
        )

    def outside(self, args, cotangents):
        """Gradients of `args` from the cotangents of what is made outside the loop: all projections, and the kernels."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(args)
            inputs, states, constants, values = self.unpack(args)
            with self.reading(values):
                projected = [p for p in tf.nest.flatten(self.project(inputs)) if p.dtype.is_floating]
                made = [*projected, *self.probe(inputs, states, constants).kernels]
        return tape.gradient(made, args, output_gradients=cotangents, unconnected_gradients="zero")

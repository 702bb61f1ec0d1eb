"""The loop over time on TensorFlow, with an exact backward pass derived from the step alone.

All inputs are projected by one product before the loop. Forward keeps, per step, the states, the projected inputs and the
results of the `dot`s. Backward walks time in reverse
and replays one step after the other: each `dot` returns its kept result instead of multiplying, automatic
differentiation pulls the cotangents back through that one step, and the cotangent `d` of every `dot` goes on to its
argument as `d @ kernel^T` and onto a stack. After the loop, the gradient of each kernel is one product over all steps
and the rows, `sum_t x_t^T d_t`; so is the gradient of whatever `project` does to the inputs. What a step reads of its
weights without `dot` (peepholes, biases) is summed as the loop goes.

Rows of the batch that have nothing to do with each other may run in lanes, side by side in the same loop. A pass over
time is a generator that yields its loop, so that the loops of all lanes can be run as one.

Every tensor that may need a gradient is an argument of one `tf.custom_gradient` function; a step reads its weights as
attributes all the same, through `keras.StatelessScope`.
"""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from keras_seq.engine import together
from keras_seq.engine.arrays import adjoint, differentiable, like, outer, product, stack, swap, unstack, zeros_unless
from keras_seq.engine.lanes import apart, joined, lanes, side_by_side
from keras_seq.engine.marks import handling
from keras_seq.engine.merge import merged, merger
from keras_seq.engine.step import Step


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

    def other_arguments(self):
        return [x for x in self.arguments if not isinstance(x, int)]

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
    independent: bool

    def run(self, keep):
        @tf.custom_gradient
        def forward(*args):
            results, kept = self.forward(args, keep) if keep else (self.results(args), None)

            def gradient(*cotangents):
                record = kept if keep else self.forward(args, keep=True)[1]
                return self.differentiable_backward(args, cotangents, record)

            return results, gradient

        return forward(*self.args)

    def forward(self, args, keep):
        """`(*outputs, *final states)`, and per lane what backward wants of each step if `keep`."""
        parts = self.parts()
        found = side_by_side([p.forward_pass(a, keep) for p, a in zip(parts, self.args_of(parts, args), strict=True)])
        self.structure = parts[0].structure
        results = joined([results for results, _ in found])
        return results, [(part, kept) for part, (_, kept) in zip(parts, found, strict=True)]

    def results(self, args):
        """`(*outputs, *final states)`, of which backward wants nothing."""
        return self.forward(args, keep=False)[0]

    def backward(self, args, cotangents, kept):
        """Gradients of `args` from the cotangents of `(*outputs, *final states)` and what forward kept."""
        parts = [part for part, _ in kept]
        each = zip(parts, self.args_of(parts, args), apart(cotangents, len(parts)), kept, strict=True)
        if self.blocked:
            n = len(self.states)
            found = [together.backward(p, a, c, self.return_sequences, k[:n]) for p, a, c, (_, k) in each]
        else:
            found = side_by_side([p.backward_pass(a, c, k) for p, a, c, (_, k) in each])
        return joined(found, rows=len(args) - len(self.weights))

    def parts(self):
        """This loop over the rows of each lane."""
        count = lanes(self.given[0].shape[0], self.weights) if self.independent else 1
        if count == 1:
            return [self]
        found = []
        for rows in zip(
            *(apart(tf.nest.flatten(x), count) for x in (self.inputs, self.states, self.constants)),
            [None] * count if self.mask is None else [m for (m,) in apart([self.mask], count)],
            strict=True,
        ):
            inputs, states, constants, mask = rows
            inputs = tf.nest.pack_sequence_as(self.inputs, inputs)
            given = {"inputs": inputs, "states": tuple(states), "constants": tuple(constants), "mask": mask}
            found.append(dataclasses.replace(self, **given))
        return found

    def args_of(self, parts, args):
        """The `args` of each part: its rows of all that is given, and the same weights."""
        n = len(args) - len(self.weights)
        return [[*rows, *args[n:]] for rows in apart(args[:n], len(parts))]

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward_pass(self, args, keep):
        """`(*outputs, *final states)`, and what backward wants of each step if `keep`; its loop it yields."""
        inputs, states, constants, values = self.unpack(args)
        time = self.time(inputs)

        def leave(outputs, old_states, results):
            """What a step leaves on the stacks."""
            left = [*outputs] if self.return_sequences else []
            if keep:
                left += old_states
            if keep and not self.blocked:
                left += [r for j, r in enumerate(results) if j not in self.merged]
            return left

        with self.reading(values):
            probe = self.probe(inputs, states, constants)
            self.merged = merged(probe)
            projected = tuple(unstack(x) for x in tf.nest.flatten(self.project(inputs)))
        # where only the sum of a product and its part of the projection is kept, it takes the place of that part
        sums = projected if keep and not self.blocked and self.merged else ()
        mask = None if self.mask is None else unstack(tf.transpose(self.mask))
        stacks = tuple(stack(v, time) for v in leave(probe.outputs, states, probe.results))

        def read(projected, index):
            """The projection of the step at `index`, flat."""
            at = self.at(index, time)
            return tuple(p.read(at) for p in projected)

        def body(index, outputs, states, here, sums, stacks):
            at = self.at(index, time)
            results = []

            def multiply(x, _):
                results.append(product(x, probe.kernels[len(results)]))
                return results[-1]

            with self.reading(values), handling(multiply):
                own, hidden = tf.nest.pack_sequence_as(probe.projected, here), None if mask is None else mask.read(at)
                new_outputs, new_states = self.advance(own, outputs, states, constants, hidden)
            if sums:
                new = {i: merger(results[j]) for j, i in self.merged.items()}
                sums = tuple(s.write(at, new[i]) if i in new else s for i, s in enumerate(sums))
            left = leave(new_outputs, states, results)
            stacks = tuple(s.write(index, v) for s, v in zip(stacks, left, strict=True))
            # read after the write, for the next step: else XLA may copy a whole stack to read from while it writes
            here = like(read(sums or projected, tf.minimum(index + 1, time - 1)), here)
            return new_outputs, like(new_states, states), here, sums, stacks

        carried = (probe.outputs, states, read(projected, 0), sums, stacks)
        outputs, final, _, sums, stacks = yield time, body, carried
        stacks = [s.stack() for s in stacks]
        if self.return_sequences:
            steps = tf.nest.flatten(inputs)[0].shape[:1]
            outputs = [swap(tf.ensure_shape(stacks.pop(0), steps + o.shape)) for o in probe.outputs]
        if keep and not self.blocked:
            stacks += [p.stack() for p in sums or projected]
        return (*outputs, *final), stacks

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

    def backward_pass(self, args, cotangents, kept):
        """Gradients of `args` from the cotangents of `(*outputs, *final states)` and what forward kept; its loop it yields."""
        inputs, states, constants, values = self.unpack(args)
        time = self.time(inputs)
        with self.reading(values):
            probe = self.probe(inputs, states, constants)
        transposed = [adjoint(k) for k in probe.kernels]
        masked = None if self.mask is None else unstack(tf.transpose(self.mask))
        stacks = [unstack(k) for k in kept]
        before, own = stacks[: len(states)], tuple(stacks[len(states) :])
        separate = [j for j in range(len(probe.kernels)) if j not in self.merged]
        floating = [differentiable(p) for p in tf.nest.flatten(probe.projected)]
        doutputs, dstates = tuple(cotangents[: len(probe.outputs)]), tuple(cotangents[len(probe.outputs) :])
        each = [unstack(swap(d)) for d in doutputs] if self.return_sequences else []
        last = () if self.return_sequences or self.mask is not None else doutputs
        if self.mask is None:  # only a mask lets an output go on to the next step
            doutputs = ()
        elif each:
            doutputs = tuple(tf.zeros_like(o) for o in probe.outputs)

        def places(index):
            """Projections are in order of time, all else is in order of processing."""
            return [index] * len(separate) + [self.at(index, time)] * len(floating)

        def read(own, index):
            return tuple(s.read(place) for s, place in zip(own, places(index), strict=True))

        def pull(index, doutputs, dstates, here):
            results, projected = dict(zip(separate, here, strict=False)), here[len(separate) :]
            results |= {j: tf.zeros_like(projected[i]) for j, i in self.merged.items()}
            step = _Kept(
                tf.nest.pack_sequence_as(probe.projected, projected),
                tuple(s.read(index) for s in before),
                [results[j] for j in range(len(results))],
                None if masked is None else masked.read(self.at(index, time)),
            )
            now = [e.read(index) for e in each] or [tf.where(index == time - 1, d, tf.zeros_like(d)) for d in last]
            dnow = [d + e for d, e in zip(doutputs, now, strict=True)] if each and doutputs else now or doutputs
            return self.pull(step, probe.outputs, constants, values, transposed, (*dnow, *dstates))

        def body(index, doutputs, dstates, totals, here, own, stacks):
            index = time - 1 - index
            pulled = pull(index, doutputs, dstates, here)
            totals = tuple(t + g for t, g in zip(totals, pulled.present_sums(), strict=True))
            # what was kept of a step is not read again: its cotangent takes its place
            new = iter(pulled.projected)
            new = [*(pulled.deltas[j] for j in separate), *(next(new) if f else None for f in floating)]
            own = tuple(s if v is None else s.write(p, v) for s, p, v in zip(own, places(index), new, strict=True))
            # again read after the write
            here = like(read(own, tf.maximum(index - 1, 0)), here)
            stacks = tuple(s.write(index, v) for s, v in zip(stacks, pulled.other_arguments(), strict=True))
            return pulled.outputs[: len(doutputs)], like(pulled.states, dstates), totals, here, own, stacks

        # a step whose result is not used tells what is connected to what
        here = read(own, time - 1)
        example = pull(time - 1, doutputs, dstates, here)
        totals = tuple(tf.zeros_like(g) for g in example.present_sums())
        stacks = tuple(stack(v, time) for v in example.other_arguments())
        _, dstates, totals, _, own, stacks = yield time, body, (doutputs, dstates, totals, here, own, stacks)

        own = [s.stack() for s in own]
        deltas, dprojected = dict(zip(separate, own, strict=False)), own[len(separate) :]
        for j, i in self.merged.items():
            deltas[j] = tf.reverse(dprojected[i], [0]) if self.go_backwards else dprojected[i]
        stacks = (s.stack() for s in stacks)
        arguments = [kept[x] if isinstance(x, int) else next(stacks) for x in example.arguments]
        dkernels = [outer(x, deltas[j], probe.kernels[j].dtype) for j, x in enumerate(arguments)]
        dprojected = [d for d, f in zip(dprojected, floating, strict=True) if f]
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

        projected = [p for p in tf.nest.flatten(kept.projected) if differentiable(p)]
        floating = [c for c in constants if differentiable(c)]
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
                projected = [p for p in tf.nest.flatten(self.project(inputs)) if differentiable(p)]
                made = [*projected, *self.probe(inputs, states, constants).kernels]
        return tape.gradient(made, args, output_gradients=cotangents, unconnected_gradients="zero")

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

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# Mixed precision: the type that Keras casts weights to while a layer runs. Keras exports neither of the two.
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope

from keras_seq.engine.dot import handling


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
):
    """Run `step` over the time axis of `inputs`; differentiable once by the fused backward, and further by autodiff.

        p_t = project(x_t);   y_t, s_t = step(p_t, s_{t-1}, constants)

    A step that `mask` hides leaves the states as they were and repeats the last output (zeros before the first one, or
    always with `zero_output_for_mask`); the inputs there are read as zeros, so that no NaN of theirs reaches a gradient.

    Args:
        project: function of tensors (..., d), on any leading axes; returns a tensor or a nest of tensors.
        step: function `(projected, states, constants) -> (output, new_states)`.
        inputs: tensor (b, t, d...).
        states: tensors (b, ...), the initial states.
        constants: tensors that do not change in time; those of floating type get gradients.
        weights: Keras variables that `project` and `step` read.
        mask: boolean tensor (b, t), True for real steps, or None.
        go_backwards: read time in reverse; the outputs come in the order of processing.
        return_sequences: return all outputs, (b, t, ...), else the last one, (b, ...).
        zero_output_for_mask: as above.
        keep: keep what the backward pass needs. If False, a gradient is as right, but runs the loop again first.

    Returns:
        `(outputs, states)`, states as a tuple.

    Raises:
        ValueError: a step that returns states of another number, shape or type than it got, or calls `dot` with a kernel
            that is no matrix or depends on a state or an input.
    """
    states, constants = tuple(states), tuple(constants)
    loop = _Loop(
        project, step, len(states), constants, weights, mask, go_backwards, return_sequences, zero_output_for_mask
    )
    results = loop.run(keep, inputs, states)
    return results[0], tuple(results[1:])


def project_ahead():
    """Whether to project all inputs by one product before the loop (GPU), or each step's inside it (faster on CPU)."""
    return bool(tf.config.list_physical_devices("GPU"))


class _Probe(NamedTuple):
    """What one step shows: the kernels and results of its `dot`s in order, its projected input, its output as zeros."""

    kernels: list
    results: list
    projected: Any
    output: tf.Tensor


@dataclasses.dataclass
class _Loop:
    """One call of `scan`: what does not depend on the differentiable arguments, and the passes over time.

    The passes take `args`: inputs, initial states, constants and weights of floating type, flat.
    """

    project: Callable
    step: Callable
    state_count: int
    constants: tuple
    weights: tuple
    mask: tf.Tensor | None
    go_backwards: bool
    return_sequences: bool
    zero_output_for_mask: bool

    def run(self, keep, inputs, states):
        constants = [tf.convert_to_tensor(c) for c in self.constants]
        self.floating = [c.dtype.is_floating for c in constants]
        self.constants = constants
        self.weights = [w for w in self.weights if tf.as_dtype(w.dtype).is_floating]
        self.ahead = project_ahead()

        @tf.custom_gradient
        def forward(*args):
            results, kept = self.forward(args, keep)

            def gradient(*cotangents):
                record = kept if keep else self.forward(args, keep=True)[1]
                return self.differentiable_backward(args, cotangents, record)

            return results, gradient

        sizes = tf.shape(inputs)[:2]
        states = [_leading(s, sizes[:1], inputs.shape[:1], "initial_state") for s in states]
        if self.mask is not None:
            self.mask = _leading(self.mask, sizes, inputs.shape[:2], "mask")
        floating = [c for c in constants if c.dtype.is_floating]
        scope = get_autocast_scope()
        self.weight_dtype = scope and scope.dtype
        with AutocastScope(None):  # the weights as they are, so that their gradients are not rounded
            args = [tf.convert_to_tensor(v) for v in [inputs, *states, *floating, *self.weights]]
        return forward(*args)

    # -- one step ----------------------------------------------------------------------------------------------------

    def unpack(self, args):
        """inputs in order of time, states, all constants, values of the weights."""
        inputs, *rest = args
        states, rest = rest[: self.state_count], iter(rest[self.state_count :])
        constants = [next(rest) if floating else c for c, floating in zip(self.constants, self.floating, strict=True)]
        axes = [1, 0, *range(2, len(inputs.shape))]
        inputs = tf.transpose(inputs, axes)
        if self.mask is not None:
            mask = _column(tf.transpose(self.mask), inputs)
            inputs = tf.where(mask, inputs, tf.zeros_like(inputs))
        return inputs, tuple(states), tuple(constants), list(rest)

    @contextlib.contextmanager
    def reading(self, values):
        """A scope in which the weights have these values, cast as they were when the layer was called."""
        mapping = list(zip(self.weights, values, strict=True))
        cast = AutocastScope(self.weight_dtype) if self.weight_dtype else contextlib.nullcontext()
        with keras.StatelessScope(state_mapping=mapping), cast:
            yield

    def advance(self, projected, output, states, constants, mask):
        """One step under a mask: `(new output, new states)` from the last ones."""
        new_output, new_states = self.step(projected, states, constants)
        new_states = _tuple(new_states)
        if mask is not None:
            hidden = tf.zeros_like(new_output) if self.zero_output_for_mask else output
            new_output = tf.where(_column(mask, new_output), new_output, hidden)
            new_states = tuple(
                tf.where(_column(mask, new), new, old) for new, old in zip(new_states, states, strict=True)
            )
        return new_output, new_states

    def probe(self, inputs, states, constants):
        """Take one unmasked step outside the loop, for what the loop must know before it starts."""
        kernels, results = [], []

        def record(x, kernel):
            kernel = tf.convert_to_tensor(kernel)
            if len(kernel.shape) != 2:
                raise ValueError(f"kernel of dot: expected a matrix, got shape {tuple(kernel.shape)}")
            kernels.append(kernel)
            results.append(_matmul(x, kernel))
            return results[-1]

        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape, handling(record):
            tape.watch([inputs, *states])
            projected = self.project(inputs[0])
            output, new_states = self.step(projected, states, constants)
        if any(g is not None for k in kernels for g in tape.gradient(k, [inputs, *states])):
            raise ValueError(
                "kernel of dot: expected a matrix made of weights and constants alone, got one that depends on a state "
                "or an input; use keras.ops.matmul for such a product"
            )
        _check_states(states, _tuple(new_states))
        return _Probe(kernels, results, projected, tf.zeros_like(output))

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(self, args, keep):
        """`(outputs, *final states)`, and what backward wants of each step if `keep`."""
        inputs, states, constants, values = self.unpack(args)
        time = tf.shape(inputs)[0]

        def leave(output, old_states, results, projected):
            """What a step leaves on the stacks."""
            left = [output] if self.return_sequences else []
            left += [*old_states, *results] if keep else []
            return left + (tf.nest.flatten(projected) if keep and not self.ahead else [])

        with self.reading(values):
            probe = self.probe(inputs, states, constants)
            source = _map(_unstack, self.project(inputs) if self.ahead else inputs)
            mask = None if self.mask is None else _unstack(tf.transpose(self.mask))

            def body(index, output, states, stacks):
                at = time - 1 - index if self.go_backwards else index
                projected = _map(lambda s: s.read(at), source)
                if not self.ahead:
                    projected = self.project(projected)
                results = []

                def product(x, _):
                    results.append(_matmul(x, probe.kernels[len(results)]))
                    return results[-1]

                with handling(product):
                    hidden = None if mask is None else mask.read(at)
                    new_output, new_states = self.advance(projected, output, states, constants, hidden)
                left = leave(new_output, states, results, projected)
                stacks = tuple(s.write(index, v) for s, v in zip(stacks, left, strict=True))
                return index + 1, new_output, _like(new_states, states), stacks

            stacks = tuple(_stack(v, time) for v in leave(probe.output, states, probe.results, probe.projected))
            _, output, final, stacks = _while(time, body, (probe.output, states, stacks))
        stacks = [s.stack() for s in stacks]
        outputs = _swap(stacks.pop(0)) if self.return_sequences else output
        if keep and self.ahead:
            with self.reading(values):
                stacks += tf.nest.flatten(self.project(inputs))
        return (outputs, *final), stacks

    # -- backward ----------------------------------------------------------------------------------------------------

    def differentiable_backward(self, args, cotangents, kept):
        """The fused backward; its own gradient, if ever asked for, is that of autodiff through the plain loop."""
        count = len(args)

        @tf.custom_gradient
        def backward(*operands):
            gradients = self.backward(operands[:count], operands[count:], kept)

            def gradient(*second):
                with tf.GradientTape(watch_accessed_variables=False) as outer:
                    outer.watch(operands)
                    with tf.GradientTape(watch_accessed_variables=False) as inner:
                        inner.watch(operands[:count])
                        results, _ = self.forward(operands[:count], keep=False)
                    first = inner.gradient(
                        results, operands[:count], output_gradients=operands[count:], unconnected_gradients="zero"
                    )
                return outer.gradient(first, operands, output_gradients=second, unconnected_gradients="zero")

            return gradients, gradient

        return backward(*args, *cotangents)

    def backward(self, args, cotangents, kept):
        """Gradients of `args` from the cotangents of `(outputs, *final states)`."""
        inputs, states, constants, values = self.unpack(args)
        time = tf.shape(inputs)[0]
        doutputs, *dstates = cotangents
        with self.reading(values):
            kernels, _, example, output = self.probe(inputs, states, constants)
            transposed = [tf.transpose(k) for k in kernels]
            sums = [c for c in constants if c.dtype.is_floating] + values
            n, m = len(states), len(states) + len(kernels)
            record = [_unstack(k) for k in kept]
            mask = None if self.mask is None else _unstack(tf.transpose(self.mask))

            def pull(index, doutput, dstates):
                """Pull cotangents back through the step at `index`."""
                at = time - 1 - index if self.go_backwards else index
                # a projection ahead of the loop is stacked in order of time, all else in order of processing
                old = tuple(s.read(index) for s in record[:n])
                results = [s.read(index) for s in record[n:m]]
                projected = [s.read(at if self.ahead else index) for s in record[m:]]
                arguments, deltas = [], [None] * len(kernels)

                def replay(x, _):
                    j = len(arguments)
                    arguments.append(x)

                    @tf.custom_gradient
                    def kept_product(x, result):
                        def gradient(delta):
                            deltas[j] = delta
                            return _matmul(delta, transposed[j]), None

                        return tf.identity(result), gradient

                    return kept_product(x, results[j])

                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch([output, *old, *projected, *results, *sums])
                    with self.reading(sums[len(sums) - len(values) :]), handling(replay):
                        new_output, new_states = self.advance(
                            tf.nest.pack_sequence_as(example, projected),
                            output,
                            old,
                            constants,
                            None if mask is None else mask.read(at),
                        )
                gradients = tape.gradient(
                    [new_output, *new_states], [output, *old, *projected, *sums], output_gradients=[doutput, *dstates]
                )
                deltas = [tf.zeros_like(r) if d is None else d for d, r in zip(deltas, results, strict=True)]
                p = 1 + n + len(projected)
                dprojected = [
                    tf.zeros_like(v) if g is None else g for g, v in zip(gradients[1 + n : p], projected, strict=True)
                ]
                derived = [
                    x for x in arguments if not any(x is s for s in old)
                ]  # what is a state is on a stack already
                sources = [next((i for i, s in enumerate(old) if x is s), None) for x in arguments]
                zeros = [output, *old]
                dcarry = [tf.zeros_like(v) if g is None else g for g, v in zip(gradients[: 1 + n], zeros, strict=True)]
                return at, dcarry, dprojected, deltas, derived, sources, gradients[p:]

            first = time - 1
            zero = tf.zeros_like(output)
            dlast = zero if self.return_sequences else doutputs
            doutputs = _unstack(_swap(doutputs)) if self.return_sequences else None

            def at_step(index, dlast, dstates):
                return pull(index, dlast if doutputs is None else dlast + doutputs.read(index), dstates)

            # one step whose result is not used tells what is connected to what
            _, _, dprojected, deltas, derived, sources, dsums = at_step(first, dlast, dstates)
            connected = [g is not None for g in dsums]
            stacks = tuple(_stack(v, time) for v in [*dprojected, *deltas, *derived])

            def body(k, dlast, dstates, totals, stacks):
                index = first - k
                at, (dlast, *dstates_new), dprojected, deltas, derived, _, dsums = at_step(index, dlast, dstates)
                # the projection's cotangent is stacked in order of time, the rest in order of processing
                places = [at] * len(dprojected) + [index] * (len(deltas) + len(derived))
                left = [*dprojected, *deltas, *derived]
                stacks = tuple(s.write(i, v) for s, i, v in zip(stacks, places, left, strict=True))
                dsums = [g for g in dsums if g is not None]
                totals = tuple(t + g for t, g in zip(totals, dsums, strict=True))
                return k + 1, dlast, _like(dstates_new, dstates), totals, stacks

            totals = tuple(tf.zeros_like(v) for v, c in zip(sums, connected, strict=True) if c)
            dstates = tuple(dstates)
            _, _, dstates, totals, stacks = _while(time, body, (dlast, dstates, totals, stacks))
        stacks = [s.stack() for s in stacks]
        dprojected, stacks = stacks[: len(dprojected)], stacks[len(dprojected) :]
        deltas, derived = stacks[: len(kernels)], iter(stacks[len(kernels) :])
        dkernels = [_outer(next(derived) if s is None else kept[s], d) for s, d in zip(sources, deltas, strict=True)]

        # what lies outside the loop: the projection of all inputs, and the making of the kernels from the weights
        leaves = list(args)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(leaves)
            inputs, states, constants, values = self.unpack(leaves)
            with self.reading(values):
                projected = tf.nest.flatten(self.project(inputs))
                kernels = self.probe(inputs, states, constants).kernels
        gradients = tape.gradient(
            [*projected, *kernels], leaves, output_gradients=[*dprojected, *dkernels], unconnected_gradients="zero"
        )
        totals = iter(totals)
        dsums = [next(totals) if c else None for c in connected]
        inside = [None, *dstates, *dsums]
        return [g if extra is None else g + extra for g, extra in zip(gradients, inside, strict=True)]


def _leading(x, sizes, static, name):
    """`x`, made sure that its leading axes have these sizes, where that is not known before the graph runs."""
    x, known = tf.convert_to_tensor(x), len(static)
    if static.is_fully_defined() and x.shape[:known].is_fully_defined():
        return x  # the layer has compared them
    message = f"{name}: expected leading axes like those of the inputs"
    check = tf.debugging.assert_equal(tf.shape(x)[:known], sizes, message=message)
    with tf.control_dependencies([check] if check is not None else []):
        # XLA drops the assertion, but cannot reshape to another size
        shaped = tf.reshape(x, tf.concat([sizes, tf.shape(x)[known:]], 0))
    return tf.ensure_shape(shaped, static.concatenate(x.shape[known:]))


def _tuple(states):
    return tuple(states) if isinstance(states, (list, tuple)) else (states,)


def _while(time, body, carried):
    """Run `body(index, *carried) -> (index + 1, *carried)` for every index below `time`."""
    return tf.while_loop(lambda index, *_: index < time, body, (tf.constant(0), *carried), maximum_iterations=time)


def _matmul(x, kernel):
    return tf.matmul(x, kernel) if len(x.shape) == 2 else tf.tensordot(x, kernel, 1)


def _outer(x, delta):
    """sum over all leading axes of x^T delta."""
    flat = [tf.reshape(v, (-1, v.shape[-1])) for v in (x, delta)]
    return tf.matmul(*flat, transpose_a=True)


def _map(function, nest):
    return tf.nest.map_structure(function, nest)


def _swap(x):
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def _column(mask, like):
    """`mask` with as many axes as `like`."""
    return tf.reshape(mask, tf.concat([tf.shape(mask), [1] * (len(like.shape) - len(mask.shape))], 0))


def _unstack(x):
    return tf.TensorArray(x.dtype, size=tf.shape(x)[0], element_shape=x.shape[1:], clear_after_read=False).unstack(x)


def _stack(example, time):
    return tf.TensorArray(example.dtype, size=time, element_shape=example.shape)


def _like(tensors, examples):
    """The tensors with the static shapes of the examples (a loop must not lose what it knew of its shapes)."""
    return tuple(tf.ensure_shape(t, e.shape) for t, e in zip(tensors, examples, strict=True))


def _check_states(old, new):
    def say(states):
        return [f"{tuple(s.shape)} {tf.as_dtype(s.dtype).name}" for s in states]

    same = len(old) == len(new) and all(
        o.shape.is_compatible_with(s.shape) and o.dtype == s.dtype for o, s in zip(old, new, strict=False)
    )
    if not same:
        raise ValueError(f"step: expected new states like the old ones, {say(old)}, got {say(new)}")

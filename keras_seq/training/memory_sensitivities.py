"""A recurrent layer as a loop over time that carries its states and their derivatives by the weights of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from keras import tree

from keras_seq.cells.base import Cell
from keras_seq.cells.functional import functions_of
from keras_seq.engine import functional
from keras_seq.engine.tensorflow.arrays import column, known_shape, like, loop, size, stack, swap, unstack
from keras_seq.engine.tensorflow.step import run_step
from keras_seq.typing import Tensor


class Dual(NamedTuple):
    """A tensor, and its derivatives by p weights, (.., p); None where it depends on none."""

    value: Tensor
    derivatives: Tensor | None


class MemoryLoop:
    """What a recurrent layer puts out, with derivatives:

        d[y_t, s_t] = A_t ds_{t-1} + B_t dx_t + C_t

    where A, B and C, the derivatives of one step by its states, its input and its weights, come from replaying the step
    backwards once for each entry of [y_t, s_t].

    Args:
        layer: a built recurrent layer of keras_seq or of Keras.
        places: for each trainable weight of its cell, in order, the number of its first entry among all, and its value.
        size: p, the number of all entries.
    """

    def __init__(self, layer: Any, places: Sequence[tuple[int, Tensor]], size: int) -> None:
        self.layer, self.places, self.size = layer, places, size
        self.step, variables = pure_step(layer.cell)
        self.values = [tf.convert_to_tensor(v) for v in variables]
        self.trained = [value for _, value in places]

    def run(
        self, sequences: Dual, states: Sequence[Dual], mask: Tensor | None, targets: Tensor | None
    ) -> tuple[Dual, list[Dual]]:
        """`(outputs, final states)`; the first steps are fed the targets (b, w, k), if there are any, the others their own."""
        mask = None if mask is None else self._steps(tf.cast(mask, "bool"))
        x = Dual(*(None if part is None else self._steps(part) for part in sequences))
        last, final, made = self._loop(x, None if targets is None else self._steps(targets), mask, list(states))
        return (Dual(*map(swap, made)) if made else last), final

    def _steps(self, x):
        """(b, t, ...) as (t, b, ...), in the order of processing."""
        return tf.reverse(swap(x), [0]) if self.layer.go_backwards else swap(x)

    def _loop(self, x, targets, mask, states):
        """`(the last output, the states, the outputs of all steps if the layer returns them)`."""
        time = size(x.value, 0)
        known, targets = self._padded(targets, time)
        read = {name: unstack(v, time) for name, v in self._named(x.value, targets).items()}
        dx = None if x.derivatives is None else unstack(x.derivatives, time)
        shown = None if mask is None else unstack(mask, time)
        first = {name: v[0] for name, v in self._named(x.value, targets).items()}
        zeros = tf.zeros_like(self.step(self.values, first, [s.value for s in states])[0])
        last = Dual(zeros, no_derivatives(zeros, self.size))
        stacks = tuple(stack(part, time) for part in last) if self.layer.return_sequences else ()

        def body(t, last, states, stacks):
            now = {name: array.read(t) for name, array in read.items()}
            own = None if known is None else t >= known
            output, new = self._step(now, None if dx is None else dx.read(t), own, states)
            if shown is not None:
                real = shown.read(t)
                hidden = tf.nest.map_structure(tf.zeros_like, last) if self._zeroes else last
                output, new = (
                    _where(real, output, hidden),
                    [_where(real, n, s) for n, s in zip(new, states, strict=True)],
                )
            flat = like(tree.flatten((output, new)), tree.flatten((last, states)))
            output, new = tree.pack_sequence_as((last, states), list(flat))
            return t + 1, output, new, tuple(s.write(t, v) for s, v in zip(stacks, output, strict=False))

        _, last, states, stacks = loop(time, body, (last, states, stacks))
        return last, states, [s.stack() for s in stacks]

    @property
    def _zeroes(self):
        return self.layer.zero_output_for_mask and self.layer.return_sequences

    def _padded(self, targets, time):
        """`(how many steps have targets, where it may not be all, targets of all steps)`."""
        if targets is None or not getattr(self.layer, "closed", False):
            return None, targets
        known = tf.shape(targets)[0]
        return known, tf.pad(targets, [[0, time - known], [0, 0], [0, 0]])

    def _named(self, inputs, targets):
        return {"inputs": inputs} if targets is None else {"inputs": inputs, "targets": targets}

    def _step(self, now, dx, own, states):
        """The output and the new states of a step, with their derivatives.

        Where `own` is true the output is fed back in the place of the targets: its derivatives go on as theirs.
        """
        values, carried = [s.value for s in states], tf.concat([s.derivatives for s in states], axis=1)
        if own is not None:
            output, _ = self.step(self.values, {"inputs": now["inputs"]}, values)
            now = {**now, "targets": tf.where(own, output, now["targets"])}
        output, new = self.step(self.values, now, values)
        results = list({id(y): y for y in (output, *new)}.values())
        widths = [y.shape[-1] for y in results]
        wanted = [name for name, changes in (("inputs", dx), ("targets", own)) if changes is not None]
        of_states, of, of_weights = self._local(now, values, sum(widths), wanted)
        derivatives = tf.matmul(of_states, carried) + of_weights
        if dx is not None:
            derivatives += tf.matmul(of["inputs"], dx)
        if own is not None:
            fed = tf.matmul(of["targets"], derivatives[:, : widths[0]])
            derivatives += tf.where(own, fed, tf.zeros_like(fed))
        found = {id(y): Dual(y, d) for y, d in zip(results, tf.split(derivatives, widths, axis=1), strict=True)}
        return found[id(output)], [found[id(s)] for s in new]

    def _local(self, now, states, width, wanted):
        """The derivatives (b, r, ..) of all results of a step, side by side: by states, by what is wanted, by weights."""
        rows = size(states[0], 0)

        def one(given):
            now, states, cotangent = tf.nest.map_structure(lambda v: v[None], given)
            sources = [*states, *(now[name] for name in wanted), *self.trained]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                output, new = self.step(self.values, now, states)
                joined = tf.concat(list({id(y): y for y in (output, *new)}.values()), axis=-1)
            found = tape.gradient(joined, sources, output_gradients=cotangent, unconnected_gradients="zero")
            return [tf.reshape(g, (-1,)) for g in found]

        repeated = tf.nest.map_structure(lambda v: tf.repeat(v, width, axis=0), (now, list(states)))
        found = tf.vectorized_map(one, (*repeated, tf.tile(tf.eye(width, dtype=states[0].dtype), [rows, 1])))
        each = [s.shape[-1] for s in states] + [now[name].shape[-1] for name in wanted]
        each += [math.prod(w.shape) for w in self.trained]
        found = [tf.reshape(g, (rows, width, entries)) for g, entries in zip(found, each, strict=True)]
        n = len(states) + len(wanted)
        by_name = dict(zip(wanted, found[len(states) : n], strict=True))
        return tf.concat(found[: len(states)], -1), by_name, self._placed(found[n:], (rows, width), states[0].dtype)

    def _placed(self, derivatives, sizes, dtype):
        """Derivatives by the weights of the cell as derivatives by all."""
        parts, at = [], 0
        for (first, value), derivative in sorted(
            zip(self.places, derivatives, strict=True), key=lambda pair: pair[0][0]
        ):
            parts += [tf.zeros((*sizes, first - at), dtype)] * (first > at) + [derivative]
            at = first + math.prod(value.shape)
        parts += [tf.zeros((*sizes, self.size - at), dtype)] * (self.size > at)
        return tf.concat(parts, axis=-1)


def no_derivatives(x: Tensor, directions: int) -> Tensor:
    """Zeros (.., directions), for a tensor that depends on no weight."""
    return known_shape(tf.zeros(tf.concat([tf.shape(x), [directions]], 0), x.dtype), (*x.shape, directions))


def pure_step(cell: Any) -> tuple[Callable[..., Any], list[Any]]:
    """`(step(weights, {"inputs": x, ..}, states) -> (output, new states), the variables that the weights are of)`."""
    if isinstance(cell, Cell):
        functions = functions_of(cell)
        read = functional(cell.run_readout, functions.variables)

        def step(weights, now, states):
            output, new = run_step(functions.step, weights, functions.project(weights, now), states, ())
            return read(weights, output["output"]), new

        return step, functions.variables
    size, variables = cell.state_size, cell.trainable_variables
    size = list(size) if isinstance(size, (list, tuple)) else [size]
    call = functional(cell, variables)

    def step_of_keras(weights, now, states):
        output, new = call(weights, now["inputs"], tree.pack_sequence_as(size, list(states)))
        return output, tree.flatten(new)

    return step_of_keras, variables


def _where(mask, new, old):
    return Dual(*(tf.where(column(mask, n), n, o) for n, o in zip(new, old, strict=True)))

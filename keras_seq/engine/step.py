"""One step as the loop over time sees it: what it reads, and how it is taken under a mask."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_seq.engine.arrays import column, differentiable, product, swap
from keras_seq.engine.marks import handling


class Probe(NamedTuple):
    """What one step shows: kernels and results of its `dot`s in order, projected input, what it returns, outputs as zeros."""

    kernels: list
    results: list
    projected: Any
    returned: list
    outputs: tuple


@dataclasses.dataclass
class Step:
    """The step of one call of `scan`, as a function of `args`: what may need a gradient, flat.

    Those of floating or complex type among all that is `given`, namely the inputs (a nest), the initial states and the
    constants, then the weights. Its outputs, a nest too, are a flat tuple from here on.
    """

    project: Callable
    step: Callable
    inputs: Any
    states: tuple
    constants: tuple
    weights: tuple
    mask: tf.Tensor | None
    go_backwards: bool
    zero_output_for_mask: bool
    blocked: bool

    def __post_init__(self):
        given = [tf.convert_to_tensor(x) for x in [*tf.nest.flatten(self.inputs), *self.states, *self.constants]]
        # a tensor given twice is two arguments, each with a gradient of its own
        self.given = [tf.identity(x) if any(x is y for y in given[:i]) else x for i, x in enumerate(given)]
        self.floating = [differentiable(x) for x in self.given]
        self.weights = [w for w in self.weights if differentiable(w)]

    @property
    def args(self):
        return [x for x, floating in zip(self.given, self.floating, strict=True) if floating] + [
            tf.convert_to_tensor(w) for w in self.weights
        ]

    def fill(self, args):
        """inputs, flat, states, all constants, values of the weights."""
        args = iter(args)
        given = [next(args) if floating else x for x, floating in zip(self.given, self.floating, strict=True)]
        n = len(given) - len(self.states) - len(self.constants)
        states, constants = given[n : n + len(self.states)], given[n + len(self.states) :]
        return given[:n], tuple(states), tuple(constants), list(args)

    def unpack(self, args):
        """inputs in order of time, states, all constants, values of the weights."""
        inputs, states, constants, values = self.fill(args)
        inputs = [swap(x) for x in inputs]
        if self.mask is not None:
            mask = tf.transpose(self.mask)
            inputs = [tf.where(column(mask, x), x, tf.zeros_like(x)) for x in inputs]
        return tf.nest.pack_sequence_as(self.inputs, inputs), states, constants, values

    def reading(self, values):
        """A scope in which the weights have these values."""
        return keras.StatelessScope(state_mapping=list(zip(self.weights, values, strict=True)))

    def take(self, projected, states, constants):
        """One step, `(outputs, new states)`, both flat."""
        if self.blocked:
            states = tuple(tf.stop_gradient(s) for s in states)
        output, new_states = self.step(projected, states, constants)
        self.structure = tf.nest.map_structure(lambda _: None, output)
        new_states = tuple(new_states) if isinstance(new_states, (list, tuple)) else (new_states,)
        return tuple(tf.nest.flatten(output)), new_states

    def advance(self, projected, outputs, states, constants, mask):
        """One step under a mask: `(new outputs, new states)` from the last ones."""
        new_outputs, new_states = self.take(projected, states, constants)
        if mask is not None:
            hidden = [tf.zeros_like(o) for o in outputs] if self.zero_output_for_mask else outputs
            new_outputs, new_states = (
                tuple(tf.where(column(mask, n), n, o) for n, o in zip(new, old, strict=True))
                for new, old in ((new_outputs, hidden), (new_states, states))
            )
        return new_outputs, new_states

    def probe(self, inputs, states, constants):
        """Take one unmasked step outside the loop, for what the loop must know before it starts."""
        kernels, results = [], []

        def record(x, kernel):
            kernel = tf.convert_to_tensor(kernel)
            kernels.append(kernel)
            results.append(product(x, kernel))
            return results[-1]

        first = tf.nest.map_structure(lambda x: x[0], inputs)
        sources = [x for x in [*tf.nest.flatten(first), *states] if differentiable(x)]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape, handling(record):
            tape.watch(sources)
            projected = self.project(first)
            outputs, new_states = self.take(projected, states, constants)
        if any(g is not None for k in kernels for g in tape.gradient(k, sources)):
            raise ValueError(
                "kernel of dot: expected a matrix made of weights and constants alone, got one that depends on a state "
                "or an input; use keras.ops.matmul for such a product"
            )
        _check_states(states, new_states)
        returned = [tf.convert_to_tensor(x) for x in (*outputs, *new_states)]
        return Probe(kernels, results, projected, returned, tuple(tf.zeros_like(o) for o in outputs))


def _check_states(old, new):
    def say(states):
        return [f"{tuple(s.shape)} {tf.as_dtype(s.dtype).name}" for s in states]

    same = len(old) == len(new) and all(
        o.shape.is_compatible_with(s.shape) and o.dtype == s.dtype for o, s in zip(old, new, strict=True)
    )
    if not same:
        raise ValueError(f"step: expected new states like the old ones, {say(old)}, got {say(new)}")

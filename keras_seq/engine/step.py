"""One step as the loop over time sees it: what it reads, and how it is taken under a mask."""

import contextlib
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# Mixed precision: the type that Keras casts weights to while a layer runs. Keras does not export it.
from keras.src.backend.common.variables import AutocastScope

from keras_seq.engine.arrays import column, product
from keras_seq.engine.dot import handling


class Probe(NamedTuple):
    """What one step shows: kernels and results of its `dot`s in order, projected input, what it returns, output as zeros."""

    kernels: list
    results: list
    projected: Any
    returned: list
    output: tf.Tensor


class Step:
    """The step of one call of `scan`, as a function of `args`: inputs, initial states, constants and weights, flat.

    Expects of the class that inherits it: `project`, `step`, `state_count`, `constants` and which of them are `floating`,
    `weights` and `weight_dtype`, `mask`, `zero_output_for_mask`.
    """

    def unpack(self, args):
        """inputs in order of time, states, all constants, values of the weights."""
        inputs, *rest = args
        states, rest = rest[: self.state_count], iter(rest[self.state_count :])
        constants = [next(rest) if floating else c for c, floating in zip(self.constants, self.floating, strict=True)]
        axes = [1, 0, *range(2, len(inputs.shape))]
        inputs = tf.transpose(inputs, axes)
        if self.mask is not None:
            mask = column(tf.transpose(self.mask), inputs)
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
            new_output = tf.where(column(mask, new_output), new_output, hidden)
            new_states = tuple(
                tf.where(column(mask, new), new, old) for new, old in zip(new_states, states, strict=True)
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
            results.append(product(x, kernel))
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
        returned = [tf.convert_to_tensor(x) for x in (output, *_tuple(new_states))]
        return Probe(kernels, results, projected, returned, tf.zeros_like(output))


def _tuple(states):
    return tuple(states) if isinstance(states, (list, tuple)) else (states,)


def _check_states(old, new):
    def say(states):
        return [f"{tuple(s.shape)} {tf.as_dtype(s.dtype).name}" for s in states]

    same = len(old) == len(new) and all(
        o.shape.is_compatible_with(s.shape) and o.dtype == s.dtype for o, s in zip(old, new, strict=True)
    )
    if not same:
        raise ValueError(f"step: expected new states like the old ones, {say(old)}, got {say(new)}")

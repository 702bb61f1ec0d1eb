"""How what a model says changes with its weights, at every step: carried forward with the states, or pulled back and forth."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import tree

from keras_seq._keras import GetItem, carried_mask, carry_mask, run_graph, sublayers
from keras_seq.cells.base import Cell
from keras_seq.engine.tensorflow.arrays import known_shape
from keras_seq.layers.narx import AR
from keras_seq.training.float64_copy import as_functional, every_layer
from keras_seq.training.memory_sensitivities import Dual, MemoryLoop
from keras_seq.typing import Tensor


class Sensitivities:
    """One run of a functional model, and beside its tensors y their derivatives by all p weights, (p, *y.shape).

    Of a layer or operation y = f(x, w) they come from a product of its Jacobian with each direction v of x and w in turn. That
    is the derivative, by a cotangent u, of u^T df, which is linear in u:

        (df) v = d/du (u^T df) v

    A recurrent layer that runs freely over time carries them forward with its states, all directions at once:

        ds_t = (ds_t/ds_{t-1}) ds_{t-1} + (ds_t/dx_t) dx_t + (ds_t/dw) dw

    Args:
        weights: the variables.
        values: their values, tensors.
    """

    def __init__(self, weights: Sequence[Any], values: Sequence[Tensor]) -> None:
        self.size = 0
        self._places: dict[int, tuple[int, Tensor]] = {}
        self._known: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by the id of a tensor, which is kept so that no other has it
        for weight, value in zip(weights, values, strict=True):
            self._places[id(weight)] = self.size, value
            self.size += math.prod(value.shape)

    def run(self, model: keras.Model, inputs: Sequence[Tensor]) -> Any:
        """The outputs of a functional model. The variables are to have these values, by a `StatelessScope`."""
        if has_memory(model):
            return run_graph(model, inputs, self._call)
        return self._push(lambda: model(tree.pack_sequence_as(model.input, list(inputs)), training=True), inputs, model)

    def of(self, x: Tensor) -> Tensor:
        """The derivatives of a tensor of the run."""
        found = self._known.get(id(x))
        if found is None:
            zeros = tf.zeros(tf.concat([[self.size], tf.shape(x)], 0), x.dtype)
            return known_shape(zeros, (self.size, *x.shape))
        return found[1]

    def keep(self, x: Tensor, derivatives: Tensor) -> None:
        """Note the derivatives of a tensor."""
        self._known[id(x)] = x, known_shape(derivatives, (self.size, *x.shape))

    def changes(self, x: Tensor | None) -> bool:
        """Whether a tensor depends on a weight."""
        return id(x) in self._known

    def places(self, layer: Any) -> list[tuple[int, Tensor]]:
        """For each trainable weight of a layer the number of its first entry among all, and its value."""
        return [self._places[id(v)] for v in getattr(layer, "trainable_variables", ())]

    def _call(self, operation, *args, **kwargs):
        tensors = [x for x in tree.flatten((args, kwargs)) if isinstance(x, tf.Tensor)]
        if not (self.places(operation) or any(map(self.changes, tensors))):
            return operation(*args, **kwargs)
        if isinstance(operation, GetItem):
            return self._pick(operation, *args, **kwargs)
        if isinstance(operation, keras.Model) and has_memory(operation):
            return self.run(as_functional(operation), tensors)
        if is_memory(operation):
            given = inspect.signature(operation.call).bind(*args, **kwargs).arguments
            if not (_open_loop(operation, given) or self.changes(given.get("targets"))):
                return self._memory(operation, given)
        return self._push(lambda: operation(*args, **kwargs), tensors, operation)

    def _pick(self, operation, x, key):
        """x[key], and the same entries of the derivatives."""
        y = operation(x, key)
        self.keep(y, operation(self.of(x), (slice(None), *(key if isinstance(key, (tuple, list)) else [key]))))
        return y

    def _push(self, function, tensors, layer):
        """The results of `function()`, which reads these tensors and the weights of the layer, and their derivatives."""
        inputs = list({id(x): x for x in tensors if self.changes(x)}.values())
        places = self.places(layer)
        sources = [*inputs, *(value for _, value in places)]
        if not sources:
            return function()
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as outer:
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(sources)
                results = function()
                found = [y for y in tree.flatten(results) if isinstance(y, tf.Tensor) and y.dtype.is_floating]
            cotangents = [tf.zeros_like(y) for y in found]
            outer.watch(cotangents)
            pulled = inner.gradient(found, sources, output_gradients=cotangents, unconnected_gradients="zero")
            pulled = [tf.convert_to_tensor(g) for g in pulled]  # that of a table may be one of some of its rows

        def one(i):
            directions = [self.of(x)[i] for x in inputs]
            for first, value in places:
                entries = tf.one_hot(i - first, math.prod(value.shape), dtype=value.dtype)
                directions.append(tf.reshape(entries, value.shape))
            return outer.gradient(pulled, cotangents, output_gradients=directions, unconnected_gradients="zero")

        derivatives = tf.map_fn(one, tf.range(self.size), fn_output_signature=[y.dtype for y in found])
        for y, derivative in zip(found, derivatives, strict=True):
            self.keep(y, derivative)
        return results

    def _memory(self, layer, given):
        sequences, states = given["sequences"], given.get("initial_state")
        mask = carried_mask(sequences) if given.get("mask") is None else given["mask"]
        if states is None:
            owner, rows = layer.cell if isinstance(layer.cell, Cell) else layer, tf.shape(sequences)[0]
            states = self._push(lambda: tree.map_structure(tf.identity, owner.get_initial_state(rows)), [], layer)
        loop = MemoryLoop(layer, self.places(layer.cell), self.size)
        x = Dual(sequences, self._last(sequences) if self.changes(sequences) else None)
        duals = [Dual(s, self._last(s)) for s in tree.flatten(states)]
        output, duals = loop.run(x, duals, mask, given.get("targets"))
        if mask is not None:
            carry_mask(output.value, tree.flatten(layer.compute_mask(sequences, mask))[0])
        for y in (output, *duals):
            self.keep(y.value, tf.transpose(y.derivatives, [len(y.value.shape), *range(len(y.value.shape))]))
        states = [s.value for s in duals]
        return [output.value, *states] if layer.return_state else output.value

    def _last(self, x):
        """The derivatives of a tensor with the axis of the weights at their end."""
        return tf.transpose(self.of(x), [*range(1, len(x.shape) + 1), 0])


class Outline(NamedTuple):
    """What is known of a run with derivatives before it.

    Attributes:
        output: the `KerasTensor` that the model puts out.
        steps: of all loops over time together.
        widest: how many numbers of a row the largest tensor has that a layer puts out.
    """

    output: Any
    steps: int
    widest: int


def outline(model: keras.Model, inputs: Sequence[Any], directions: int) -> Outline:
    """That of a functional model with one output for `KerasTensor`s, and so many directions of weights."""
    steps, widest = 0, 1

    def call(operation, *args, **kwargs):
        nonlocal steps, widest
        tensors = [x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        if isinstance(operation, keras.Model) and has_memory(operation):
            inner = outline(as_functional(operation), tensors, directions)
            steps, widest = steps + inner.steps, max(widest, inner.widest)
            return inner.output
        steps += _loop_steps(operation, args, kwargs, tensors, directions)
        results = operation(*args, **kwargs)
        widest = max(widest, *(math.prod(y.shape[1:]) for y in tree.flatten(results)))
        return results

    output = run_graph(model, list(inputs), call)
    return Outline(output, steps, widest)


def _loop_steps(operation, args, kwargs, tensors, directions):
    layers = every_layer(operation) if isinstance(operation, keras.layers.Layer) else ()
    loops = sum(isinstance(one, keras.layers.RNN) for one in layers)
    if not loops or _open_loop(operation, inspect.signature(operation.call).bind(*args, **kwargs).arguments):
        return 0
    time = max((x.shape[1] for x in tensors if len(x.shape) > 2), default=1)
    # else by directions: forwards, back, and back from there
    return time if is_memory(operation) else 3 * directions * loops * time


def is_memory(layer: Any) -> bool:
    """Whether a layer is a recurrent one that is run here step by step."""
    internals = getattr(layer, "return_internals", False)
    return isinstance(layer, keras.layers.RNN) and not internals and not getattr(layer.cell, "constant_names", ())


def has_memory(model: Any) -> bool:
    """Whether a model has a recurrent layer that is run here step by step."""
    return any(is_memory(one) or (isinstance(one, keras.Model) and has_memory(one)) for one in sublayers(model))


def _open_loop(layer, given):
    """Whether the layer reads true outputs alone: no loop."""
    return getattr(layer, "closed", None) is False and (given.get("targets") is not None or isinstance(layer, AR))

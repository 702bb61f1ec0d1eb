"""A step over the nodes of trees, level by level: every node reads the states of its children.

All arrays are those of the nodes of all trees of a batch, side by side: n of them, each with the places of its k children.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_seq.engine.tensorflow._tensorflow import compiled_by_xla
from keras_seq.engine.tensorflow.arrays import distinct, size, zeros_unless
from keras_seq.engine.tensorflow.gradients import custom_gradient
from keras_seq.engine.tensorflow.step import run_step

SHARE = 8
"""One in so many of all nodes is what a step takes at most under XLA."""


def scan_levels(
    step: Callable[..., Any],
    weights: Sequence[tf.Tensor],
    projected: Any,
    children: tf.Tensor,
    levels: tf.Tensor,
    state_sizes: Sequence[int],
    dtype: str,
) -> list[tf.Tensor]:
    """The states of every node, one level after the other from the leaves up.

    The nodes of a level are computed together, in as many sequential steps as there are levels. Under XLA, where sizes are
    fixed, a step takes an eighth of all nodes at most, so that there are up to eight steps more. The gradient is exact and
    keeps the states alone: the way back goes down the levels for the gradients of the states; those of the weights and of
    `projected` then follow from one step over all nodes at once. It may be differentiated again where XLA does not compile it.

    Args:
        step: `(weights, projected, states of the children, constants) -> (output, new states)`, the states of the children
            of m nodes each (m, k, w), zeros for a child that is not there.
        weights: what the step reads.
        projected: a nest of tensors (n, ...), what the inputs of the nodes alone decide.
        children: integers (n, k), the place of each child, -1 for none. A node is the child of one other at most.
        levels: integers (n,), higher than those of a node's children; below 0 for a node that is not there: its states are
            zeros and no gradient goes to it.
        state_sizes: the width w of each state.
        dtype: the type of the states.

    Returns:
        A list of tensors (n, w), one for each state.
    """
    order = tf.argsort(levels, stable=True)
    n = size(levels, 0)
    place = tf.scatter_nd(order[:, None], tf.range(n), tf.reshape(n, (1,)))
    children = tf.where(children < 0, n, tf.gather(place, tf.maximum(children, 0)))
    parts = [tf.gather(p, order) for p in tf.nest.flatten(projected)]
    weights, inputs = [tf.convert_to_tensor(w) for w in weights], len(parts)
    levels = _Levels(tf.gather(levels, order), tf.gather(children, order))

    def run(*args):
        args = distinct(args)  # also those that the step does not read have a gradient then
        parts, weights = args[:inputs], args[inputs:]

        def take_step(parts, states):
            return run_step(step, weights, tf.nest.pack_sequence_as(projected, parts), states, ())[1]

        found = levels.forward(take_step, parts, state_sizes, dtype)

        def gradient(*cotangents):
            cotangents = levels.backward(take_step, parts, found, cotangents)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(args)
                new = take_step(parts, levels.read(found, levels.children))
            return tape.gradient(new, args, output_gradients=cotangents, unconnected_gradients="zero")

        return [s[:n] for s in found], gradient

    return [tf.gather(s, place) for s in custom_gradient(run, [*parts, *weights])]


class _Levels:
    """Nodes by rising level: `levels` (n,), and the places of their `children` (n, k) in this order, n for none.

    Arrays of states have two rows more than there are nodes: zeros, for children that are not there, and one to which is
    written what belongs to no node.
    """

    def __init__(self, levels, children):
        self.levels, self.children = levels, children
        self.count = size(levels, 0)
        self.first = tf.reduce_sum(tf.cast(levels < 0, "int32"))
        self.width = -(-self.count // SHARE) if compiled_by_xla() else None

    def forward(self, take_step, parts, state_sizes, dtype):
        """The states of the nodes, (n + 2, w)."""

        def body(start, *states):
            end = tf.reduce_sum(tf.cast(self.levels <= tf.gather(self.levels, start), "int32"))
            there, index = self._rows(start, end)
            new = take_step([tf.gather(p, there) for p in parts], self.read(states, tf.gather(self.children, there)))
            states = [tf.tensor_scatter_nd_update(s, index[:, None], x) for s, x in zip(states, new, strict=True)]
            return (end if self.width is None else tf.minimum(end, start + self.width), *states)

        zeros = [tf.zeros((self.count + 2, w), dtype) for w in state_sizes]
        _, *states = tf.while_loop(lambda start, *_: start < self.count, body, (self.first, *zeros))
        return states

    def backward(self, take_step, parts, states, cotangents):
        """All that reaches the states of each node, from outside and through its parent."""

        def body(end, *deltas):
            start = tf.reduce_sum(tf.cast(self.levels < tf.gather(self.levels, end - 1), "int32"))
            start = start if self.width is None else tf.maximum(start, end - self.width)
            there, index = self._rows(start, end)
            children = tf.gather(self.children, there)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                below = self.read(states, children)
                tape.watch(below)
                new = take_step([tf.gather(p, there) for p in parts], distinct(below))
            taken = [
                tf.where((index < self.count)[:, None], tf.gather(d, there), tf.zeros((), d.dtype)) for d in deltas
            ]
            back = tape.gradient(new, below, output_gradients=taken)
            to = tf.where(children < self.count, children, self.count + 1)[..., None]
            deltas = [
                tf.tensor_scatter_nd_add(d, to, zeros_unless(g, b)) for d, g, b in zip(deltas, back, below, strict=True)
            ]
            return start, *deltas

        here = (self.levels >= 0)[:, None]
        deltas = [tf.pad(tf.where(here, c, tf.zeros((), c.dtype)), [[0, 2], [0, 0]]) for c in cotangents]
        _, *deltas = tf.while_loop(lambda end, *_: end > self.first, body, (tf.convert_to_tensor(self.count), *deltas))
        return [d[: self.count] for d in deltas]

    def read(self, states, children):
        """The states (m, k, w) of children (m, k)."""
        return [tf.gather(s, children) for s in states]

    def _rows(self, start, end):
        """`(the nodes of a step, the rows of their states)`; under XLA the last of them may be of no node of the level."""
        rows = start + tf.range(end - start if self.width is None else self.width)
        return tf.minimum(rows, self.count - 1), tf.where(rows < end, rows, self.count + 1)

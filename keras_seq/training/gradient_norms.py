"""Norms of gradients: of the weights of each layer, and of the states of a memory by how far back in time they are."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_seq._keras import sublayers
from keras_seq.analysis.state_gradients import WatchedCall


def owners(model: keras.Model) -> list[tuple[keras.layers.Layer, list[Any]]]:
    """`[(layer, its trainable weights)]`, of the innermost layers that have any; a recurrent layer has those of its cell."""
    found, seen = [], set()

    def add(layer, variables):
        own = [v for v in variables if id(v) not in seen]
        seen.update(map(id, own))
        if own:
            found.append((layer, own))

    def visit(layer):
        parts = [] if isinstance(layer, keras.layers.RNN) else sublayers(layer)
        for part in layer.layers if isinstance(layer, keras.Model) else parts:
            visit(part)
        add(layer, layer.trainable_variables)

    visit(model)
    return found


def unique_names(layers: list[keras.layers.Layer]) -> list[str]:
    """The name of each layer, or its path where layers share a name."""
    names = [layer.name for layer in layers]
    return [layer.path if names.count(layer.name) > 1 else layer.name for layer in layers]


def state_names(layer: keras.layers.RNN) -> list[str]:
    """What the states of a layer are called."""
    cell = layer.cell
    names = getattr(cell, "state_names", None)
    if names is None:
        names = ("h", "c") if isinstance(cell, keras.layers.LSTMCell) else None
    count = len(tree.flatten(layer.state_size))
    if names is None or len(names) != count:
        return ["h"] if count == 1 else [f"state_{i}" for i in range(count)]
    return list(names)


def sum_of_squares(x: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    """The sum of squares of a gradient, which may be one of rows of a table."""
    x = tf.cast(tf.convert_to_tensor(x), "float32")
    return tf.reduce_sum(x * x)


def norms_by_lag(found: list[tuple[WatchedCall, list[tf.Tensor]]]) -> list[tf.Tensor]:
    """For each state of a layer the norms against the lag (t,), all calls of the layer together, as if they were rows."""
    longest = tf.reduce_max(tf.stack([tf.shape(g[0])[1] for _, g in found]))
    curves = []
    for i in range(len(found[0][1])):
        sums = [_by_lag(call, gradients[i], longest) for call, gradients in found]
        total, rows = (sum(s) for s in zip(*sums, strict=True))
        curves.append(tf.sqrt(total / rows))  # 0 / 0 is NaN: no row has a step there
    return curves


def _by_lag(call, gradient, longest):
    """The sum over the rows of the squares of a gradient (b, t, n) at each lag, and how many rows have a step there."""
    squares = tf.reduce_sum(tf.cast(gradient, "float32") ** 2, axis=-1)
    real = tf.ones_like(squares) if call.mask is None else tf.cast(call.mask, "float32")
    if call.layer.go_backwards:
        squares, real = tf.reverse(squares, [1]), tf.reverse(real, [1])
    lags = tf.cast(tf.cumsum(real, axis=1, exclusive=True, reverse=True), "int32")
    total, rows = (
        tf.math.unsorted_segment_sum(tf.reshape(x, [-1]), tf.reshape(lags, [-1]), longest)
        for x in (squares, real)  # at hidden steps the gradient is zero
    )
    return total, rows

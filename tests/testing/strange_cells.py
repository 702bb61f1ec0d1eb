"""Cells of a stranger, all of them right."""

import keras
from keras import ops

import keras_seq

registered = keras.saving.register_keras_serializable(package="visitor")


@registered
class StrangeCell(keras_seq.Cell):
    """Three states of two widths, a nested projection, a kernel used twice, an element-wise weight that must be positive."""

    states, state_size, output_size = ("a", "m", "n"), [4, 3, 4], 7

    def __init__(self, slope=2.0, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def build(self, input_shape):
        self.inward = self.add_weight(name="inward", shape=(input_shape[-1], 8))
        self.shared = self.add_weight(name="shared", shape=(4, 4))
        self.down = self.add_weight(name="down", shape=(3, 4))
        self.scale = self.add_weight(name="scale", shape=(4,), initializer="ones", constraint="non_neg")
        super().build(input_shape)

    def project(self, inputs):
        inward, gate = ops.split(ops.matmul(inputs, self.inward), 2, axis=-1)
        return {"inward": inward, "gates": (ops.sigmoid(gate),)}

    def step(self, projected, states, constants=()):
        a, m, n = states
        (gate,) = projected["gates"]
        a = keras_seq.dot(gate * a, self.shared) + keras_seq.dot(a, self.shared) + ops.sqrt(self.scale + 0.1) * n
        a = ops.tanh(projected["inward"] + self.slope * a)
        m = m / 2 + ops.tanh(keras_seq.dot(a * (1 + n), ops.transpose(self.down)))
        n = ops.sigmoid(self.scale) * n + a * ops.mean(m, axis=-1, keepdims=True)
        keras_seq.expose(attention=gate, memory=m)
        return ops.concatenate([m, a], axis=-1), (a, m, n)


@registered
class ReaderCell(keras_seq.Cell):
    """Reads a memory (b, s, 2), a kernel (4, 4) and a count (b,), all of them constants; a product of rank 3."""

    states, state_size, output_size, constants = ("h",), [4], 4, ("memory", "kernel", "count")

    def build(self, input_shape, constants_shape=None):
        self.inward = self.add_weight(name="inward", shape=(input_shape[-1], 4))
        self.query = self.add_weight(name="query", shape=(4, 2))
        self.score = self.add_weight(name="score", shape=(2, 1))
        self.read = self.add_weight(name="read", shape=(2, 4))
        super().build(input_shape)

    def project(self, inputs):
        return ops.matmul(inputs, self.inward)

    def step(self, projected, states, constants=()):
        (h,), (memory, kernel, count) = states, constants
        query = ops.expand_dims(keras_seq.dot(h, self.query), 1)
        share = ops.softmax(keras_seq.dot(ops.tanh(memory + query), self.score, dropout=False), axis=1)
        context = ops.sum(share * memory, axis=1)
        total = keras_seq.dot(context, self.read, dropout=False) + keras_seq.dot(h, kernel)
        h = ops.tanh(projected + total) / ops.expand_dims(ops.cast(count, h.dtype), -1)
        return h, (h,)

"""Cells of a stranger, all of them right."""

import keras
from keras import ops

import keras_seq

registered = keras.saving.register_keras_serializable(package="visitor")


@registered
class StrangeCell(keras_seq.Cell):
    """Three states of two widths, a nested projection, a kernel used twice, an element-wise weight that must be positive."""

    state_names, state_size, output_size = ("a", "m", "n"), [4, 3, 4], 7

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

"""Cells with one fault each, and the check that must name it."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import keras_seq

registered = keras.saving.register_keras_serializable(package="faulty")


class Plain(keras_seq.GatedCell):
    """h' = tanh(x W + b + h U), the basis of the faulty ones."""

    def step(self, projected, states, constants=()):
        h = self.change(self.activation(projected + keras_seq.dot(states[0], self.recurrent_kernel)), states[0])
        keras_seq.expose(hidden=h)
        return h, (h,)

    def change(self, h, old):
        return h


@registered
class OtherOrder(Plain):
    calls = 0

    def change(self, h, old):
        first, second = self.recurrent_kernel[:, ::2], self.recurrent_kernel[:, 1::2]
        type(self).calls += 1
        if self.calls % 2:
            return h + ops.sum(keras_seq.dot(h, first), -1, True) * ops.sum(keras_seq.dot(h, second), -1, True)
        return h + ops.sum(keras_seq.dot(h, second), -1, True) * ops.sum(keras_seq.dot(h, first), -1, True)


@registered
class NowAndThen(Plain):
    def change(self, h, old):
        return keras_seq.dot(h, self.recurrent_kernel) if float(h[0, 0]) > 0 else h


@registered
class MixedRows(Plain):
    def change(self, h, old):
        return h - ops.mean(h, axis=0, keepdims=True)


@registered
class OverTime(Plain):
    def project(self, inputs):
        return ops.cumsum(super().project(inputs), axis=1)


@registered
class ReadoutOverTime(Plain):
    def readout(self, outputs):
        return outputs - ops.mean(outputs, axis=1, keepdims=True)


@registered
class WrongWidth(Plain):
    output_size = 5


@registered
class WrongType(Plain):
    def change(self, h, old):
        return ops.cast(h, "float32")


@registered
class OneStateTooFew(Plain):
    state_names = ("h", "c")


@registered
class Lost(Plain):
    """Its argument is in no signature."""

    def __init__(self, units, **kwargs):
        self.slope = kwargs.pop("slope", 1.0)
        super().__init__(units, **kwargs)


@registered
class LeftOut(Plain):
    def __init__(self, units, slope=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.slope = slope

    def get_config(self):
        config = super().get_config()
        del config["slope"]
        return config


@registered
class NotKept(Plain):
    def __init__(self, units, slope=1.0, **kwargs):
        super().__init__(units, **kwargs)


@registered
class KeptOtherwise(Plain):
    def __init__(self, units, slope=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.slope = 2 * slope


@registered
class NoName(Plain):
    def __init__(self, units):
        super().__init__(units)


class NotRegistered(Plain):
    pass


@registered
class NewName(Plain):
    calls = 0

    def change(self, h, old):
        type(self).calls += 1
        keras_seq.expose(**{f"hidden_{self.calls}": h})
        return h


@registered
class WrongGradient(Plain):
    def change(self, h, old):
        @ops.custom_gradient
        def square(x):
            return x * x, lambda *d: 3 * d[0] * x

        return square(h)


@registered
class Chance(Plain):
    def change(self, h, old):
        return h + keras.random.normal(ops.shape(h), dtype=h.dtype)


@registered
class Leaking(Plain):
    """Divides by the length of the input, which is zero behind a mask."""

    def project(self, inputs):
        return super().project(inputs / ops.sqrt(ops.sum(inputs * inputs, axis=-1, keepdims=True)))


@registered
class WrongHistory(Plain):
    def states_before(self, forced):
        return lambda projected, states, targets: tuple(ops.broadcast_to(s, ops.shape(projected)) for s in states)


@registered
class InNumPy(Plain):
    def change(self, h, old):
        return h if isinstance(h, keras.KerasTensor) else h + ops.convert_to_tensor(np.tanh(h.numpy()))


@registered
class KnownBatch(Plain):
    def change(self, h, old):
        return ops.reshape(ops.reshape(h, (h.shape[0], 2, -1)), (h.shape[0], -1))


@registered
class NoSuper(Plain):
    def build(self, input_shape):
        self.features = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units))
        self.recurrent_kernel = self.add_weight(name="recurrent_kernel", shape=(self.units, self.units))
        self.bias = None


@registered
class WideDot(Plain):
    def change(self, h, old):
        wide = ops.concatenate([h, old], axis=-1)
        return keras_seq.dot(wide, ops.concatenate([self.recurrent_kernel] * 2, axis=0))


@registered
class Short(Plain):
    def change(self, h, old):
        return ops.cast(h, self.compute_dtype)


@registered
class Rounded(Plain):
    """Right but in float16, where its unit is below the smallest number."""

    def project(self, inputs):
        return super().project(inputs * 1e-4 * 1e-4 * 1e4 * 1e4)


@registered
class ProtocolChanged(Plain):
    def call(self, inputs, states, constants=(), training=False):
        y, states = super().call(inputs, states, constants, training)
        return 2 * y, states


@registered
class KernelOfAState(Plain):
    def change(self, h, old):
        return keras_seq.dot(h, ops.matmul(ops.transpose(h), h))


@registered
class NotLoaded(Plain):
    def load_own_variables(self, store):
        pass


@registered
class Hidden(Plain):
    """Reads a variable that no one knows of."""

    def build(self, input_shape):
        super().build(input_shape)
        variable = tf.Variable(0.5)
        self.read = lambda: variable

    def change(self, h, old):
        return h * ops.cast(self.read(), h.dtype)


# what makes the cell, the check it fails, and what this says
WRONG = [
    (OtherOrder, "repeatable", "the order changes"),
    (NowAndThen, "repeatable", "step called `dot` "),
    (Chance, "repeatable", "called again on the same, the output: differs by"),
    (MixedRows, "rows", "row 0 where all others change: the output: differs by"),
    (OverTime, "project", "project of single steps"),
    (ReadoutOverTime, "project", "readout of single steps"),
    (WrongWidth, "shapes and types", r"output: expected (4, 5), as output_size says, got (4, 4)"),
    (WrongType, "shapes and types", "states from step: expected ['(4, 4) float64'], got ['(4, 4) float32']"),
    (OneStateTooFew, "shapes and types", "states from step: expected ['(4, 4) float64', '(4, 4) float64'], got"),
    (lambda units: Lost(units, slope=2.0), "config", "attribute 'slope' was 2.0, and is 1.0"),
    (LeftOut, "config", "the argument 'slope' is not in the config"),
    (NotKept, "config", "slope"),
    (KeptOtherwise, "config", "'slope' was 2.0 in the config, and comes back as 4.0"),
    (NoName, "config", "unexpected keyword argument"),
    (NotRegistered, "config", "NotRegistered is not registered with Keras"),
    (WrongHistory, "one by one", "differs by"),
    (ProtocolChanged, "one by one", "outputs: differs by"),
    (KernelOfAState, "repeatable", "the kernel of `dot` 1 of a step changes"),
    (Leaking, "NaN behind a mask", "kernel' is NaN or infinite in 12 of 12 places"),
    (InNumPy, "eager, graph, XLA", "numpy"),
    (WrongGradient, "finite differences", "the gradient of the inputs along a random direction is"),
    (KnownBatch, "any size", ""),
    (NoSuper, "learned initial states", "expected weights for the states ('h',), got []"),
    (lambda units: WideDot(units, recurrent_dropout=0.5), "dropout", "or to say dropout=False, got one of width 8"),
    (NewName, "internals", "a step exposed ['hidden', 'hidden_"),
    (Short, "mixed_float16", "step: expected new states like the old ones"),
    (Rounded, "mixed_float16", "against float32: outputs: "),
    (NotLoaded, ".keras file", "after loading: outputs: differs by"),
    (Hidden, "one by one", "variable"),
]

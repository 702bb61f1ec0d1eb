"""What every memory is held to: one table of cases, and the checks that all tests share.

Axes: b batch, t time, d input features, u units. All weights are random and distinct per gate, states and peepholes are
not zero, masks are ragged with gaps and hide one row altogether.
"""

import dataclasses
import typing
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from oracles import oracle

import keras_seq

B, T, D, U = 4, 5, 3, 4

MASK = np.array(
    [
        [True, True, True, True, True],
        [True, False, True, True, False],
        [False, False, True, False, True],
        [False, False, False, False, False],
    ]
)


# -- cells of a stranger -------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="stranger")
class TangledCell(keras_seq.Cell):
    """Three states, a nested projection, one kernel used twice, one of them on a changed state, an element-wise weight."""

    states, state_size, output_size = ("a", "m", "n"), [4, 3, 4], 7

    def build(self, input_shape):
        self.inward = self.add_weight(name="inward", shape=(input_shape[-1], 4))
        self.gate = self.add_weight(name="gate", shape=(input_shape[-1], 4))
        self.shared = self.add_weight(name="shared", shape=(4, 4))
        self.down = self.add_weight(name="down", shape=(3, 4))
        self.scale = self.add_weight(name="scale", shape=(4,))
        super().build(input_shape)

    def project(self, inputs):
        return ops.matmul(inputs, self.inward), {"gate": (ops.sigmoid(ops.matmul(inputs, self.gate)),)}

    def step(self, projected, states, constants=()):
        (a, m, n), (inward, gates) = states, projected
        (gate,) = gates["gate"]
        a = ops.tanh(inward + keras_seq.dot(gate * a, self.shared) + keras_seq.dot(a, self.shared) + self.scale * n)
        m = m / 2 + ops.tanh(keras_seq.dot(a * (1 + n), ops.transpose(self.down)))
        n = ops.sigmoid(self.scale) * n + a * ops.sum(m, axis=-1, keepdims=True)
        return ops.concatenate([m, a], axis=-1), (a, m, n)


@keras.saving.register_keras_serializable(package="stranger")
class ReaderCell(keras_seq.Cell):
    """Reads a memory (b, s, 2), a kernel (4, 4) and a count (b,) that are constants; a `dot` of rank 3; one plain product."""

    states, state_size, output_size, constants = ("h",), [4], 4, ("memory", "kernel", "count")

    def build(self, input_shape, constants_shape=None):
        self.inward = self.add_weight(name="inward", shape=(input_shape[-1], 4))
        self.query = self.add_weight(name="query", shape=(4, 2))
        self.score = self.add_weight(name="score", shape=(2, 1))
        self.read = self.add_weight(name="read", shape=(2, 4))
        self.plain = self.add_weight(name="plain", shape=(4, 4))
        super().build(input_shape)

    def project(self, inputs):
        return ops.matmul(inputs, self.inward)

    def step(self, projected, states, constants=()):
        (h,), (memory, kernel, count) = states, constants
        query = ops.expand_dims(keras_seq.dot(h, self.query), 1)
        share = ops.softmax(keras_seq.dot(ops.tanh(memory + query), self.score), axis=1)
        context = ops.sum(share * memory, axis=1)
        h = projected + keras_seq.dot(context, self.read) + keras_seq.dot(h, kernel) + ops.matmul(h * h, self.plain)
        h = ops.tanh(h) / ops.expand_dims(ops.cast(count, h.dtype), -1)
        return h, (h,)


# -- the table -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A public layer class by name with arguments; for `RNN` also what makes its cell, and the shapes of its constants.

    A first axis of None in such a shape is the batch's. `gates` are the kinds of columns of the kernels.
    """

    layer: str
    arguments: dict = dataclasses.field(default_factory=dict)
    cell: Callable | None = None
    constants: tuple = ()

    @property
    def name(self):
        inner = self.cell and f"({getattr(self.cell, '__name__', 'cell')})"
        return "-".join([self.layer + (inner or ""), *(f"{k}={v}" for k, v in self.arguments.items())])

    @property
    def gated(self):
        """The public cell class that holds the mathematics, and its arguments; None for a stranger's."""
        if self.cell is None:
            return getattr(keras_seq, self.layer + "Cell")
        return getattr(self.cell, "gated", None)

    def __call__(self, dtype="float32", seed=0, batch=None, **flags):
        """A built layer with random weights."""
        if self.cell is None:
            layer = getattr(keras_seq, self.layer)(U, dtype=dtype, **self.arguments, **flags)
        else:
            layer = keras_seq.RNN(self.cell(dtype), dtype=dtype, **flags)
        shapes = [(batch, *s[1:]) if s[0] is None else s for s in self.constants]
        layer.build((batch, None, D), **({"constants_shape": shapes} if shapes else {}))
        return randomised(layer, seed)


def conditioned(inner, arguments):
    def cell(dtype):
        return keras_seq.ConditionedCell(inner(U, dtype=dtype, **arguments), dtype=dtype)

    cell.__name__ = "-".join([f"Conditioned({inner.__name__})", *(f"{k}={v}" for k, v in arguments.items())])
    cell.gated = inner
    return Case("RNN", {}, cell, ((None, 2),))


def tangled(dtype):
    return TangledCell(dtype=dtype)


def reader(dtype):
    return ReaderCell(dtype=dtype)


CASES = [
    Case("SimpleRNN"),
    Case("SimpleRNN", {"activation": "relu", "use_bias": False}),
    Case("LSTM"),
    Case("LSTM", {"activation": "softsign", "recurrent_activation": "hard_sigmoid", "use_bias": False}),
    Case("PeepholeLSTM"),
    Case("PeepholeLSTM", {"use_bias": False}),
    Case("CoupledLSTM"),
    Case("CoupledLSTM", {"peepholes": True}),
    Case("NoForgetLSTM"),
    Case("NoForgetLSTM", {"activation": "softsign"}),
    Case("GRU", {"reset_after": True}),
    Case("GRU", {"reset_after": False}),
    Case("GRU", {"reset_after": True, "use_bias": False}),
    Case("GRU", {"reset_after": False, "activation": "softsign", "use_bias": False}),
    conditioned(keras_seq.LSTMCell, {}),
    conditioned(keras_seq.GRUCell, {"reset_after": False}),
    Case("RNN", {}, tangled),
    Case("RNN", {}, reader, ((None, 3, 2), (4, 4), (None,))),
]
BUILT_IN = [c for c in CASES if c.gated]
ONE_OF_EACH = [c for c in CASES if "use_bias" not in c.arguments and "activation" not in c.arguments]
KERAS_TWINS = [c for c in CASES if c.layer in ("SimpleRNN", "LSTM", "GRU")]


def named(cases):
    """Arguments of `pytest.mark.parametrize` for these cases."""
    return {"argnames": "case", "argvalues": cases, "ids": [c.name for c in cases]}


# -- data ----------------------------------------------------------------------------------------------------------------


class Data(typing.NamedTuple):
    """What a layer is called with, and cotangents of what it returns: outputs, then final states."""

    x: np.ndarray
    mask: np.ndarray | None
    states: tuple
    constants: tuple
    cotangents: tuple


def randomised(layer, seed=0):
    """The layer, its weights drawn anew: no two gates alike, no zero peephole or bias."""
    rng = np.random.default_rng([seed, 1])
    for w in layer.weights:
        if "float" in w.dtype:
            w.assign(0.5 * rng.normal(size=w.shape))
    return layer


def data(case, layer, b=B, t=T, seed=0, mask=True):
    """Random data in the layer's type. The mask is `MASK`, or as much of it as fits; None for `mask=False`."""
    rng = np.random.default_rng([seed, 2])
    dtype = layer.compute_dtype

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), dtype)

    x = normal(b, t, D)
    states = tuple(0.5 * normal(b, size) for size in layer.state_size)
    constants = []
    for shape in case.constants:
        shape = tuple(b if n is None else n for n in shape)
        constants.append(
            0.5 * normal(*shape) if len(shape) > 1 else tf.constant(rng.integers(1, 4, size=shape), "int32")
        )
    width = layer.cell.output_size
    outputs = normal(b, t, width) if layer.return_sequences else normal(b, width)
    finals = [normal(b, size) for size in layer.state_size] if layer.return_state else []
    hidden = tf.constant(np.tile(MASK, (-(-b // B), -(-t // T)))[:b, :t]) if mask else None
    return Data(x, hidden, states, tuple(constants), (outputs, *finals))


def call(layer, x, mask=None, states=None, constants=(), training=False):
    """The layer's results as a flat list: outputs, then final states."""
    further = {"initial_state": list(states)} if states else {}
    if constants:
        further["constants"] = list(constants)
    return tf.nest.flatten(layer(x, mask=mask, training=training, **further))


def differentiated(layer, training=True, apply=call):
    """A function of `Data`: `(results, gradients)` of the inputs, states, floating constants and weights, in this order."""

    def function(x, mask, states, constants, cotangents):
        arguments = [x, *states, *[c for c in constants if c.dtype.is_floating]]
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            results = apply(layer, x, mask, states, constants, training)
            loss = sum(tf.reduce_sum(r * c) for r, c in zip(results, cotangents, strict=True))
        wanted = [*arguments, *[w.value for w in layer.trainable_variables]]
        return results, tape.gradient(loss, wanted, unconnected_gradients="zero")

    return function


def argument_names(layer, given):
    """What the gradients of `differentiated` belong to."""
    constants = [f"constant {i}" for i, c in enumerate(given.constants) if c.dtype.is_floating]
    return [
        "inputs",
        *[f"state {i}" for i in range(len(given.states))],
        *constants,
        *[w.path for w in layer.trainable_weights],
    ]


def tolerance(dtype):
    return {"float32": 1e-5, "float64": 1e-10}[dtype]


def assert_close(actual, desired, tolerance, what=""):
    """Equal up to `tolerance`, relative to the largest entry; NaN is equal to nothing."""
    tf.nest.assert_same_structure(list(actual), list(desired))
    for i, (a, b) in enumerate(zip(tf.nest.flatten(list(actual)), tf.nest.flatten(list(desired)), strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, f"{what} {i}: shape {a.shape}, expected {b.shape}"
        assert np.all(np.isfinite(b)), f"{what} {i}: the expected value is not finite"
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        error = float(np.max(np.abs(a - b), initial=0.0)) / scale
        assert error <= tolerance, f"{what} {i}: differs by {error:.2e} of {scale:.2e}, allowed {tolerance:.0e}"


# -- checks --------------------------------------------------------------------------------------------------------------


def check_oracle(case, dtype="float64", masked=True, training=False, return_sequences=True, **flags):
    """A layer's outputs and final states are those of the equations."""
    layer = case(dtype, return_sequences=return_sequences, return_state=True, **flags)
    given = data(case, layer, mask=masked)
    outputs, last, states = oracle(layer, given, **flags)
    results = call(layer, *given[:4], training=training)
    assert_close(results, [outputs if return_sequences else last, *states], tolerance(dtype), "result")


def check_finite_differences(case, directions=3, step=1e-5, accepted=1e-6, masked=True, **flags):
    """Gradients of all arguments are central differences of the loss, in random directions, in float64."""
    layer = case("float64", **{"return_sequences": True, "return_state": True, **flags})
    given = data(case, layer, mask=masked)
    _, gradients = differentiated(layer)(*given)

    @tf.function
    def loss(x, states, constants):
        results = call(layer, x, given.mask, states, constants)
        return sum(tf.reduce_sum(r * c) for r, c in zip(results, given.cotangents, strict=True))

    check_directions(layer, loss, given, gradients, directions, step, accepted)


def check_directions(layer, loss, given, gradients, directions=3, step=1e-5, accepted=1e-6):
    """`gradients` are those of `loss(x, states, constants)`, by central differences; None skips an argument."""
    rng = np.random.default_rng(3)
    floating = [c for c in given.constants if c.dtype.is_floating]
    arguments = [given.x, *given.states, *floating]
    count = len(given.states)

    def evaluate(moved):
        x, *rest = moved[: len(arguments)]
        left = iter(rest[count:])
        constants = tuple(next(left) if c.dtype.is_floating else c for c in given.constants)
        for w, value in zip(layer.trainable_variables, moved[len(arguments) :], strict=True):
            w.assign(value)
        return float(loss(x, tuple(rest[:count]), constants))

    at = [*arguments, *[tf.constant(w.numpy()) for w in layer.trainable_variables]]
    for i, (name, gradient) in enumerate(zip(argument_names(layer, given), gradients, strict=True)):
        for _ in range(directions):
            direction = rng.normal(size=at[i].shape)
            ends = []
            for sign in (1, -1):
                moved = list(at)
                moved[i] = at[i] + sign * step * direction
                ends.append(evaluate(moved))
            expected = (ends[0] - ends[1]) / (2 * step)
            actual = float(np.sum(np.asarray(gradient) * direction))
            error = abs(actual - expected) / max(abs(expected), 1e-2)
            assert error <= accepted, f"{name}: {actual} along a direction where differences give {expected}"
        assert np.max(np.abs(gradient)) > 0, f"{name}: the gradient is zero everywhere, the check says nothing"
    evaluate(at)


def check_keras_loop(case, dtype="float64", masked=True, **flags):
    """Values and gradients on the engine are those of autodiff through the written-out loop over the same cell."""
    flags = {"return_sequences": True, "return_state": True, **flags}
    layer, unrolled = case(dtype, **flags), case(dtype, unroll=True, **flags)
    given = data(case, layer, mask=masked)
    assert_close(
        differentiated(layer)(*given), differentiated(unrolled)(*given), tolerance(dtype), "result or gradient"
    )


def keras_twin(case, layer, dtype, **flags):
    """The Keras layer of the same name, with the same weights."""
    arguments = {"reset_after": True} if case.layer == "GRU" else {}
    twin = getattr(keras.layers, case.layer)(U, dtype=dtype, **{**arguments, **case.arguments}, **flags)
    twin.build((None, None, D))
    twin.set_weights(layer.get_weights())
    return twin


def check_keras_twin(case, dtype="float64", masked=True, **flags):
    """Values and gradients are those of the Keras layer with the same weights."""
    flags = {"return_sequences": True, "return_state": True, **flags}
    layer = case(dtype, **flags)
    twin = keras_twin(case, layer, dtype, **flags)
    given = data(case, layer, mask=masked)
    assert_close(differentiated(layer)(*given), differentiated(twin)(*given), tolerance(dtype), "result or gradient")

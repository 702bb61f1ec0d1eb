"""One table of cases: every memory and switch, and cells of a stranger, that all tests run over.

Axes: b batch, t time, d input features, u units.
"""

import dataclasses
import types
from collections.abc import Callable

import keras
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.testing.runs import randomised
from keras_seq.testing.subject import CellUnderTest

B, T, D, U = 4, 5, 3, 4

# -- cells of a stranger -------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="stranger")
class TangledCell(keras_seq.Cell):
    """Three states, a nested projection, one kernel used twice, one of them on a changed state, an element-wise weight."""

    state_names, state_size, output_size = ("a", "m", "n"), [4, 3, 4], 7

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

    state_names, state_size, output_size, constant_names = ("h",), [4], 4, ("memory", "kernel", "count")

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
        share = ops.softmax(keras_seq.dot(ops.tanh(memory + query), self.score, dropout=False), axis=1)
        context = ops.sum(share * memory, axis=1)
        h = projected + keras_seq.dot(context, self.read, dropout=False) + keras_seq.dot(h, kernel)
        h = h + ops.matmul(h * h, self.plain)
        h = ops.tanh(h) / ops.expand_dims(ops.cast(count, h.dtype), -1)
        return h, (h,)


# -- the table -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A public layer class by name with arguments; for `RNN` also what makes its cell, and the shapes of its constants.

    A first axis of None in such a shape is the batch's. An argument that is a function makes the argument from a type.
    With `targets` the layer is given true outputs to feed back.
    """

    layer: str
    arguments: dict = dataclasses.field(default_factory=dict)
    cell: Callable | None = None
    constants: tuple = ()
    targets: bool = False

    @property
    def name(self):
        inner = self.cell and f"({getattr(self.cell, '__name__', 'cell')})"
        arguments = [f"{k}={getattr(v, '__name__', v)}" for k, v in self.arguments.items()]
        return "-".join([self.layer + (inner or ""), *arguments, *(["targets"] if self.targets else [])])

    @property
    def constant_specs(self):
        """The constants of this case: of floating type, but for a count of each row."""
        return [tf.TensorSpec(s, "int32" if len(s) == 1 else "float32") for s in self.constants]

    def subject(self):
        """The cell of this case under test, as a stranger's is by `keras_seq.testing.check_cell`."""
        return CellUnderTest(self().cell, D, self.constant_specs)

    @property
    def gated(self):
        """The public cell class that holds the mathematics; None for a stranger's."""
        if self.cell is None:
            return getattr(keras_seq, self.layer + "Cell")
        return getattr(self.cell, "gated", None)

    @property
    def blocked(self):
        """Whether its context must let no gradient through."""
        by_name = self.gated in (keras_seq.ElmanCell, keras_seq.JordanCell)
        return by_name and getattr(self.cell, "arguments", self.arguments).get("blocked", True)

    def __call__(self, dtype="float32", seed=0, batch=None, **flags):
        """A built layer with random weights."""
        if self.cell is None:
            arguments = {"units": U, **self.arguments}
            arguments = {k: v(dtype) if isinstance(v, types.FunctionType) else v for k, v in arguments.items()}
            layer = getattr(keras_seq, self.layer)(dtype=dtype, **arguments, **flags)
        else:
            layer = keras_seq.RNN(self.cell(dtype), dtype=dtype, **flags)
        shapes = [(batch, *s[1:]) if s[0] is None else s for s in self.constants]
        layer.build((batch, None, D), **({"constants_shape": shapes} if shapes else {}))
        return randomised(layer, seed)


def conditioned(inner, arguments, **further):
    def cell(dtype):
        return keras_seq.ConditionedCell(inner(U, dtype=dtype, **arguments), dtype=dtype)

    cell.__name__ = "-".join([f"Conditioned({inner.__name__})", *(f"{k}={v}" for k, v in arguments.items())])
    cell.gated, cell.arguments = inner, arguments
    return Case("RNN", {}, cell, ((None, 2),), **further)


def attending(inner, arguments, width=2, **attention):
    """A cell that reads a memory of three places."""

    def cell(dtype):
        return keras_seq.AttentionCell(inner(U, dtype=dtype, **arguments), dtype=dtype, **attention)

    said = [f"{k}={v}" for k, v in (arguments | attention).items()]
    cell.__name__ = "-".join([f"Attention({inner.__name__})", *said])
    cell.gated, cell.arguments = inner, arguments
    return Case("RNN", {}, cell, ((None, 3, width),))


def tangled(dtype):
    return TangledCell(dtype=dtype)


def reader(dtype):
    return ReaderCell(dtype=dtype)


def net(dtype):
    """A network of two layers for NARX."""
    hidden = keras.layers.Dense(5, "tanh", dtype=dtype, name="first")
    return keras.Sequential([hidden, keras.layers.Dense(2, dtype=dtype, name="second")])


# NARX: the newest input and one long ago, a gap in what is known of the outputs
GAPS = {"outputs": 2, "input_delays": [0, 2], "output_delays": [1, 3]}
EVERYTHING = {"peepholes": True, "normalize": True, "projection": 3, "cell_clip": 0.4}
# the cells of Greff et al. (2017); the ninth, NP, is the LSTM
ODYSSEY = {
    "V": {},
    "NIG": {"input_gate": False},
    "NFG": {"forget_gate": False},
    "NOG": {"output_gate": False},
    "NIAF": {"candidate_activation": "linear"},
    "NOAF": {"cell_activation": "linear"},
    "CIFG": {"coupled": True},
    "FGR": {"full_gate_recurrence": True},
}

# one of each kind: held to everything, in all ways to run it
KINDS = [
    Case("SimpleRNN"),
    Case("SimpleRNN", {"outputs": 2, "output_activation": "tanh"}),
    Case("Elman", {"outputs": 2}),
    Case("Elman", {"blocked": False}),
    Case("Jordan", {"outputs": 2, "output_activation": "tanh", "decay": 0.3}),
    Case("Jordan", {"outputs": 2, "blocked": False, "decay": 0.25}),
    Case("Jordan", {"outputs": 2, "decay": 0.8}, targets=True),
    Case("Jordan", {"outputs": 2, "blocked": False, "decay": 0.75}, targets=True),
    Case("ResidualRNN"),
    Case("ResidualRNN", {"recurrent": False}),
    Case("MinGRU"),
    Case("LinearRNN", {"transition": "full"}),
    Case("LRU", {"outputs": 2, "use_bias": True, "r_min": 0.5}),
    Case("NARX", GAPS, targets=True),
    Case("NARX", {**GAPS, "closed": True}),
    Case("AR", {"units": None, "outputs": 2, "output_delays": [2, 3], "closed": True}),
    Case("LSTM"),
    Case("LSTM", {"peepholes": True, "full_gate_recurrence": True}),
    Case("LSTM", EVERYTHING),
    Case("PeepholeLSTM"),
    Case("CoupledLSTM"),
    Case("CoupledLSTM", {"peepholes": True}),
    Case("NoForgetLSTM"),
    Case("GRU", {"reset_after": True}),
    Case("GRU", {"reset_after": False}),
    conditioned(keras_seq.LSTMCell, {}),
    conditioned(keras_seq.GRUCell, {"reset_after": False}),
    attending(keras_seq.GRUCell, {"reset_after": False}, output_units=3, input_feeding=True),
    Case("RNN", {}, tangled),
    Case("RNN", {}, reader, ((None, 3, 2), (4, 4), (None,))),
]
# their other switches
FURTHER = [
    Case("SimpleRNN", {"activation": "relu", "use_bias": False}),
    Case("SimpleRNN", {"outputs": 2, "use_bias": False, "zoneout": 0.25}),
    Case("Elman"),
    Case("Elman", {"blocked": False, "outputs": 2, "use_bias": False}),
    Case("Jordan", {"outputs": 2, "decay": 0.0, "use_bias": False, "activation": "softsign", "zoneout": 0.25}),
    Case("ResidualRNN", {"use_bias": False, "activation": "softsign", "zoneout": 0.25}),
    Case("MinGRU", {"activation": "tanh", "use_bias": False, "zoneout": 0.25}),
    Case("MinLSTM"),
    Case("MinLSTM", {"normalize": False, "activation": "tanh", "use_bias": False, "zoneout": 0.25}),
    Case("LinearRNN", {"stable": True, "outputs": 2, "output_activation": "tanh", "zoneout": 0.25}),
    Case("LinearRNN", {"activation": "softsign", "use_bias": False}),
    Case("LRU", {"activation": "tanh", "r_max": 0.9, "max_phase": 1.0, "zoneout": 0.25}),
    Case("NARX", {**GAPS, "units": None}, targets=True),
    Case(
        "NARX", {"units": None, "use_bias": False, "output_activation": "tanh", "input_delays": [1, 2], "closed": True}
    ),
    Case("NARX", {**GAPS, "units": None, "network": net}, targets=True),
    Case("NARX", {**GAPS, "units": None, "network": net, "closed": True}),
    Case("AR", {"outputs": D, "output_delays": 2, "activation": "softsign"}),
    Case("LSTM", {"activation": "softsign", "recurrent_activation": "hard_sigmoid", "use_bias": False}),
    *[
        Case("LSTM", {"peepholes": True, **switch})
        for switch in ODYSSEY.values()
        if "full_gate_recurrence" not in switch
    ],
    Case("LSTM", {"normalize": True}),
    Case("LSTM", {"projection": 3}),
    Case("LSTM", {"cell_clip": 0.4}),
    Case("LSTM", {"zoneout": [0.25, 0.125]}),
    Case("LSTM", {"coupled": True, "projection": 2}),
    Case("LSTM", {"full_gate_recurrence": True, "projection": 3, "zoneout": 0.25, "use_bias": False}),
    Case("LSTM", {"normalize": True, "coupled": True, "output_gate": False, "use_bias": False}),
    Case("PeepholeLSTM", {"use_bias": False}),
    Case("NoForgetLSTM", {"activation": "softsign"}),
    Case("GRU", {"reset_after": True, "use_bias": False, "recurrent_activation": "hard_sigmoid"}),
    Case("GRU", {"reset_after": False, "activation": "softsign", "use_bias": False}),
    Case("GRU", {"reset_after": False, "zoneout": 0.25}),
    conditioned(keras_seq.ElmanCell, {"outputs": 2}),
    conditioned(keras_seq.LSTMCell, {"zoneout": [0.25, 0.125], "projection": 3}),
    conditioned(keras_seq.JordanCell, {"outputs": 2, "blocked": False, "decay": 0.2}, targets=True),
    attending(keras_seq.LSTMCell, {"peepholes": True, "zoneout": 0.25}, units=5),
    attending(keras_seq.LSTMCell, {"projection": 3}, query="after", score="general"),
    attending(keras_seq.GRUCell, {}, query="after", units=3),
    attending(keras_seq.SimpleRNNCell, {}, U, query="after", score="dot", output_activation="linear"),
    attending(keras_seq.GRUCell, {}, score="multi_head", heads=2),
    attending(
        keras_seq.LSTMCell, {}, query="after", score="multi_head", heads=2, units=3, output_units=3, input_feeding=True
    ),
]
CASES = [*KINDS, *FURTHER]
BUILT_IN = [c for c in CASES if c.gated]
WITHOUT_LOOP = ("NARX", "AR", "ResidualRNN", "MinGRU", "LinearRNN", "LRU")
# of each kind those that read one sequence and want no other arguments
ONE_OF_EACH = [c for c in KINDS if not c.targets and c.layer not in WITHOUT_LOOP]
# the first of each layer, and of what wraps a cell: what is asked of every public class by the quick tests
QUICK = list({(c.layer, c.cell and c.cell.__name__.partition("(")[0]): c for c in reversed(KINDS)}.values())[::-1]
KERAS_ARGUMENTS = {"activation", "recurrent_activation", "use_bias", "reset_after"}
KERAS_TWINS = [c for c in CASES if c.layer in ("SimpleRNN", "LSTM", "GRU") and set(c.arguments) <= KERAS_ARGUMENTS]


def named(cases, quick=None):
    """Arguments of `pytest.mark.parametrize` for these cases; those that are not among the `quick` are deep."""

    def row(case):
        return pytest.param(case, id=case.name, marks=() if quick is None or case in quick else pytest.mark.deep)

    return {"argnames": "case", "argvalues": list(map(row, cases))}

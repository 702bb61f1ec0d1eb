"""One table of the layers that are made of others, and of convolutions in time; and what each must give, in NumPy.

The equations are run row by row over the real steps alone, loops written out. Axes: t time, d input features, u units.
"""

import dataclasses
import inspect
from collections.abc import Callable

import keras
import numpy as np
import pytest
from cases import B, D
from oracles import Oracle, function

import keras_seq
from keras_seq.testing.runs import MASK, randomised

STEPS = 9
# as in `cases`, longer: a whole row, holes, padding left and right, nothing at all
LONG_MASK = np.concatenate([MASK, MASK[[0, 1, 2, 3]][:, ::-1]], axis=1)[:, :STEPS]


@dataclasses.dataclass(frozen=True)
class Structure:
    """A layer by what makes it from a type.

    `stepwise` is whether it has a step form, `sees` the distances of the inputs that an output may depend on, None for all
    up to its own step.
    """

    name: str
    make: Callable
    stepwise: bool = True
    sees: tuple | None = None

    def __call__(self, dtype="float64", seed=0):
        layer = self.make(dtype)
        layer.build((None, None, D))
        return randomised(layer, seed)


def rnn(kind, units=4, **arguments):
    def make(dtype, **flags):
        return getattr(keras_seq, kind)(units, dtype=dtype, **{**arguments, **flags})

    return make


def parts(dtype, *makes, last=True):
    """Layers that return sequences, the last one only if `last`."""
    flags = [{"return_sequences": i < len(makes) - 1 or last} for i in range(len(makes))]
    return [make(dtype, **flag) for make, flag in zip(makes, flags, strict=True)]


def stacked(*makes, last=True, **arguments):
    return lambda dtype: keras_seq.Stacked(parts(dtype, *makes, last=last), dtype=dtype, **arguments)


def both(make, **arguments):
    def made(dtype):
        return keras_seq.Bidirectional(make(dtype), dtype=dtype, **arguments)

    return made


def layer(kind, *arguments, **keywords):
    def make(dtype, **flags):
        cls = getattr(keras_seq, kind)
        flags = flags if "return_sequences" in inspect.signature(cls).parameters else {}
        return cls(*arguments, dtype=dtype, **{**keywords, **flags})

    return make


@keras.saving.register_keras_serializable(package="tests")
def difference(y, z):
    return y - 2.0 * z


SEQUENCES, ZEROS = {"return_sequences": True}, {"zero_output_for_mask": True}
STRUCTURES = [
    Structure("Stacked-LSTM-GRU", stacked(rnn("LSTM", 3), rnn("GRU", 4), return_state=True)),
    Structure("Stacked-residual", stacked(*[rnn("LSTM", 4)] * 3, skips="residual", last=False)),
    Structure(
        "Stacked-residual-sequences", stacked(*[rnn("Jordan", 3, outputs=4, blocked=False)] * 2, skips="residual")
    ),
    Structure(
        "Stacked-dense", stacked(rnn("GRU", 3), rnn("LSTM", 2, projection=2), rnn("SimpleRNN", 4), skips="dense")
    ),
    Structure(
        "Stacked-dense-last", stacked(rnn("LSTM", 3), rnn("GRU", 2), skips="dense", last=False, return_state=True)
    ),
    # hidden steps give zeros: the last real one is not the last one; the first layer has the width of the input already
    Structure(
        "Stacked-dense-zeros", stacked(rnn("GRU", 3, **ZEROS), rnn("LSTM", 2, **ZEROS), skips="dense", last=False)
    ),
    Structure("Stacked-residual-zeros", stacked(*[rnn("GRU", D, **ZEROS)] * 3, skips="residual", last=False)),
    Structure(
        "Stacked-of-all-kinds",
        stacked(layer("TDNN", 3, delays=2), rnn("PeepholeLSTM", 3), layer("TCN", 4, dilations=[1, 2], kernel_size=2)),
    ),
    Structure("Bidirectional-LSTM", both(rnn("LSTM", 3, return_sequences=True, return_state=True)), stepwise=False),
    Structure("Bidirectional-last", both(rnn("CoupledLSTM", 3), merge_mode="sum"), stepwise=False),
    Structure(
        "Bidirectional-mul",
        both(rnn("GRU", 3, zero_output_for_mask=True, **SEQUENCES), merge_mode="mul"),
        stepwise=False,
    ),
    Structure("Bidirectional-ave", both(rnn("SimpleRNN", 3, **SEQUENCES), merge_mode="ave"), stepwise=False),
    Structure("Bidirectional-none", both(rnn("GRU", 3, **SEQUENCES), merge_mode=None), stepwise=False),
    Structure("Bidirectional-function", both(rnn("GRU", 3, **SEQUENCES), merge_mode=difference), stepwise=False),
    Structure(
        "Bidirectional-two-kinds",
        lambda dtype: keras_seq.Bidirectional(
            keras_seq.LSTM(3, return_sequences=True, dtype=dtype),
            backward_layer=keras_seq.GRU(2, return_sequences=True, go_backwards=True, dtype=dtype),
            dtype=dtype,
        ),
        stepwise=False,
    ),
    Structure(
        "Bidirectional-of-a-stack",
        both(stacked(rnn("LSTM", 3), rnn("GRU", 3), skips="dense", last=False)),
        stepwise=False,
    ),
    Structure("Bidirectional-of-a-TCN", both(layer("TCN", 3, dilations=[1, 2], **SEQUENCES)), stepwise=False),
    Structure(
        "Stacked-of-Bidirectional",
        lambda dtype: keras_seq.Stacked([both(rnn("LSTM", 2, **SEQUENCES))(dtype), rnn("GRU", 3)(dtype)], dtype=dtype),
        stepwise=False,
    ),
    Structure("TDNN-delays", layer("TDNN", 4, delays=3), sees=(0, 1, 2)),
    Structure("TDNN-past", layer("TDNN", 4, context=[-4, -1], activation="softsign", use_bias=False), sees=(1, 4)),
    Structure(
        "TDNN-uneven",
        layer("TDNN", 4, context=[-5, -2, 0], weight_normalization=True, zero_output_for_mask=True),
        sees=(0, 2, 5),
    ),
    Structure("TDNN-splice", layer("TDNN", 4, context=[-2, 0, 2]), stepwise=False, sees=(-2, 0, 2)),
    Structure("TDNN-ahead", layer("TDNN", 4, context=[1, 2]), stepwise=False, sees=(-2, -1)),
    Structure("TDNN-subsampling", layer("TDNN", 4, context=[-1, 0, 1], subsampling=2), stepwise=False),
    Structure(
        "Stacked-splices",
        stacked(
            layer("TDNN", 4, context=[-1, 0, 1]),
            layer("TDNN", 4, context=[-1, 2], subsampling=2),
            layer("TDNN", 3, delays=2),
        ),
        stepwise=False,
    ),
    Structure(
        "TCN",
        layer("TCN", [3, 3, 4], kernel_size=2, dilations=[1, 2, 1], activation="tanh", **SEQUENCES),
        sees=tuple(range(9)),
    ),
    Structure("TCN-last", layer("TCN", 3, dilations=[1, 2], weight_normalization=False, activation="tanh")),
    Structure("WaveNet", layer("WaveNet", 3, dilations=[1, 2, 1], outputs=5), sees=tuple(range(6))),
    Structure(
        "WaveNet-skips", layer("WaveNet", 3, kernel_size=3, dilations=[1, 2], skip_filters=4, zero_output_for_mask=True)
    ),
    Structure("LastStep", layer("LastStep")),
    Structure("MaskedMean", layer("MaskedMean")),
    Structure("MaskedMax", layer("MaskedMax")),
]


def named(some, quick=None):
    """Arguments of `pytest.mark.parametrize` for these; those that are not among the `quick` are deep."""

    def row(structure):
        marks = () if quick is None or structure in quick else pytest.mark.deep
        return pytest.param(structure, id=structure.name, marks=marks)

    return {"argnames": "structure", "argvalues": list(map(row, some))}


def data(b=B, t=STEPS, seed=0, dtype="float64"):
    """`(sequences, mask)`, the mask for at most four rows."""
    rng = np.random.default_rng([seed, 5])
    return rng.normal(size=(b, t, D)).astype(dtype), LONG_MASK[:b, :t]


# -- the equations -------------------------------------------------------------------------------------------------------


def reference(layer, sequences, mask=None, states=None):
    """What a layer must give: a flat list of outputs and, where it returns them, states, (b, ..) each."""
    mask = np.ones(sequences.shape[:2], bool) if mask is None else mask
    rows = []
    for r, (x, m) in enumerate(zip(sequences, mask, strict=True)):
        given = None if states is None else [s[r] for s in states]
        outputs, finals, _ = one_row(layer, x, m, given)
        rows.append([*outputs, *(finals if getattr(layer, "return_state", False) else [])])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def one_row(layer, x, m, states=None):
    """`([outputs], final states, the mask of the outputs)` of one row (t, d)."""
    kind = type(layer).__name__
    if kind == "Stacked":
        return stack(layer, x, m, states)
    if kind == "Bidirectional":
        return two_ways(layer, x, m, states)
    if kind in ("LastStep", "MaskedMean", "MaskedMax"):
        real = x[m] if m.any() else np.zeros((1, x.shape[1]))
        return [{"LastStep": real[-1], "MaskedMean": real.mean(0), "MaskedMax": real.max(0)}[kind]], [], None
    if kind in ("TDNN", "TCN", "WaveNet"):
        run, finals = {"TDNN": delayed, "TCN": tcn, "WaveNet": wavenet}[kind](layer, x[m]), []
    else:
        cell = Oracle(layer.cell) if isinstance(layer.cell, keras_seq.Cell) else OfKeras(layer)
        finals = [s.numpy()[0] for s in layer.first_state(1)] if states is None else states
        reading, run = x[m][::-1] if layer.go_backwards else x[m], []
        for now in reading:
            fed = {"target": now} if kind == "AR" and not layer.closed else {}  # its input is the series itself
            y, finals, _ = cell.step(now, finals, **fed)
            run.append(y)
        if layer.go_backwards:
            m = m[::-1]
        run = np.reshape(run, (-1, layer.output_width))
    every = getattr(layer, "subsampling", 1)
    if every > 1:
        count = len(run)
        m = np.arange(-(-len(m) // every)) < count
    outputs, last = np.zeros((len(m), run.shape[-1])), np.zeros(run.shape[-1])
    if not layer.return_sequences:
        return [run[-1] if len(run) else last], finals, m
    left = iter(run)
    for t, real in enumerate(m):
        last = next(left) if real else 0 * last if layer.zero_output_for_mask else last
        outputs[t] = last
    return [outputs], finals, m


class OfKeras:
    """A cell of Keras as it runs by itself."""

    def __init__(self, layer):
        self.cell = layer.cell

    def step(self, x, states):
        states = keras.tree.pack_sequence_as(self.cell.state_size, [s[None] for s in states])
        y, new = self.cell(x[None], states if isinstance(states, list) else [states])
        return y.numpy()[0], [s.numpy()[0] for s in keras.tree.flatten(new)], {}


def stack(layer, x, m, states):
    left = None if states is None else list(states)
    finals, outputs = [], []
    for i, part in enumerate(layer.layers):
        n = len(part.state_size)
        given, left = (None, None) if left is None else (left[:n], left[n:])
        before = m
        [h], new, m = one_row(part, x, m, given)
        finals += new
        if h.ndim == 1:
            ends = np.flatnonzero(before)
            x, outputs = (
                x[ends[-1]] if len(ends) else 0 * x[0],
                [o[ends[-1]] if len(ends) else 0 * o[0] for o in outputs],
            )
        outputs.append(h)
        if layer.skips == "dense":
            x = np.concatenate([x, h], -1)
        elif layer.skips and i:
            x = x + h
        else:
            x = h
    return [np.concatenate(outputs, -1) if layer.skips == "dense" else x], finals, m


def two_ways(layer, x, m, states):
    n = len(layer.forward_layer.state_size)
    first, second = (None, None) if states is None else (states[:n], states[n:])
    [y], finals, _ = one_row(layer.forward_layer, x, m, first)
    turned = not getattr(layer.backward_layer, "go_backwards", False)
    [z], further, _ = one_row(layer.backward_layer, *((x[::-1], m[::-1]) if turned else (x, m)), second)
    z = z[::-1] if layer.return_sequences else z
    merged = {
        "concat": lambda: [np.concatenate([y, z], -1)],
        "sum": lambda: [y + z],
        "mul": lambda: [y * z],
        "ave": lambda: [(y + z) / 2],
        None: lambda: [y, z],
    }.get(layer.merge_mode, lambda: [y - 2 * z])()
    return merged, [*finals, *further], m


def delayed(layer, x):
    """sum_k x_{t+c_k} W_k."""
    w = layer.kernel.numpy()
    if layer.scale is not None:
        for unit in range(w.shape[-1]):
            w[..., unit] *= layer.scale.numpy()[unit] / np.sqrt(np.sum(w[..., unit] ** 2))
    found = []
    for t in range(0, len(x), layer.subsampling):
        total = np.zeros(w.shape[-1]) if layer.bias is None else layer.bias.numpy().copy()
        for k, c in enumerate(layer.distances):
            if 0 <= t + c < len(x):
                total = total + x[t + c] @ w[k]
        found.append(function(layer.activation)(total))
    return np.reshape(found, (-1, w.shape[-1]))


def tcn(layer, x):
    f = function(layer.activation)
    for i, shortcut in enumerate(layer.shortcuts):
        z = delayed(layer.parts[2 * i + 1], delayed(layer.parts[2 * i], x))
        x = f(z + (x if shortcut is None else dense(shortcut, x)))
    return x


def wavenet(layer, x):
    x, total = delayed(layer.parts[0], x), 0
    for i, part in enumerate(layer.parts[1:]):
        both_gates = delayed(part, x)
        signal, gate = both_gates[:, : layer.filters], both_gates[:, layer.filters :]
        z = np.tanh(signal) / (1 + np.exp(-gate))
        total = total + dense(layer.skips[i], z)
        if i < len(layer.residuals):
            x = x + dense(layer.residuals[i], z)
    y = np.maximum(total, 0)
    for i, last in enumerate(layer.last):
        y = dense(last, np.maximum(y, 0) if i else y)
    return y


def dense(layer, x):
    return x @ layer.kernel.numpy() + layer.bias.numpy()

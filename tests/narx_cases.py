"""NARX and AR: what their tests share, namely layers of every kind, data for them, and the equations in NumPy."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq

B, T, D, K, W = 4, 8, 3, 2, 4  # W: steps of a warm-up
RAGGED = np.array(
    [
        [True, False, True, True, False, False, True, True],  # the rest after the warm-up begins with hidden steps
        [False, True, False, True, False, False, False, False],  # or is hidden altogether
        [False, False, False, False, True, True, False, True],  # or the warm-up is
        [False, False, False, False, False, False, False, False],
    ]
)


def net(outputs=K):
    return keras.Sequential([keras.layers.Dense(5, "tanh", name="a"), keras.layers.Dense(outputs, name="b")])


CASES = {
    "linear": lambda **f: keras_seq.NARX(outputs=K, input_delays=2, output_delays=[1, 2, 4], **f),
    "linear, one output": lambda **f: keras_seq.NARX(output_activation="tanh", input_delays=[0], **f),
    "hidden": lambda **f: keras_seq.NARX(4, K, input_delays=[0, 2, 3], output_delays=[1, 3], **f),
    "hidden, late": lambda **f: keras_seq.NARX(4, K, input_delays=[1, 3], output_delays=[2], use_bias=False, **f),
    "network": lambda **f: keras_seq.NARX(
        network=_in_type(net(), f), outputs=K, input_delays=[0, 2], output_delays=2, **f
    ),
    "network, late": lambda **f: keras_seq.NARX(network=_in_type(net(), f), outputs=K, input_delays=[2], **f),
    "AR": lambda **f: keras_seq.AR(outputs=K, output_delays=[1, 4], **f),
    "AR, hidden": lambda **f: keras_seq.AR(5, K, output_delays=2, activation="softsign", **f),
    "AR, network": lambda **f: keras_seq.AR(network=_in_type(net(), f), outputs=K, output_delays=[2, 3], **f),
}


def names(some=tuple(CASES), quick=("hidden", "AR")):
    """Marks a test to run over some of the cases; those that are not among the `quick` are deep."""
    rows = [pytest.param(name, marks=() if name in quick else pytest.mark.deep) for name in some]
    return pytest.mark.parametrize("name", rows)


every_case = names()
SOME = ["linear", "hidden", "network", "AR"]
some_cases = names(SOME)
LOOPS = {"open": T, "closed": 0, "warm-up": W}  # how many steps have targets
every_loop = pytest.mark.parametrize("loop", LOOPS)
masked_or_not = pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
WHOLE = {"return_sequences": True, "return_state": True}


def _in_type(network, flags):
    """A small network in the type of its layer."""
    for layer in network.layers:
        layer.dtype_policy = keras.DTypePolicy(flags.get("dtype") or "float32")
    return network


def made(name, seed=0, batch=None, dtype="float64", **flags):
    """A built layer of this case with random weights."""
    layer = CASES[name](dtype=dtype, **{**WHOLE, **flags})
    layer.build((batch, None, D if layer.cell.exogenous else layer.cell.outputs))
    return conformance.randomised(layer, seed)


class Given:
    """Random sequences, true outputs, initial states and a mask for a layer."""

    def __init__(self, layer, loop="open", masked=False, b=B, t=T, seed=3):
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(b, t, D if layer.cell.exogenous else layer.cell.outputs))
        self.y = rng.normal(size=(b, t, layer.cell.outputs))
        self.states = [0.5 * rng.normal(size=(b, size)) for size in layer.state_size]
        self.mask = RAGGED if masked else None
        self.targets = self.y[:, : LOOPS[loop]] if LOOPS[loop] else None
        self.layer = layer if loop == "open" else layer.close_loop()

    def run(self, **changed):
        """The results of the layer, flat."""
        given = {
            "sequences": self.x,
            "targets": self.targets,
            "initial_state": self.states,
            "mask": self.mask,
            **changed,
        }
        given = tf.nest.map_structure(lambda v: None if v is None else tf.convert_to_tensor(v), given)
        return tf.nest.flatten(self.layer(**given))


# -- the equations, one row and one step at a time -----------------------------------------------------------------------

FUNCTIONS = {"tanh": np.tanh, "linear": lambda x: x, "softsign": lambda x: x / (1 + np.abs(x))}


def oracle(cell, x, targets, states, mask=None, backwards=False, zero=False):
    """Outputs and final states: step t sees x at t - d for the input delays, y at t - d for the output delays."""
    weights = {w.path.split("/", 2)[-1]: w.numpy() for w in cell.weights}
    f, g = (FUNCTIONS[keras.activations.serialize(a)] for a in (cell.activation, cell.output_activation))

    def apply(u):
        if cell.network is not None:
            (w1, b1), (w2, b2) = (layer.get_weights() for layer in cell.network.layers)
            return np.tanh(u @ w1 + b1) @ w2 + b2
        rows = [weights[k] for k in ("kernel", "recurrent_kernel") if k in weights]
        z = u @ np.concatenate(rows, axis=0) + weights.get("bias", 0)
        return g(z) if cell.units is None else g(f(z) @ weights["output_kernel"] + weights.get("output_bias", 0))

    k, d = cell.outputs, x.shape[-1]
    known = 0 if targets is None else targets.shape[1]
    outputs = np.zeros((*x.shape[:2], k))
    final = [np.array(s) for s in states]
    for row in range(len(x)):
        ys = list(states[0][row].reshape(-1, k)[::-1])  # the newest comes last
        xs = list(states[1][row].reshape(-1, d)[::-1]) if len(states) > 1 else []
        last = np.zeros(k)
        order = range(x.shape[1])[::-1] if backwards else range(x.shape[1])
        for place, t in enumerate(order):
            if mask is None or mask[row, t]:
                now = [*xs, x[row, t]]
                seen = [now[-1 - delay] for delay in cell.input_delays] if cell.exogenous else []
                last = apply(np.concatenate([*seen, *(ys[-delay] for delay in cell.output_delays)]))
                ys.append(targets[row, t] if t < known else last)
                xs = now
            elif zero:
                last = np.zeros(k)
            outputs[row, place] = last
        windows = [(ys, final[0]), (xs, final[1])] if len(states) > 1 else [(ys, final[0])]
        for values, window in windows:
            n = window.shape[-1] // len(values[0])
            window[row] = np.concatenate(values[-n:][::-1])
    return [outputs, *final]

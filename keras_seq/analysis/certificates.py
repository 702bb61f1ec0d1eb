"""What can be proved of a live layer from its weights alone: that it stays bounded, that it forgets where it was."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.arguments import positive_number
from keras_seq.cells.gru import GRUCell
from keras_seq.cells.lstm import LSTMCell
from keras_seq.cells.simple import SimpleRNNCell
from keras_seq.layers import TDNN

# of each activation: the steepest slope, and the greatest modulus
SLOPES = {
    "linear": (1.0, math.inf),
    "relu": (1.0, math.inf),
    "leaky_relu": (1.0, math.inf),
    "elu": (1.0, math.inf),
    "softplus": (1.0, math.inf),
    "tanh": (1.0, 1.0),
    "hard_tanh": (1.0, 1.0),
    "softsign": (1.0, 1.0),
    "sigmoid": (0.25, 1.0),
    "hard_sigmoid": (1 / 6, 1.0),
    "relu6": (1.0, 6.0),
}


class Certificate(NamedTuple):
    """What is proved, or that nothing is."""

    proven: bool
    """Whether the sufficient condition holds. If not, nothing follows: the layer may have the property all the same."""
    value: float
    """The bound, or the rate; NaN where nothing is proved."""
    statement: str
    """The condition with its numbers, and what follows."""


def bibo_certificate(layer: Any, input_bound: float = 1.0, of: Of = None) -> Certificate:
    """Whether bounded inputs are proved to give bounded states, and by which bound: a sufficient condition on the weights.

        TDNN                |y| <= sup |f|, or else L (M |W| + |b|) + |f(0)|: by construction
        SimpleRNN, Elman    |h| <= sup |f|; with f unbounded, where q = L |U| < 1, |h| <= (L (M |W| + |b|) + |f(0)|) / (1 - q)
        GRU                 |h| <= 1: each step takes a mean of what was and a tanh
        LSTM                |h| <= 1;  |c| <= i g / (1 - f), the gates at the most that inputs up to M open them

    with M the bound of the inputs, L the greatest slope of the activation f, and |.| the greatest modulus, of a matrix the norm
    that goes with it; in the second row the Euclidean norm if it is the smaller. It is true of a start at zero, in exact
    arithmetic, at inference.

    Args:
        layer: a built layer of these, of ours or Keras's, or a `Stacked`, `Bidirectional` or model that has one.
        input_bound: positive number M: no input of the layer exceeds it in modulus.
        of: which layer within the given one is meant, as in `state_gradients`.

    Returns:
        A `Certificate`, whose `value` is the bound of all states (of a TDNN, of its outputs). Of other layers, variants with
        peepholes or normalisation, subclasses with steps of their own and other activations it proves nothing, and says so.

    Raises:
        TypeError, ValueError: a layer without recurrence that is no TDNN, or not built; weights that are not finite; an input
            bound that is not positive.
        RuntimeError: a backend other than TensorFlow.

    Source: for the LSTM, Terzi et al., "Learning model predictive control with long short-term memory networks", International
    Journal of Robust and Nonlinear Control 31(18), 2021.

    Example:

    ```python
    import keras_seq
    from keras_seq.analysis import bibo_certificate
    layer = keras_seq.SimpleRNN(4, activation=None)   # an orthogonal kernel: nothing is proved
    layer.build((None, None, 3))
    print(bibo_certificate(layer).statement)
    ```
    """
    bound = positive_number("input_bound", input_bound)
    if isinstance(layer, TDNN):
        return _bounded_delays(layer, bound)
    dynamics = Dynamics(layer, of)
    dynamics.weights()
    cell = dynamics.layer.cell
    if _is_simple(cell):
        return _bounded_simple(cell, bound)
    if _is_gru(cell):
        return Certificate(
            True,
            1.0,
            "Bounded: each step of the GRU takes a mean of its state and a tanh; |h| <= 1 from a start at zero.",
        )
    if _is_lstm(cell):
        gates = _gates(cell, bound, "ifgo")
        c = gates["i"] * gates["g"] / (1 - gates["f"])
        if not np.all(np.isfinite(c)):
            return _nothing("the forget gate may open to 1 but for rounding, so that no bound of c follows")
        value = float(max(1.0, c.max()))
        return Certificate(
            True,
            value,
            f"Bounded: with inputs up to {bound:.3g} the forget gates stay below 1 by {1 - gates['f'].max():.2g} at least, so "
            f"that from a start at zero |h| <= 1 and |c| <= {c.max():.4g}.",
        )
    return _nothing(f"no condition is known here for {type(cell).__name__} with these settings")


def contraction_certificate(layer: Any, input_bound: float = 1.0, of: Of = None) -> Certificate:
    """Whether two runs on the same inputs are proved to come together, and how fast: a sufficient condition on the weights.

        SimpleRNN, Elman    q = L |U| < 1, in the Euclidean or the maximum norm: |h_t - h'_t| <= q^t |h_0 - h'_0|
        GRU                 q < 1, from the most that inputs up to M open the gates, in the maximum norm
        LSTM                likewise, in a maximum norm that weighs h and c apart
        TDNN                q = 0: nothing older than its context is seen

    A layer with q < 1 forgets its start at that rate at least, whatever it reads within the bound: it has no chaos, and one
    fixed point for each constant input. q >= 1 says nothing of the sort, and nothing of the contrary: data decide
    (`lyapunov_spectrum`).

    Of a GRU, with G the bound of how its candidate follows the state, s the most that a gate opens, and |U_z| that of a unit,

        q = max s_z + (1 - s_z) G + (1 + s_g) |U_z| / 4,   or with the least z in place of s_z where G > 1

    and of an LSTM q is the spectral radius of the matrix A with (dc, dh)_t <= A (dc, dh)_{t-1},

        A = [[s_f, a], [s_o s_f, s_o a + tanh(max |c|) |U_o| / 4]],   a = max |c| |U_f| / 4 + s_i |U_g| + s_g |U_i| / 4

    for states with |h| <= 1, and of an LSTM |c| <= i g / (1 - f) unit by unit, which no run from zero leaves.

    Args:
        layer, input_bound, of: as in `bibo_certificate`; of a SimpleRNN the bound does not matter.

    Returns:
        A `Certificate`, whose `value` is q. As there, of other layers it proves nothing.

    Raises:
        TypeError, ValueError, RuntimeError: as `bibo_certificate`.

    Source: for the LSTM and the GRU the idea is that of Bonassi et al., "On recurrent neural networks for learning-based
    control", Journal of Process Control 114, 2022.

    Example:

    ```python
    import keras_seq
    from keras_seq.analysis import contraction_certificate
    from keras_seq.training import SpectralRadiusInitializer
    layer = keras_seq.SimpleRNN(4, recurrent_initializer=SpectralRadiusInitializer(0.5, "orthogonal"))
    layer.build((None, None, 3))
    print(contraction_certificate(layer).value)   # 0.5
    ```
    """
    bound = positive_number("input_bound", input_bound)
    if isinstance(layer, TDNN):
        return Certificate(True, 0.0, "Forgets: outputs see the inputs of their context, and nothing older.")
    dynamics = Dynamics(layer, of)
    dynamics.weights()
    cell = dynamics.layer.cell
    if _is_simple(cell):
        slope, _ = SLOPES[_name(cell.activation)]
        norm, kind = _norm(_array(cell.recurrent_kernel))
        condition = f"L |U| = {slope * norm:.4g} in the {kind} norm"
        return _contraction(slope * norm, condition)
    if _is_gru(cell):
        return _contraction(_gru_rate(cell, bound), f"the bound of the GRU's step with inputs up to {bound:.3g}")
    if _is_lstm(cell):
        return _contraction(
            _lstm_rate(cell, bound),
            f"the bound of the LSTM's step, h and c weighed apart, with inputs up to {bound:.3g}",
        )
    return _nothing(f"no condition is known here for {type(cell).__name__} with these settings")


def _contraction(q, condition):
    if q < 1:
        return Certificate(
            True,
            float(q),
            f"Forgets: {condition}{'' if '=' in condition else f' is {q:.4g}'}, below 1; two runs on the same inputs come "
            f"together by that factor a step at least.",
        )
    return _nothing(f"{condition}{'' if '=' in condition else f' is {q:.4g}'}, not below 1")


def _nothing(why):
    return Certificate(False, math.nan, f"Nothing is proved: {why}. The layer may behave well all the same.")


def _bounded_simple(cell, bound):
    slope, most = SLOPES[_name(cell.activation)]
    if math.isfinite(most):
        return Certificate(
            True, most, f"Bounded: the activation does not exceed {most:g} in modulus, and it is the state."
        )
    kernel, recurrent = _array(cell.kernel), _array(cell.recurrent_kernel)
    norm, kind = _norm(recurrent)
    q = slope * norm
    if q >= 1:
        return _nothing(f"L |U| = {q:.4g} in the {kind} norm, not below 1, and the activation has no bound")
    at_zero = abs(float(cell.activation(np.zeros(1))[0]))
    drive = slope * (bound * np.abs(kernel).sum(axis=0) + np.abs(_bias(cell))) + at_zero
    drive = drive.max() if kind == "maximum" else np.linalg.norm(drive)
    value = float(drive / (1 - q))
    return Certificate(
        True,
        value,
        f"Bounded: L |U| = {q:.4g} in the {kind} norm, below 1; with inputs up to {bound:.3g} |h| <= {value:.4g} from a "
        "start at zero.",
    )


def _bounded_delays(layer, bound):
    if not layer.built:
        raise ValueError(f"layer: expected a built layer, got {layer.name}; call it on data first")
    name = _name(layer.activation)
    if name not in SLOPES or layer.weight_normalization:
        return _nothing("no condition is known here for this activation, or with weight normalisation")
    slope, most = SLOPES[name]
    if not math.isfinite(most):
        bias = 0.0 if layer.bias is None else np.abs(_array(layer.bias))
        at_zero = abs(float(layer.activation(np.zeros(1))[0]))
        most = float((slope * (bound * np.abs(_array(layer.kernel)).sum(axis=(0, 1)) + bias) + at_zero).max())
    return Certificate(
        True,
        most,
        f"Bounded by construction: a finite sum of inputs up to {bound:.3g} gives outputs of at most {most:.4g}.",
    )


# -- which cells these are: exactly those whose step is what the conditions are about ----------------------------------------


def _is_simple(cell):
    ours = isinstance(cell, SimpleRNNCell) and _steps_as(cell, SimpleRNNCell)
    theirs = isinstance(cell, keras.layers.SimpleRNNCell) and type(cell).call is keras.layers.SimpleRNNCell.call
    return (ours or theirs) and _name(cell.activation) in SLOPES


def _is_gru(cell):
    ours = isinstance(cell, GRUCell) and _steps_as(cell, GRUCell)
    theirs = isinstance(cell, keras.layers.GRUCell) and type(cell).call is keras.layers.GRUCell.call
    return (ours or theirs) and _usual(cell)


def _is_lstm(cell):
    theirs = isinstance(cell, keras.layers.LSTMCell) and type(cell).call is keras.layers.LSTMCell.call
    ours = isinstance(cell, LSTMCell) and _steps_as(cell, LSTMCell)
    if ours:
        others = (
            cell.coupled,
            cell.peepholes,
            cell.full_gate_recurrence,
            cell.normalize,
            cell.projection,
            cell.cell_clip,
        )
        others = (*others, cell.candidate_activation, cell.cell_activation)
        ours = not any(others) and cell.gates == ("input", "forget", "candidate", "output")
    return (ours or theirs) and _usual(cell)


def _steps_as(cell, kind):
    methods = ("step", "project", "run_step", "run_project")
    return all(getattr(type(cell), m) is getattr(kind, m) for m in methods) and not any(cell.zoneout_rates())


def _usual(cell):
    return cell.activation is activations.tanh and cell.recurrent_activation is activations.sigmoid


def _name(activation):
    return getattr(activation, "__name__", None) if activation is not None else "linear"


# -- bounds ----------------------------------------------------------------------------------------------------------------


def _array(weight):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(weight, "float64")))


def _bias(cell):
    return _array(cell.bias) if getattr(cell, "bias", None) is not None else np.zeros(1)


def _norm(matrix):
    """The smaller of the Euclidean and the maximum norm of h -> h U, and its name."""
    return min((np.linalg.norm(matrix, 2), "Euclidean"), (np.abs(matrix).sum(axis=0).max(), "maximum"))


def _sums(cell, bound, names):
    """Of each gate: the most that its sum can be but for the bias, the bias, and the sums of |U| of each unit."""
    u = _array(cell.recurrent_kernel).shape[0]
    kernel, recurrent = np.abs(_array(cell.kernel)).sum(axis=0), np.abs(_array(cell.recurrent_kernel)).sum(axis=0)
    bias = _bias(cell) * np.ones(len(names) * u) if _bias(cell).ndim == 1 else _bias(cell)
    parts = {}
    for i, name in enumerate(names):
        part = slice(i * u, (i + 1) * u)
        parts[name] = bound * kernel[part] + recurrent[part], bias[..., part], recurrent[part]
    return parts


def _gates(cell, bound, names):
    """The most that each gate opens, and the candidate g is in modulus."""
    found = {}
    for name, (most, bias, _) in _sums(cell, bound, names).items():
        total = bias if bias.ndim == 1 else bias.sum(axis=0)
        size = np.abs(bias) if bias.ndim == 1 else np.abs(bias).sum(axis=0)
        found[name] = np.tanh(most + size) if name == "g" else 1 / (1 + np.exp(-(most + total)))
    return found


def _lstm_rate(cell, bound):
    matrix = _lstm_matrix(cell, bound)
    return np.abs(np.linalg.eigvals(matrix)).max() if np.all(np.isfinite(matrix)) else math.inf


def _lstm_matrix(cell, bound):
    """Bounds of how (c, h) after a step follow (c, h) before it."""
    s, sums = _gates(cell, bound, "ifgo"), _sums(cell, bound, "ifgo")
    size = {name: u for name, (_, _, u) in sums.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        c = s["i"] * s["g"] / (1 - s["f"])
        a = np.max(c * size["f"] / 4 + s["i"] * size["g"] + s["g"] * size["i"] / 4)
        f, o = s["f"].max(), s["o"].max()
        return np.array([[f, a], [o * f, o * a + np.max(np.tanh(c) * size["o"]) / 4]])


def _gru_rate(cell, bound):
    s, sums = _gates(cell, bound, "zrg"), _sums(cell, bound, "zrg")
    size = {name: u for name, (_, _, u) in sums.items()}
    if cell.reset_after:
        inner = np.abs(_bias(cell)[1][-len(size["g"]) :]) if _bias(cell).ndim == 2 else 0.0
        follows = s["r"] * size["g"] + (size["g"] + inner) * size["r"] / 4
    else:
        u = len(size["g"])
        follows = (s["r"] + size["r"] / 4) @ np.abs(_array(cell.recurrent_kernel)[:, 2 * u :])
    most, bias, _ = sums["z"]
    total = bias if bias.ndim == 1 else bias.sum(axis=0)
    least = 1 / (1 + np.exp(most - total))
    z = np.where(follows > 1, least, s["z"])
    return np.max(z + (1 - z) * follows + (1 + s["g"]) * size["z"] / 4)

"""How long a memory holds: what becomes of one input, and when two can no longer be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.arguments import finite_array, positive_integer, positive_number
from keras_seq.layers import SimpleRNN
from keras_seq.typing import Activation, Tensor


class MemoryCurves(NamedTuple):
    """Responses to one input; see `memory_curves`."""

    values: np.ndarray
    """h_0 .. h_steps: (weights, biases, inputs, steps + 1), of vectors with a last axis n."""
    weights: np.ndarray
    biases: np.ndarray
    inputs: np.ndarray
    activation: str

    @property
    def spread(self) -> np.ndarray:
        """The greatest distance, in any unit, of the responses to any two of the inputs, (weights, biases, steps + 1)."""
        found = np.ptp(self.values, axis=2)
        return found if self.weights.ndim == 1 else found.max(axis=-1)


def memory_curves(
    activation: Activation = "tanh",
    weights: Any = (0.5, 0.8, 1.0, 1.5, 2.0),
    inputs: Any = (1.0, -1.0),
    biases: Sequence[float] = (0.0,),
    steps: int = 50,
) -> MemoryCurves:
    """What a simple memory makes of one input over time, for many weights, biases and inputs at once.

        h_0 = f(x + b),   h_t = f(w h_{t-1} + b)

    All of them run side by side in one `keras_seq.SimpleRNN` whose units, or groups of n units, do not see each other. A
    sigmoid with |w| < 4 runs to a value that depends on w and b alone; a relu fades, stays or blows up; tanh holds on longer,
    and with w > 1 and b = 0 for ever, but to the sign of x alone.

    Args:
        activation: f, as in Keras: "sigmoid", "tanh", "relu", None for the identity, ...
        weights: the numbers w, (k,), or matrices W, (k, n, n): h_t = f(W h_{t-1} + b).
        inputs: the numbers x, (i,), or vectors, (i, n), which every unit gets its own number of.
        biases: the numbers b, (j,), the same for all units.
        steps: positive integer.

    Returns:
        `MemoryCurves`.

    Raises:
        TypeError, ValueError: an unknown activation; weights, inputs or biases of another shape, or not finite.

    Example:

    ```python
    from keras_seq.analysis import memory_curves
    curves = memory_curves("sigmoid", weights=[-2.0, 0.5, 2.0], inputs=[-1.0, 1.0], steps=30)
    print(curves.spread[:, 0, -1])   # nothing is left of the input
    ```
    """
    steps = positive_integer("steps", steps)
    w, x, b = (
        finite_array(name, value) for name, value in (("weights", weights), ("inputs", inputs), ("biases", biases))
    )
    if w.ndim not in (1, 3) or (w.ndim == 3 and w.shape[1] != w.shape[2]) or not w.size:
        raise ValueError(f"weights: expected numbers (k,) or matrices (k, n, n), got shape {w.shape}")
    n = 1 if w.ndim == 1 else w.shape[1]
    expected = "(i,)" if w.ndim == 1 else f"(i, {n})"
    if x.ndim != (1 if w.ndim == 1 else 2) or not x.size or (w.ndim == 3 and x.shape[1] != n):
        raise ValueError(f"inputs: expected shape {expected}, got {x.shape}")
    if b.ndim != 1 or not b.size:
        raise ValueError(f"biases: expected numbers (j,), got shape {b.shape}")
    groups = len(w) * len(b)
    recurrent = np.zeros((groups, n, groups, n))
    each = np.repeat(w.reshape(-1, n, n), len(b), axis=0)
    recurrent[np.arange(groups), :, np.arange(groups), :] = np.swapaxes(each, 1, 2)
    layer = SimpleRNN(groups * n, activation=activation, return_sequences=True, dtype="float64")
    layer.build((None, None, n))
    layer.set_weights([np.tile(np.eye(n), groups), recurrent.reshape(groups * n, -1), np.repeat(np.tile(b, len(w)), n)])
    sequences = np.zeros((len(x), steps + 1, n))
    sequences[:, 0] = x.reshape(len(x), n)
    values = keras.ops.convert_to_numpy(layer(sequences)).reshape(len(x), steps + 1, len(w), len(b), n)
    values = np.transpose(values, (2, 3, 0, 1, 4))
    name = getattr(layer.cell.activation, "__name__", type(layer.cell.activation).__name__)
    return MemoryCurves(values[..., 0] if w.ndim == 1 else values, w, b, x, name)


class MemoryLength(NamedTuple):
    """How long two inputs can be told apart; see `memory_length`."""

    steps: np.ndarray
    """From how many steps after the input on they cannot, (b,); infinite where they still can at the end."""
    distance: np.ndarray
    """The greatest difference of any state, at the input and after each further step, (b, steps + 1)."""


def memory_length(
    layer: Any,
    first: Tensor,
    second: Tensor,
    following: Tensor | None = None,
    steps: int = 200,
    tolerance: float = 1e-3,
    initial_state: Sequence[Tensor] | None = None,
    of: Of = None,
) -> MemoryLength:
    """How many steps it takes until two different inputs can no longer be told apart by the state of a live layer.

    The layer runs twice from the same state, on sequences that differ in their first step alone. What is counted is until all
    states of the two runs are within the tolerance of one another, and stay so up to the last step that is looked at.

    Args:
        layer: a built recurrent layer of keras_seq or Keras, or a `Stacked`, `Bidirectional` or model that has one.
        first, second: the two inputs of the first step, (d,), or pairs of them, (b, d); the layer that is meant reads them.
        following: what it reads after that in both runs, (t, d) or (b, t, d); None for zeros.
        steps: positive integer, how many steps of zeros; with `following` that says it.
        tolerance: positive number.
        initial_state: a list of an array (b, w) for each state; None for the initial state of the layer, of a stateful one too.
        of: which layer within the given one is meant, as in `state_gradients`.

    Returns:
        A `MemoryLength`.

    Raises:
        TypeError, ValueError, RuntimeError: as in `step_jacobians`; inputs of other shapes; a tolerance that is not positive.

    Example:

    ```python
    import keras_seq
    from keras_seq.analysis import memory_length
    layer = keras_seq.GRU(8)
    layer.build((None, None, 3))
    print(memory_length(layer, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]).steps)
    ```
    """
    return length_in(Dynamics(layer, of), first, second, following, steps, tolerance, initial_state)


def length_in(dynamics, first, second, following=None, steps=200, tolerance=1e-3, initial_state=None):
    """`memory_length` in a layer whose dynamics these are."""
    steps, tolerance = positive_integer("steps", steps), positive_number("tolerance", tolerance)
    pair = [np.atleast_2d(finite_array(name, value)) for name, value in (("first", first), ("second", second))]
    width = dynamics.input_width or pair[0].shape[-1]
    for name, value in zip(("first", "second"), pair, strict=True):
        if value.ndim != 2 or value.shape[1] != width:
            raise ValueError(f"{name}: expected shape ({width},) or (b, {width}), got {value.shape}")
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"second: expected shape {pair[0].shape} like first's, got {pair[1].shape}")
    rows = len(pair[0])
    after = np.zeros((rows, steps, width)) if following is None else finite_array("following", following)
    after = np.broadcast_to(after, (rows, *after.shape)) if after.ndim == 2 else after
    if after.ndim != 3 or after.shape[::2] != (rows, width):
        raise ValueError(f"following: expected shape (t, {width}) or ({rows}, t, {width}), got {after.shape}")
    sequences = np.concatenate([np.concatenate([p[:, None], after], axis=1) for p in pair])
    states = (
        dynamics.fresh_state(rows)
        if initial_state is None
        else [finite_array("initial_state", s) for s in initial_state]
    )
    shapes = [np.shape(s) for s in states]
    if shapes != [(rows, w) for w in dynamics.widths]:
        raise ValueError(f"initial_state: expected shapes {[(rows, w) for w in dynamics.widths]}, got {shapes}")
    found = dynamics.states_along(sequences, [np.concatenate([s, s]) for s in states])
    return apart_until(found[:rows], found[rows:], tolerance)


def apart_until(first: np.ndarray, second: np.ndarray, tolerance: float) -> MemoryLength:
    """How long two runs (b, t, n) are apart."""
    distance = np.abs(first - second).max(axis=-1)
    apart = distance > tolerance
    last = np.where(apart.any(axis=1), apart.shape[1] - np.argmax(apart[:, ::-1], axis=1), 0).astype(float)
    last[apart[:, -1]] = math.inf
    return MemoryLength(last, distance)

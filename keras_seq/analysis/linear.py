"""Linear recurrences: what becomes of one input, by running and by eigenvalues."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.arguments import finite_array, positive_integer
from keras_seq.typing import Tensor

WORST_CONDITION = 1e7
"""Of eigenvectors: beyond it, half the digits of a sum over them are lost."""


class LinearResponse(NamedTuple):
    """What a linear recurrence makes of one input; see `linear_response`."""

    running: np.ndarray
    """h_0 .. h_steps by running the recurrence, (steps + 1, n)."""
    closed_form: np.ndarray
    """The same from W^t C x, (steps + 1, n)."""
    method: str
    """How W^t was made: "eigenvectors", or "matrix powers" where there are too few eigenvectors, or almost so."""
    eigenvalues: np.ndarray
    """Of W, the greatest modulus first, (n,)."""
    growth: float
    """Modulus of the first: by what the response is multiplied at each step in the end."""
    period: float
    """In how many steps it goes round in the end: 2 pi / |angle of the first|; infinite for a positive one."""
    difference: float
    """The greatest relative difference of the two."""


def linear_response(
    system: Any, inputs: Tensor, steps: int = 50, input_matrix: Tensor | None = None, of: Of = None
) -> LinearResponse:
    """What becomes of one input to a linear recurrence, by running it and from its eigenvalues.

        h_0 = C x,   h_t = W h_{t-1}  =  W^t C x  =  sum_i a_i lambda_i^t u_i,   W u_i = lambda_i u_i,   C x = sum_i a_i u_i

    In the end the greatest eigenvalue decides, whatever the input: |lambda| > 1 blows up, < 1 fades; a negative or complex one
    oscillates. Where W has no basis of eigenvectors, or one of a condition number above 1e7, W^t comes from repeated squaring.

    Args:
        system: the matrix W, (n, n), or a live layer whose step is linear in its state, such as a `keras_seq.SimpleRNN` or
            `keras.layers.SimpleRNN` with `activation=None`. W then is the Jacobian of its step, all its states side by side,
            and the response is the difference that the input makes: a bias cancels.
        inputs: x at the first step, (d,).
        steps: positive integer, how many steps to follow.
        input_matrix: C, (n, d), beside a matrix W; None for the identity.
        of: which layer within the given one is meant, as in `state_gradients`.

    Returns:
        A `LinearResponse`.

    Raises:
        TypeError, ValueError: matrices or inputs of another shape, or not finite; a layer without recurrence, or whose step is
            not linear.

    Example:

    ```python
    from keras_seq.analysis import linear_response
    turn = linear_response([[0.0, -0.9], [0.9, 0.0]], [1.0, 0.0], steps=8)
    print(turn.growth, turn.period)   # 0.9, and 4 steps for a round
    ```
    """
    steps = positive_integer("steps", steps)
    if isinstance(system, (list, tuple, np.ndarray)) or (hasattr(system, "shape") and not hasattr(system, "built")):
        matrix, start = _matrices(system, inputs, input_matrix)
        running = np.empty((steps + 1, len(matrix)))
        running[0] = start
        for t in range(steps):
            running[t + 1] = matrix @ running[t]
    else:
        if input_matrix is not None:
            raise ValueError("input_matrix: expected None for a layer, which has one, got an array")
        dynamics = Dynamics(system, of)
        matrix = _matrix_of(dynamics)
        x = dynamics.constant_inputs(inputs)
        sequences = np.zeros((2, steps + 1, x.shape[-1]))
        sequences[0, 0] = np.asarray(x[0], "float64")
        running = _differences(dynamics, sequences)[0]
        start = running[0]
    with np.errstate(over="ignore", invalid="ignore"):
        closed, method = _powers(matrix, start, steps)
    values = _sorted(np.linalg.eigvals(matrix))
    length = np.linalg.norm(running, axis=1)
    scale = np.maximum(length, 1e-12 * np.maximum.accumulate(length))
    apart = np.linalg.norm(running - closed, axis=1)
    difference = np.max(np.divide(apart, scale, out=np.zeros_like(apart), where=apart > 0))
    return LinearResponse(running, closed, method, values, *dominant(values), float(difference))


def superposition_error(system: Any, inputs: Tensor, input_matrix: Tensor | None = None, of: Of = None) -> float:
    """How far the response to a sequence is from the sum of the responses to each of its inputs alone, relatively.

        max_t |h_t(x_1 .. x_T) - sum_k h_t(0 .. 0, x_k, 0 .. 0)| / max_t |h_t(x_1 .. x_T)|

    Zero, but for rounding, of what is linear. Of a layer, responses are differences from what it does on zeros.

    Args:
        system, input_matrix, of: as in `linear_response`; the layer may be any recurrent one, and reads the inputs itself.
        inputs: the sequence, (t, d).

    Returns:
        The error, a number of at least 0.

    Raises:
        TypeError, ValueError: as in `linear_response`, but for a layer that is not linear.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import superposition_error
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    for activation in (None, "tanh"):
        layer = keras_seq.SimpleRNN(4, activation=activation)
        layer.build((None, None, 3))
        print(superposition_error(layer, x))   # 1e-7 or so, then 1 or so
    ```
    """
    inputs = np.asarray(inputs, "float64")
    if inputs.ndim != 2 or 0 in inputs.shape:
        raise ValueError(f"inputs: expected shape (t, d), got {inputs.shape}")
    length = len(inputs)
    sequences = np.zeros((length + 2, *inputs.shape))  # all of it, each input alone, nothing
    sequences[0] = inputs
    sequences[1 + np.arange(length), np.arange(length)] = inputs
    if isinstance(system, (list, tuple, np.ndarray)) or (hasattr(system, "shape") and not hasattr(system, "built")):
        matrix, _ = _matrices(system, inputs[0], input_matrix)
        c = np.eye(len(matrix)) if input_matrix is None else np.asarray(input_matrix, "float64")
        found, state = [], np.zeros((length + 2, len(matrix)))
        for t in range(length):
            state = state @ matrix.T + sequences[:, t] @ c.T
            found.append(state)
        states = np.stack(found, axis=1)[:-1]
    else:
        states = _differences(Dynamics(system, of), sequences)
    whole, alone = states[0], states[1:].sum(axis=0)
    size = np.linalg.norm(whole, axis=1).max()
    return float(np.linalg.norm(whole - alone, axis=1).max() / size) if size else 0.0


def dominant(eigenvalues: np.ndarray) -> tuple[float, float]:
    """`(growth, period)` that the eigenvalue of the greatest modulus gives."""
    first = complex(_sorted(np.asarray(eigenvalues))[0])
    angle = abs(math.atan2(first.imag, first.real))
    return abs(first), math.inf if angle == 0 else 2 * math.pi / angle


def _sorted(eigenvalues):
    """The greatest modulus first; of a pair, that above the real axis."""
    order = np.lexsort((-eigenvalues.imag, -np.round(np.abs(eigenvalues), 12)))
    return eigenvalues[order]


def _powers(matrix, start, steps):
    """`(W^t start for t = 0 .. steps, how they were made)`."""
    values, vectors = np.linalg.eig(matrix)
    if np.linalg.cond(vectors) <= WORST_CONDITION:
        shares = np.linalg.solve(vectors, start.astype(vectors.dtype))
        powers = values[None, :] ** np.arange(steps + 1)[:, None]
        return ((powers * shares) @ vectors.T).real, "eigenvectors"
    return np.stack([np.linalg.matrix_power(matrix, t) @ start for t in range(steps + 1)]), "matrix powers"


def _matrices(system, inputs, input_matrix):
    """`(W, C x)`."""
    matrix, x = (finite_array(name, v) for name, v in (("system", system), ("inputs", inputs)))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"system: expected a matrix (n, n) or a layer, got shape {matrix.shape}")
    n = len(matrix)
    c = np.eye(n) if input_matrix is None else finite_array("input_matrix", input_matrix)
    if c.ndim != 2 or len(c) != n:
        raise ValueError(f"input_matrix: expected shape ({n}, d), got {c.shape}")
    if x.shape != c.shape[1:]:
        raise ValueError(f"inputs: expected shape ({c.shape[1]},), got {x.shape}")
    return matrix, c @ x


def _matrix_of(dynamics):
    """The Jacobian of a linear step; an error if it is not the same everywhere."""
    dynamics.check_width("a smaller layer")
    rng = np.random.default_rng(0)
    states = np.concatenate([np.zeros((1, dynamics.width)), rng.uniform(-3, 3, (7, dynamics.width))])
    inputs = rng.uniform(-3, 3, (8, dynamics.constant_inputs(None).shape[-1]))
    inputs[0] = 0
    found = dynamics.jacobians_at(inputs, states)
    if np.ptp(found, axis=0).max() > 100 * dynamics.epsilon * max(1, np.abs(found).max()):
        raise ValueError(
            f"system: expected a matrix or a layer whose step is linear in its state, as with activation=None, got "
            f"{dynamics.layer.name}; see memory_curves"
        )
    return found[0]


def _differences(dynamics, sequences):
    """The states (b, t, n) along all sequences but the last, less those along the last, from the same state."""
    zeros = [np.zeros((len(sequences), w)) for w in dynamics.widths]
    return _less_last(dynamics.states_along(sequences, zeros))


def _less_last(states):
    return states[:-1] - states[-1:]

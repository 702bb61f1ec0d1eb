"""States that a step leaves as they are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.arguments import integer_or_none, positive_integer, positive_number
from keras_seq.typing import Tensor


class FixedPoints(NamedTuple):
    """States that a step leaves as they are, those found from most starts first; see `fixed_points`."""

    points: np.ndarray
    """(m, n), all states side by side."""
    eigenvalues: np.ndarray
    """Of the step's Jacobian there, the greatest modulus first, (m, n)."""
    stable: np.ndarray
    """Whether all these moduli are below 1, so that states nearby come back, (m,)."""
    residuals: np.ndarray
    """|step(s) - s|, (m,)."""
    starts: np.ndarray
    """From how many of the starts each was found, (m,)."""
    failed: int
    """How many starts led to none."""


def fixed_points(
    layer: Any,
    inputs: Tensor | None = None,
    starts: int | Any = 64,
    scale: float = 1.0,
    of: Of = None,
    iterations: int = 100,
    seed: int | None = 0,
) -> FixedPoints:
    """States that a live recurrent layer keeps under a constant input, and whether they attract, by Newton from many starts.

        F(s) = step(x, s) - s = 0:   s <- s - (A^T A + mu I)^-1 A^T F(s),   A = J(s) - I

    All starts at once. mu falls with |F|^2, so that the steps become Newton's, and grows where a step is not taken as |F| would
    not fall (Levenberg and Marquardt). What is found is fixed to the precision of the layer (under mixed_bfloat16 two
    digits), and points as near as that are one; there may be more than is found.

    Args:
        layer: as in `step_jacobians`, without constants.
        inputs: the input of each step, (d,), to the layer that is meant; None for zeros.
        starts: how many states to start from, drawn evenly from -scale to scale; or states, (m, n) or a list of an array
            (m, w) for each, such as those that data lead to.
        scale: positive number.
        of: as in `state_gradients`.
        iterations: positive integer, how many steps at most.
        seed: integer for the draws, None for others each time.

    Returns:
        `FixedPoints`. Of a blocked cell, as Elman's, the eigenvalues are those of the step, which training does not see.

    Raises:
        TypeError, ValueError, RuntimeError: as in `step_jacobians`; a wrong number or shape of starts.

    Source: Sussillo and Barak, "Opening the black box", Neural Computation 25(3), 2013.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import fixed_points
    layer = keras_seq.SimpleRNN(1)
    layer.build((None, None, 1))
    layer.set_weights([np.array(w) for w in ([[1.0]], [[2.0]], [0.0])])   # h = tanh(2 h): 0 repels, two attract
    found = fixed_points(layer, scale=2.0)
    print(found.points[:, 0], found.stable)
    ```
    """
    dynamics = Dynamics(layer, of)
    return fixed_points_of(dynamics, inputs, starts, scale, iterations, seed)


def fixed_points_of(dynamics, inputs=None, starts=64, scale=1.0, iterations=100, seed=0):
    """`fixed_points` of a layer whose dynamics these are."""
    dynamics.check_width("a smaller layer; step_spectrum gives `leading` eigenvalues at a state")
    iterations, seed = positive_integer("iterations", iterations), integer_or_none("seed", seed)
    scale = positive_number("scale", scale)
    if isinstance(starts, (bool, int, np.integer)) or starts is None:
        count = positive_integer("starts", starts)
        state = np.random.default_rng(seed).uniform(-scale, scale, (count, dynamics.width))
    else:
        state = dynamics.joined(starts, "starts")
    x = np.repeat(np.asarray(tf.cast(dynamics.constant_inputs(inputs), "float64")), len(state), axis=0)

    weights = dynamics.weights()

    def change(state):
        moved = dynamics.step_at(*dynamics.given(x, state, weights))
        state = np.asarray(tf.cast(tf.cast(state, dynamics.dtype), "float64"))  # as the layer has it
        return np.asarray(tf.cast(moved, "float64")) - state

    n, damping = dynamics.width, np.ones(len(state))
    found = change(state)
    for _ in range(iterations):
        size = np.linalg.norm(found, axis=1)
        if np.all(size <= _tolerance(dynamics, state)):
            break
        a = dynamics.jacobians_at(x, state, weights) - np.eye(n)
        with np.errstate(all="ignore"):
            normal = np.swapaxes(a, 1, 2) @ a
            mu = damping * np.minimum(size**2, 1) + 1e-14 * np.trace(normal, axis1=1, axis2=2)
            normal = normal + np.maximum(mu, 1e-30)[:, None, None] * np.eye(n)
            usable = np.all(np.isfinite(normal), axis=(1, 2))
            normal[~usable] = np.eye(n)
            gradient = np.where(usable[:, None], np.einsum("bij,bi->bj", a, found), 0)
            new = state - np.linalg.solve(normal, gradient[..., None])[..., 0]
        moved = change(new)
        better = np.linalg.norm(moved, axis=1) < size
        state, found = np.where(better[:, None], new, state), np.where(better[:, None], moved, found)
        damping = np.where(better, np.maximum(damping / 4, 1e-8), np.minimum(damping * 4, 1e8))
    residuals = np.linalg.norm(found, axis=1)
    reached = residuals <= 4 * _tolerance(dynamics, state)  # false for NaN
    near = np.minimum(30 * _tolerance(dynamics, state).max(initial=0), 0.05) + 1e-6
    points, owners = _distinct(state[reached], near)
    if not len(points):
        empty = np.zeros((0, n))
        return FixedPoints(empty, empty.astype(complex), np.zeros(0, bool), np.zeros(0), np.zeros(0, int), len(state))
    best = np.array(
        [np.flatnonzero(owners == i)[np.argmin(residuals[reached][owners == i])] for i in range(len(points))]
    )
    points = state[reached][best]
    jacobians = dynamics.jacobians_at(x[: len(points)], points, weights)
    values = np.linalg.eigvals(jacobians).astype(complex)
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1), axis=1)
    counts = np.bincount(owners, minlength=len(points))
    order = np.argsort(-counts, kind="stable")
    stable = np.abs(values[:, 0]) < 1
    kept = residuals[reached][best]
    return FixedPoints(points[order], values[order], stable[order], kept[order], counts[order], int(np.sum(~reached)))


def _tolerance(dynamics, state):
    return 2 * dynamics.epsilon * math.sqrt(dynamics.width) * np.maximum(1, np.max(np.abs(state), axis=1, initial=0))


def _distinct(points, apart):
    """`(one of each group of points that lie together, which group each is of)`."""
    found, owners = [], np.zeros(len(points), int)
    for i, point in enumerate(points):
        near = [j for j, other in enumerate(found) if np.max(np.abs(point - other)) <= apart]
        owners[i] = near[0] if near else len(found)
        if not near:
            found.append(point)
    return found, owners

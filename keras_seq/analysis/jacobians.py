"""How a step changes its state: Jacobians along data, gradients over lags, Lyapunov exponents, fixed points and spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.arguments import boolean, integer_or_none, positive_integer, positive_number
from keras_seq.extras import needed
from keras_seq.typing import Tensor

BYTES = 2**31
"""How much the Jacobians of `step_jacobians` may take."""


def step_jacobians(
    layer: Any,
    inputs: Tensor,
    initial_state: Sequence[Tensor] | None = None,
    mask: Tensor | None = None,
    constants: Sequence[Tensor] | None = None,
    of: Of = None,
) -> np.ndarray:
    """The Jacobian of each step of a live recurrent layer along data.

        J_t = ds_t / ds_{t-1},   s all states of the layer side by side: of an LSTM h, then c

    First the layer runs, then the Jacobians of all steps and rows are computed at once. Singular values are
    `numpy.linalg.svd(..., compute_uv=False)`; products over time are what `gradient_flow` and `lyapunov_spectrum` take.

    Args:
        layer: a built recurrent layer of keras_seq or Keras, or a `Stacked` or `Bidirectional` that has one. Dropout does not
            act; zoneout is its mean.
        inputs: tensor (b, t, d), as for the layer.
        initial_state, mask, constants: as in the layer's call. A stateful layer begins at its states, and keeps them.
        of: which layer within the given one is meant, as in `state_gradients`.

    Returns:
        float64 array (b, t, n, n), in the order in which the layer reads the steps; the identity at masked steps. It is as
        exact as the layer computes: to three digits under mixed_bfloat16. Of a cell that lets no gradient through its states,
        as Elman's, it is the derivative of the step all the same: what a change of the state does, and training does not see.

    Raises:
        TypeError, ValueError: a layer without recurrence, not built, whose rows have to do with each other, or that needs
            targets; weights or inputs that are not finite; inputs, states or a mask of another shape; more than 1,024 numbers
            of state, or more than 2 GiB of Jacobians.
        RuntimeError: a backend other than TensorFlow.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import step_jacobians
    layer, x = keras_seq.GRU(4), np.random.default_rng(0).normal(size=(2, 10, 3)).astype("float32")
    layer(x)
    jacobians = step_jacobians(layer, x)   # (2, 10, 4, 4)
    stretched = np.linalg.svd(jacobians, compute_uv=False)[..., 0]   # by how much each step stretches at most
    ```
    """
    dynamics = Dynamics(layer, of)
    along = dynamics.trajectory(inputs, initial_state, mask, constants)
    steps, rows = along.shape
    if (size := 8 * steps * rows * dynamics.width**2) > BYTES:
        raise ValueError(f"inputs: expected Jacobians of at most {BYTES} bytes, got {size}: give fewer rows or steps")
    found = np.concatenate([part for _, part in dynamics.jacobians(along)])
    return np.moveaxis(found, 0, 1)


class GradientFlow(NamedTuple):
    """How much of a gradient comes back over how many steps; see `gradient_flow`. Logarithms are natural."""

    lags: np.ndarray
    """0 .. t, (t + 1,), in real steps of each row."""
    log_norm: np.ndarray
    """The logarithm of the root mean square over directions, (b, t + 1); NaN beyond the real steps of a row."""
    log_largest: np.ndarray | None
    """That of the greatest singular value, (b, t + 1); None unless it was asked for."""


def gradient_flow(
    layer: Any,
    inputs: Tensor,
    initial_state: Sequence[Tensor] | None = None,
    mask: Tensor | None = None,
    constants: Sequence[Tensor] | None = None,
    of: Of = None,
    largest: bool = False,
    probes: int | None = None,
    seed: int | None = 0,
) -> GradientFlow:
    """How much of a gradient at the last state comes back to the states before, against the lag.

        dL/ds_{T-k} = P_k^T dL/ds_T,   P_k = ds_T / ds_{T-k} = J_T J_{T-1} .. J_{T-k+1}

    The norm is that of a gradient of length 1 in a random direction, root mean square: |P_k|_F / sqrt(n). It falls with k
    where gradients vanish and grows where they explode. Products are scaled at every step, and norms are given as logarithms:
    1e-300 is as good as 1. Masked steps, which pass all of it on, do not count; a layer's `truncate` is not heeded.

    Args:
        layer, inputs, initial_state, mask, constants, of: as in `step_jacobians`.
        largest: give the greatest singular value of each product too, which most of the time goes into.
        probes: None to take the whole products; or a positive integer of random directions whose gradients are carried back
            instead, for wide states: the norm then is an estimate, with a relative error of about 1 / sqrt(2 probes) or less.
        seed: integer for the directions, None for others each time.

    Returns:
        A `GradientFlow`. Of a cell that lets no gradient through its states it is -inf from a lag of 1 on, as in training.

    Raises:
        TypeError, ValueError, RuntimeError: as in `step_jacobians`; probes that are no positive integer, or are given together
            with `largest`.

    Source: Hochreiter 1991; Bengio, Simard and Frasconi, "Learning long-term dependencies with gradient descent is difficult",
    IEEE Transactions on Neural Networks 5(2), 1994; Pascanu, Mikolov and Bengio, ICML 2013.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import gradient_flow
    layer, x = keras_seq.SimpleRNN(8), np.random.default_rng(0).normal(size=(2, 50, 3)).astype("float32")
    layer(x)
    flow = gradient_flow(layer, x)
    print(flow.log_norm[:, 50] / np.log(10))   # of each row, the power of ten that is left after 50 steps
    ```
    """
    dynamics = Dynamics(layer, of, as_trained=True)
    if boolean("largest", largest) and probes is not None:
        raise ValueError(f"largest: expected False with probes, which do not find it, got {largest}")
    return flow_along(dynamics, dynamics.trajectory(inputs, initial_state, mask, constants), largest, probes, seed)


def flow_along(dynamics, along, largest=False, probes=None, seed=0):
    """`gradient_flow` along a trajectory."""
    (steps, rows), n = along.shape, dynamics.width
    log_norm = np.zeros((rows, steps + 1))
    if probes is not None:
        probes, seed = positive_integer("probes", probes), integer_or_none("seed", seed)
        drawn = np.random.default_rng(seed).normal(size=(rows, n, probes))
        lengths = dynamics.carried(along, drawn / np.linalg.norm(drawn, axis=1, keepdims=True), backwards=True)
        logs = np.cumsum(_log(lengths), axis=0)  # (t, b, k)
        log_norm[:, 1:] = 0.5 * _log_mean_exp(2 * logs).T
        return GradientFlow(np.arange(steps + 1), _over_real_steps(log_norm, along.mask), None)
    log_largest = np.zeros((rows, steps + 1))
    product, scale = np.broadcast_to(np.eye(n), (rows, n, n)), np.zeros(rows)
    for part, jacobians in dynamics.jacobians(along, reverse=True):
        for t in reversed(range(part.start, part.stop)):
            product = product @ jacobians[t - part.start]
            size = np.linalg.norm(product, axis=(1, 2))
            product = product / np.where(size > 0, size, 1)[:, None, None]
            scale = scale + _log(size)
            log_norm[:, steps - t] = scale - 0.5 * math.log(n)
            if largest:
                log_largest[:, steps - t] = scale + _log(np.linalg.norm(product, 2, axis=(1, 2)))
    found = [_over_real_steps(x, along.mask) for x in (log_norm, log_largest)]
    return GradientFlow(np.arange(steps + 1), found[0], found[1] if largest else None)


def _over_real_steps(values, mask):
    """What is known for each lag (b, t + 1), for each lag in real steps alone."""
    found = np.full_like(values, np.nan)
    found[:, 0] = values[:, 0]
    for row, real in enumerate(np.asarray(mask).T[:, ::-1]):
        found[row, 1 : 1 + real.sum()] = values[row, 1:][real]
    return found


class LyapunovSpectrum(NamedTuple):
    """Lyapunov exponents along data, in nats a step; see `lyapunov_spectrum`."""

    exponents: np.ndarray
    """The greatest first, (b, k)."""
    standard_error: np.ndarray
    """Of each, from the means of ten pieces of the sequence, (b, k); NaN for fewer than 20 steps."""


def lyapunov_spectrum(
    layer: Any,
    inputs: Tensor,
    initial_state: Sequence[Tensor] | None = None,
    mask: Tensor | None = None,
    constants: Sequence[Tensor] | None = None,
    of: Of = None,
    leading: int | None = None,
    skip: int = 0,
) -> LyapunovSpectrum:
    """How fast states that differ a little go apart or together along data, by as many rates as there are directions.

        Q_t R_t = J_t Q_{t-1},   lambda_i = mean_t log |R_t|_ii          (Benettin et al. 1980)

    A small difference grows as exp(lambda_1 t): above 0 the layer forgets nothing and repeats nothing (chaos), below 0 it
    forgets where it was and follows its inputs alone. The sum is the rate at which volumes change. Exponents are of the data
    that were read, over the steps that were read: estimates, whose error is given.

    Args:
        layer, inputs, initial_state, mask, constants, of: as in `step_jacobians`; masked steps are left out.
        leading: how many of the exponents, the greatest; None for all. Then only so many changes are carried along, by
            derivatives forwards, and no Jacobian is made: for wide states.
        skip: integer of at least 0, the first steps, which the mean leaves out: until the directions have turned.

    Returns:
        A `LyapunovSpectrum`. An exponent is -inf where a direction is forgotten within a step, as in a delay line.

    Raises:
        TypeError, ValueError, RuntimeError: as in `step_jacobians`; `leading` not 1 .. n, `skip` that leaves no step.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import lyapunov_spectrum
    layer, x = keras_seq.GRU(4), np.random.default_rng(0).normal(size=(2, 100, 3)).astype("float32")
    layer(x)
    spectrum = lyapunov_spectrum(layer, x, skip=10)
    print(spectrum.exponents[:, 0])   # below 0: differences fade
    ```
    """
    dynamics = Dynamics(layer, of)
    return lyapunov_along(dynamics, dynamics.trajectory(inputs, initial_state, mask, constants), leading, skip)


def lyapunov_along(dynamics, along, leading=None, skip=0):
    """`lyapunov_spectrum` along a trajectory."""
    (steps, rows), n = along.shape, dynamics.width
    if isinstance(skip, bool) or not isinstance(skip, int):
        raise TypeError(f"skip: expected an integer of at least 0, got {skip!r}")
    if not 0 <= skip < steps:
        raise ValueError(f"skip: expected an integer from 0 to {steps - 1}, below the number of steps, got {skip}")
    k = n if leading is None else positive_integer("leading", leading)
    if k > n:
        raise ValueError(f"leading: expected at most {n}, the width of the state, got {leading}")
    drawn = np.random.default_rng(0).normal(size=(k, rows, n))  # the first ones are the same for every k
    start = np.linalg.qr(np.moveaxis(drawn, 0, -1))[0]
    if leading is not None:
        lengths = dynamics.carried(along, start)
    else:
        lengths, q = np.empty((steps, rows, k)), start
        for part, jacobians in dynamics.jacobians(along):
            for t in range(part.start, part.stop):
                q, r = np.linalg.qr(jacobians[t - part.start] @ q)
                lengths[t] = np.abs(np.diagonal(r, axis1=1, axis2=2))
    logs = _log(lengths)
    real = np.asarray(along.mask).copy()
    real[:skip] = False
    means, errors = np.full((rows, k), np.nan), np.full((rows, k), np.nan)
    for row in range(rows):
        own = logs[real[:, row], row]
        if not len(own):
            raise ValueError(
                f"mask: expected at least one step of each row after the first {skip}, got none of row {row}"
            )
        means[row] = own.mean(axis=0)
        if len(own) >= 20:
            pieces = np.stack([piece.mean(axis=0) for piece in np.array_split(own, 10)])
            with np.errstate(invalid="ignore"):
                errors[row] = pieces.std(axis=0, ddof=1) / math.sqrt(len(pieces))
    order = np.argsort(-means, axis=1, kind="stable")
    return LyapunovSpectrum(*(np.take_along_axis(x, order, axis=1) for x in (means, errors)))


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


def step_spectrum(
    layer: Any,
    inputs: Tensor | None = None,
    state: Any = None,
    leading: int | None = None,
    of: Of = None,
) -> np.ndarray:
    """The eigenvalues of a step's Jacobian at one state: whether what is near it fades or grows if it stays there.

    At zero and with an activation that is tanh they are those of the recurrent kernel.

    Args:
        layer: as in `step_jacobians`, without constants.
        inputs: the input of the step, (d,), to the layer that is meant; None for zeros.
        state: (n,), all states side by side, or a list of an array (w,) for each; None for zeros.
        leading: how many of the eigenvalues, the greatest by modulus, by Arnoldi's method from products with the Jacobian,
            which is not made: for wide states (needs SciPy, `keras_seq[analysis]`). None for all.
        of: as in `state_gradients`.

    Returns:
        Complex array (n,), or (leading,), the greatest modulus first.

    Raises:
        ImportError: `leading` without SciPy.
        TypeError, ValueError, RuntimeError: as in `step_jacobians`; a state of another shape; `leading` that is not
            1 .. n - 2; eigenvalues that the method does not find.

    Example:

    ```python
    import keras_seq
    from keras_seq.analysis import step_spectrum
    layer = keras_seq.SimpleRNN(16)   # starts with an orthogonal kernel
    layer.build((None, None, 3))
    print(abs(step_spectrum(layer)))   # all 1
    ```
    """
    dynamics = Dynamics(layer, of)
    n = dynamics.width
    x = dynamics.constant_inputs(inputs)
    if state is None:
        place = np.zeros((1, n))
    elif isinstance(state, (list, tuple)) and np.ndim(state[0]) == 1:
        place = dynamics.joined([np.asarray(s)[None] for s in state], "state")
    else:
        place = dynamics.joined(np.asarray(state, "float64")[None], "state")
    given = dynamics.given(x, place)
    if leading is None:
        dynamics.check_width("a number of `leading` eigenvalues")
        values = np.linalg.eigvals(dynamics.jacobians_at(x, place)[0])
        return values[np.argsort(-np.abs(values))].astype(complex)
    k = positive_integer("leading", leading)
    if k > n - 2:
        raise ValueError(f"leading: expected at most {n - 2}, two less than the width of the state, got {leading}")
    linalg = needed("scipy.sparse.linalg", "analysis")

    def product(v):
        moved = dynamics.moved_at(*given, tf.cast(np.reshape(v, (1, n, 1)), dynamics.dtype))
        return np.asarray(tf.cast(moved, "float64")).reshape(n)

    operator = linalg.LinearOperator((n, n), matvec=product, dtype="float64")
    start = np.random.default_rng(0).normal(size=n)
    try:
        values = linalg.eigs(operator, k, v0=start, return_eigenvectors=False, tol=max(1e-10, dynamics.epsilon))
    except linalg.ArpackNoConvergence as error:
        raise ValueError(f"leading: expected fewer, or a spectrum less dense, got {k}: {error}") from error
    return values[np.argsort(-np.abs(values))]


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


def _log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def _log_mean_exp(x):
    """log mean exp over the last axis."""
    top = np.max(x, axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    return _log(np.mean(np.exp(x - top), axis=-1)) + top[..., 0]

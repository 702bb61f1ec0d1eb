"""How a step changes its state: Jacobians along data and their eigenvalues, and gradients over lags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.arguments import boolean, integer_or_none, positive_integer
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


def _log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def _log_mean_exp(x):
    """log mean exp over the last axis."""
    top = np.max(x, axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    return _log(np.mean(np.exp(x - top), axis=-1)) + top[..., 0]

"""How fast states that differ a little go apart or together along data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.arguments import positive_integer
from keras_seq.typing import Tensor


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
    with np.errstate(divide="ignore"):
        logs = np.log(lengths)
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

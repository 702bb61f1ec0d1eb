"""`Newton`: how a recurrence finds all its states at once."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Self

import keras
import ml_dtypes

from keras_seq.arguments import one_of, positive_integer, positive_number, rate
from keras_seq.typing import Config

ROUNDINGS = 8
"""Of the type that a cell computes in, so many roundings of 1 are the tolerance by default."""


@keras.saving.register_keras_serializable(package="keras_seq")
@dataclasses.dataclass(frozen=True)
class Newton:
    """The `solver` of a recurrence that finds the states of all steps at once, by Newton's method.

    The steps s_t = f_t(s_{t-1}) for t = 1 .. T are one system of equations. Each iteration takes all steps side by side, with
    their Jacobians J_t = df_t / ds_{t-1}, and solves

        d_t = (1 - damping) J_t d_{t-1} + f_t(s_{t-1}) - s_t,   d_0 = 0;   s_t <- s_t + d_t

    by a linear recurrence over pairs of steps: 2 log2(T) levels, where a loop has T. The first states are the initial ones
    at every step. A row has converged when no state changes by more than `tolerance`, relative to states above 1; it is right
    up to step k after k iterations whatever J is, and often everywhere after 3 to 10. Where `max_iterations` do not
    suffice (steps that amplify, chaos) the loop runs instead, with a warning: a RuntimeWarning eagerly, a line on the
    standard error stream in graphs; programs of XLA cannot speak, `keras_seq.analysis.newton_report` tells.

    The gradient is that of the solution, by the same recurrence backwards with the transposed Jacobians, and to the same
    tolerance that of backpropagation; the iterations are not differentiated.

    It pays where a step of a loop costs a launch however little it does: a GPU, thousands of steps, small states. On two
    processor cores it does several times the work of the loop, and is slower but for a few units over a thousand steps.

    A layer has the same weights with and without it, and the same form step by step. ONNX has no operations for it (it needs
    those of gradients): a model for that is built without, and takes the weights.

    Args:
        tolerance: the largest change of a state in the last iteration; None for 8 roundings of the type that the cell
            computes in (float32: 9.5e-7).
        max_iterations: when to give up.
        jacobian: "full" is the whole (n, n) of all n states of a cell, found by n times the work of a step, and n^3 in the
            recurrence; few iterations. "diagonal" is each state by itself, nearly free, and takes more of them: it is exact
            for what gates do to a memory, and drops what units say to each other. "auto" is full up to n = 16.
        damping: the share of the Jacobians to leave out, below 1, for steps that amplify; states that would overflow are
            damped in any case.

    Raises:
        TypeError, ValueError: a tolerance that is not positive; iterations that are no positive integer; another Jacobian; a
            damping outside [0, 1).

    Sources: Lim, Zhu, Selfridge, Kasim, "Parallelizing non-linear sequential models over the sequence length", ICLR 2024;
    Gonzalez, Warrington, Smith, Linderman, "Towards scalable and stable parallelization of nonlinear RNNs", NeurIPS 2024.

    Note: the latter damps by a Kalman filter or a scale; this is the scale.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.GRU(4, return_sequences=True, solver=keras_seq.Newton(tolerance=1e-6))
    y = layer(ops.ones((2, 50, 3)))   # (2, 50, 4), as without a solver
    ```
    """

    tolerance: float | None = None
    max_iterations: int = 100
    jacobian: Literal["auto", "full", "diagonal"] = "auto"
    damping: float = 0.0

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            positive_number("tolerance", self.tolerance)
        positive_integer("max_iterations", self.max_iterations)
        one_of("jacobian", self.jacobian, ("auto", "full", "diagonal"))
        rate("damping", self.damping)

    def computing_in(self, dtype: str) -> Newton:
        """The same with the tolerance for a cell that computes in this type, if none was given."""
        if self.tolerance is not None:
            return self
        return dataclasses.replace(self, tolerance=ROUNDINGS * float(ml_dtypes.finfo(dtype).eps))

    def get_config(self) -> Config:
        """The arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The solver of these arguments."""
        return cls(**config)


def solver_of(given: Any) -> Newton | None:
    """A solver from None, its name, its configuration or itself."""
    if isinstance(given, dict):
        given = keras.saving.deserialize_keras_object(given)
    if isinstance(given, str) and given == "newton":
        return Newton()
    if given is None or isinstance(given, Newton):
        return given
    kind = ValueError if isinstance(given, str) else TypeError
    raise kind(f"solver: expected None, 'newton' or a keras_seq.Newton, got {given!r}")

"""How many iterations a recurrence needs to be solved for all steps at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq.arguments import needs_tensorflow, positive_integer
from keras_seq.engine import capture_solutions
from keras_seq.layers import RNN, Newton
from keras_seq.typing import Tensor


@dataclasses.dataclass(frozen=True)
class Solved:
    """One length: `iterations`, whether all rows have `converged` (else the loop ran), the largest `error` of the states in
    the last iteration, and the largest `difference` of the outputs from those of the loop.

    `levels` is the number of steps one after the other, 2 log2(t) + 1 for each iteration, where the loop has t.
    """

    steps: int
    iterations: int
    converged: bool
    error: float
    difference: float

    @property
    def levels(self) -> int:
        return self.iterations * (2 * math.ceil(math.log2(max(self.steps, 2))) + 1)


@dataclasses.dataclass(frozen=True)
class NewtonReport:
    """What `newton_report` found; printed it is a table."""

    solver: Newton
    lengths: list[Solved]

    def __str__(self) -> str:
        lines = [f"{self.solver}", "   steps  iterations    levels      error  from the loop"]
        for one in self.lengths:
            numbers = f"{one.steps:8,}  {one.iterations:10}  {one.levels:8,}  {one.error:9.1e}  {one.difference:13.1e}"
            lines.append(numbers if one.converged else f"{numbers}  did not converge, the loop ran")
        return "\n".join(lines)


def newton_report(
    layer: RNN,
    inputs: Tensor,
    mask: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    solver: Newton | None = None,
) -> NewtonReport:
    """How a layer fares under `keras_seq.Newton` on data: iterations, depth and error against the number of steps.

    Args:
        layer: a built `keras_seq.RNN`, or a layer that is one; it is left as it is, and need not have a solver.
        inputs: tensor (b, t, d).
        mask: boolean tensor (b, t), True for real steps, or None.
        lengths: of how many first steps to tell; None for t, and t / 10, t / 100 .. as long as these are at least 10.
        solver: None for that of the layer, or `Newton()` if it has none.

    Returns:
        A `NewtonReport`.

    Raises:
        TypeError, ValueError: a layer that is no `keras_seq.RNN` or not built; a length that is no integer in 1 .. t; what
            the layer says of its inputs, and of cells that no solver takes.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import newton_report
    layer, x = keras_seq.GRU(8), np.random.default_rng(0).normal(size=(4, 1000, 3)).astype("float32")
    layer(x)
    print(newton_report(layer, x))
    ```
    """
    needs_tensorflow("newton_report")
    if not isinstance(layer, RNN):
        raise TypeError(f"layer: expected a keras_seq.RNN or a layer that is one, got {layer!r}")
    if not layer.built:
        raise ValueError(f"layer: expected a built layer, got {layer.name}; call it on data first")
    inputs = tf.convert_to_tensor(inputs)
    steps = inputs.shape[1]
    if lengths is None:
        lengths = [steps // 10**k for k in range(9, -1, -1) if k == 0 or steps // 10**k >= 10]
    counts = [positive_integer("lengths", n) for n in lengths]
    if not counts or max(counts) > steps:
        raise ValueError(f"lengths: expected integers from 1 to {steps}, got {list(lengths)}")
    solver = solver or layer.solver or Newton()
    solved, plain = (_twin(layer, inputs, one) for one in (solver, None))
    return NewtonReport(solver, [_solved(solved, plain, inputs, mask, n) for n in counts])


def _twin(layer: RNN, inputs: Tensor, solver: Newton | None) -> Any:
    """A layer with the weights of this one, that gives all outputs and keeps no states."""
    kept = {"return_sequences": True, "return_state": False, "return_internals": False, "stateful": False}
    others = {"unroll": False, "checkpoint": False, "truncate": None}
    config = {**layer.get_config(), **kept, **others}
    config["solver"] = None if solver is None else keras.saving.serialize_keras_object(solver)
    twin = type(layer).from_config(config)
    twin.build(inputs.shape)
    twin.set_weights(layer.get_weights())
    return twin


def _solved(solved: Any, plain: Any, inputs: Tensor, mask: Tensor | None, steps: int) -> Solved:
    x, real = inputs[:, :steps], None if mask is None else tf.convert_to_tensor(mask)[:, :steps]

    @tf.function
    def both():
        with capture_solutions() as found:
            y = solved(x, mask=real)
        return found, tf.reduce_max(tf.abs(tf.cast(y - plain(x, mask=real), "float64")))

    found, difference = both()
    if not found:
        raise ValueError(
            f"layer: expected one whose states are found step by step, got {solved.name}, which needs no solver"
        )
    errors = np.asarray(found[0]["errors"], "float64")
    tolerance = solved.solver.computing_in(solved.cell.compute_dtype).tolerance
    converged = bool(np.all(errors <= tolerance))
    return Solved(steps, int(found[0]["iterations"]), converged, float(errors.max()), float(difference))

"""One readable summary of a live recurrent layer on data: whether it is stable, what it forgets, what gradients reach."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.analysis.arriving import Of
from keras_seq.analysis.certificates import Certificate, bibo_certificate, contraction_certificate
from keras_seq.analysis.dynamics import Dynamics
from keras_seq.analysis.fixed_points import FixedPoints, fixed_points_of
from keras_seq.analysis.jacobians import GradientFlow, flow_along
from keras_seq.analysis.lyapunov import LyapunovSpectrum, lyapunov_along
from keras_seq.analysis.memory import MemoryLength, apart_until
from keras_seq.arguments import positive_number
from keras_seq.typing import Tensor

LEADING, PROBES = 4, 16  # exponents, and random gradients in a wide state
WIDE = 256  # numbers of state, beyond which a report does without whole Jacobians
LAGS = (1, 10, 100, 1000)
WIDTH = 80  # of what is said of a number


class Finding(NamedTuple):
    """One line of a report."""

    name: str
    value: str
    meaning: str


class StabilityReport(NamedTuple):
    """What `stability_report` finds: as text by `print`, in numbers by its fields."""

    title: str
    findings: list[Finding]
    lyapunov: LyapunovSpectrum
    gradients: GradientFlow
    memory: MemoryLength
    fixed_points: FixedPoints | None
    """Under the mean input; None for a wide state, or a layer that reads constants."""
    bounded: Certificate
    forgets: Certificate

    def __str__(self) -> str:
        name, value = (max(len(f[i]) for f in self.findings) for i in (0, 1))
        lines = [self.title]
        for f in self.findings:
            first, *more = textwrap.wrap(f.meaning, WIDTH)
            lines.append(f"{f.name:{name}}  {f.value:>{value}}  {first}")
            lines += [" " * (name + value + 4) + line for line in more]
        return "\n".join(lines)


def stability_report(
    layer: Any,
    inputs: Tensor,
    initial_state: Sequence[Tensor] | None = None,
    mask: Tensor | None = None,
    constants: Sequence[Tensor] | None = None,
    of: Of = None,
    tolerance: float = 1e-3,
) -> StabilityReport:
    """One summary of a live recurrent layer on data: numbers, and what they mean.

    It says how fast small differences grow or fade along the data (`lyapunov_spectrum`), how much of a gradient comes back over
    how many steps (`gradient_flow`), for how long another first step can be told from the state (as `memory_length`, the
    first real step of each row in the place of the next row's), which states it rests in under the mean input
    (`fixed_points`), and what is proved from the weights (`bibo_certificate`, `contraction_certificate`). It follows the four
    greatest exponents, and, of a state of more than 256 numbers, sixteen random gradients; there it looks for no fixed points.

    Args:
        layer, inputs, initial_state, mask, constants, of: as in `step_jacobians`.
        tolerance: positive number: states nearer than this to one another are not told apart.

    Returns:
        A `StabilityReport`.

    Raises:
        TypeError, ValueError, RuntimeError: as in `step_jacobians`; a tolerance that is not positive.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import stability_report
    layer, x = keras_seq.LSTM(8), np.random.default_rng(0).normal(size=(4, 50, 3)).astype("float32")
    layer(x)
    print(stability_report(layer, x))
    ```
    """
    tolerance = positive_number("tolerance", tolerance)
    dynamics = Dynamics(layer, of)
    x, states, real, constants = dynamics.arrived(inputs, initial_state, mask, constants)
    along = dynamics.along(x, states, real, constants)
    wide = dynamics.width > WIDE
    skip = min(along.shape[0] // 10, int(real.numpy().sum(axis=1).min()) - 1)
    lyapunov = lyapunov_along(dynamics, along, min(LEADING, dynamics.width), _skippable(real.numpy(), skip))
    trained = Dynamics(layer, of, as_trained=True) if dynamics.blocked else dynamics
    flow = flow_along(trained, along, probes=PROBES if wide else None)
    memory = _another_first_step(dynamics, x, states, real, constants, along, tolerance)
    values = np.asarray(tf.cast(x, "float64"))[real.numpy()]
    rest = None
    if not wide and not dynamics.reads_constants:
        starts = dynamics.joined_along(along).reshape(-1, dynamics.width)
        some = starts[np.linspace(0, len(starts) - 1, min(32, len(starts))).astype(int)]
        rest = fixed_points_of(dynamics, values.mean(axis=0), some)
    bound = float(np.abs(values).max()) or 1.0
    bounded, forgets = (prove(dynamics.layer, bound) for prove in (bibo_certificate, contraction_certificate))
    findings = [
        _of_exponents(lyapunov),
        *_of_gradients(flow, dynamics.blocked),
        _of_memory(memory, tolerance, along.shape[0]),
        *_of_rest(rest),
        Finding("bounded", f"{bounded.value:.3g}" if bounded.proven else "-", bounded.statement),
        Finding("forgets its start", f"{forgets.value:.3g}" if forgets.proven else "-", forgets.statement),
    ]
    names = ", ".join(f"{n} {w}" for n, w in zip(dynamics.state_names, dynamics.widths, strict=True))
    kind, (steps, rows) = type(dynamics.layer).__name__, along.shape
    title = f"{kind} {dynamics.layer.name}: states {names}, {dynamics.dtype}; along {rows} x {steps} steps"
    return StabilityReport(title, findings, lyapunov, flow, memory, rest, bounded, forgets)


def _skippable(real, skip):
    """As many first steps as leave at least one real step of each row."""
    while skip > 0 and not real[:, skip:].any(axis=1).all():
        skip -= 1
    return max(skip, 0)


def _another_first_step(dynamics, x, states, real, constants, along, tolerance):
    """How long the next row's first real step can be told from each row's own; of one row alone, zeros."""
    changed, mask = np.asarray(tf.cast(x, "float64")).copy(), real.numpy()
    rows, places = np.arange(len(mask)), np.argmax(mask, axis=1)
    first = changed[rows, places]
    changed[rows, places] = np.roll(first, 1, axis=0) if len(first) > 1 else 0
    other = dynamics.along(changed, states, real, constants)
    return apart_until(dynamics.joined_along(along), dynamics.joined_along(other), tolerance)


def _of_exponents(found):
    first = found.exponents[:, 0]
    mean, several = float(first.mean()), len(first) > 1 and np.isfinite(first).all()
    error = float(first.std(ddof=1) / math.sqrt(len(first))) if several else float(found.standard_error[0, 0])
    known = math.isfinite(error) and math.isfinite(mean)
    value = f"{mean:+.3g}" + (f" ± {error:.1g}" if known else "")
    if not math.isfinite(mean):
        meaning = "at some step all differences of states vanish"
    elif abs(mean) <= 2 * (error if known else 0.0) or mean == 0:
        meaning = "differences of states neither grow nor fade, as far as these steps can tell"
    elif mean < 0:
        meaning = f"differences of states fade: they halve every {math.log(2) / -mean:.3g} steps"
    else:
        meaning = (
            f"differences of states grow: they double every {math.log(2) / mean:.3g} steps (chaos, if it stays bounded)"
        )
    return Finding("greatest Lyapunov exponent", value, meaning)


def _of_gradients(flow, blocked):
    if blocked:
        return [Finding("gradient over a step", "0", "its states let no gradient through: training sees one step")]
    norm = flow.log_norm[:, ~np.isnan(flow.log_norm).any(axis=0)].mean(axis=0)  # lags that every row has
    last = len(norm) - 1
    lags = [lag for lag in LAGS if lag < last]
    found = [
        Finding(f"gradient over {lag} step{'s' * (lag > 1)}", _power(norm[lag]), "of a random one, that comes back")
        for lag in lags
    ]
    if norm[last] < math.log(1e-3):
        half, little = (_first(norm < math.log(x)) for x in (0.5, 1e-3))
        meaning = f"vanishes: below a half after {half} steps, below a thousandth after {little}"
    elif norm[last] > math.log(1e3):
        meaning = f"explodes: above a thousand after {_first(norm > math.log(1e3))} steps; clip it"
    else:
        meaning = "neither vanishes nor explodes within these steps"
    return [*found, Finding(f"gradient over {last} step{'s' * (last > 1)}", _power(norm[last]), meaning)]


def _of_memory(memory, tolerance, steps):
    kept = np.isinf(memory.steps)
    value = "-" if kept.all() else f"{np.median(memory.steps[~kept]):.0f}"
    if kept.all():
        meaning = f"another first step can be told from the state to within {tolerance:g} after all {steps} steps"
    else:
        meaning = f"steps until another first step cannot be told from the state to within {tolerance:g}"
        meaning += f"; of {kept.sum()} of {len(kept)} rows it can after all {steps}" if kept.any() else ""
    return Finding("memory of the first step", value, meaning)


def _of_rest(rest):
    if rest is None:
        return []
    count, stable = len(rest.points), int(rest.stable.sum())
    if not count:
        return [Finding("fixed points", "0", "under the mean input none was found")]
    radius = float(np.abs(rest.eigenvalues[:, 0]).min())
    meaning = f"under the mean input, {stable} of them stable; the least spectral radius there is {radius:.3g}"
    return [Finding("fixed points", str(count), meaning)]


def _power(log):
    if log == -math.inf:
        return "0"
    exponent = log / math.log(10)
    return f"{math.exp(log):.3g}" if abs(exponent) < 4 else f"1e{exponent:+.0f}"


def _first(where):
    return int(np.argmax(where))

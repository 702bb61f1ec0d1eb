"""How far ahead a model forecasts: errors one step, k steps and a whole free run ahead, side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_seq.analysis.series import numbers, series, table
from keras_seq.arguments import positive_integer
from keras_seq.layers import NARX, RNN
from keras_seq.typing import Tensor

FAR = 100
"""A forecast diverges that lies further from the mean of the targets than this many of their ranges."""
AT_ONCE = 2**22
"""How many numbers of inputs and targets are forecast at once."""
LAST = "last value"
"""The forecast that any other is compared with."""


class ForecastErrors(NamedTuple):
    """What `forecast_errors` finds: as a table by `print`, in numbers by its fields."""

    names: list[str]
    """Of the models, (m,); the last is "last value": all steps ahead are as the last known."""
    horizons: np.ndarray
    """How many steps ahead, (h,)."""
    rmse: np.ndarray
    """Root mean squared errors, (m, h + 1), in the end that of the free run; inf where a forecast diverges."""
    fit: np.ndarray
    """Fit percentages, likewise, as `fit_percentage` of all outputs together; -inf where a forecast diverges."""
    first: int
    """The first step that is judged; the same in all columns and rows."""
    free_runs: dict[str, np.ndarray]
    """The forecasts of the steps from `warm_up` on, by name, (b, t - warm_up, k); NaN from where one diverges."""
    warm_up: int
    diverged: dict[str, int]
    """By name, at which step of the series the free run diverges first in any row; only for those that do."""

    def __str__(self) -> str:
        steps = self.first, self.warm_up + next(iter(self.free_runs.values())).shape[1] - 1
        rows = [["ahead", *(f"{column}" for name in self.names for column in (name, "fit %"))]]
        for i, horizon in enumerate([*self.horizons, None]):
            row = [f"free, {self.warm_up} known" if horizon is None else f"{horizon} step{'s' if horizon > 1 else ''}"]
            for name, error, fit in zip(self.names, self.rmse[:, i], self.fit[:, i], strict=True):
                if math.isfinite(error):
                    row += [f"{error:.4g}", f"{fit:.1f}"]
                else:
                    row += ["diverges", f"at {self.diverged[name]}" if horizon is None else ""]
            rows.append(row)
        return f"root mean squared error and fit, steps {steps[0]} to {steps[1]}\n{table(rows)}"


def fit_percentage(true: Tensor, predicted: Tensor) -> Any:
    """How much of what varies in a series a model reproduces, in percent.

        fit = 100 (1 - |y - predicted| / |y - mean y|)

    |.| is the length over all steps (and rows). 100 is perfect, 0 no better than the mean, below 0 worse. It is one less the
    normalised root mean squared error (NRMSE), what MATLAB's `compare` prints.

    Args:
        true: y, (t,), or (t, k) or (b, t, k) for k outputs.
        predicted: likewise.

    Returns:
        The fit: a number for (t,), otherwise an array (k,), one for each output. -inf of predictions that are not finite.

    Raises:
        TypeError, ValueError: series of different shapes, true values that are constant or not finite.

    Example:

    ```python
    from keras_seq.analysis import fit_percentage
    print(fit_percentage([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]))  # 29.3, rounded
    ```
    """
    flat = np.ndim(true) == 1
    y = series("true", true)
    found = numbers("predicted", predicted)
    if found.shape != np.shape(true):
        raise ValueError(f"predicted: expected shape {np.shape(true)}, as true has, got {found.shape}")
    fit = _fit(y, found.reshape(y.shape), axis=(0, 1))
    return float(fit[0]) if flat else fit


def forecast_errors(
    models: Any,
    targets: Tensor,
    sequences: Tensor | None = None,
    horizons: Sequence[int] = (1, 5, 20),
    warm_up: int | None = None,
) -> ForecastErrors:
    """Errors of models one step, k steps and a whole free run ahead, on the same steps, beside those of the last value.

        k steps ahead: y_t from true outputs up to y_{t-k}, and from its own ones between; inputs are known all along

    A model that is good one step ahead may be useless k steps ahead: its errors go round the loop. A free run knows the
    first `warm_up` outputs alone. It diverges where a value is not finite or 100 ranges of the targets away from their
    mean; then the step is named, and its error is inf. All errors are those at the steps that every horizon reaches.

    Args:
        models: one model, or a dict of models by name: a `keras_seq.NARX` or `AR`; a `keras_seq.RNN` over a cell that feeds
            its output back (`keras_seq.FeedbackCell`), `return_sequences=True`; or a function `(targets (b, w, k), sequences
            (b, w + n, d)) -> (b, n, k)`, as `NARX.forecast` is, such as one with scaling in it, of float32 arrays.
        targets: true outputs, (t,), (t, k) or (b, t, k).
        sequences: inputs of the same steps, (t,), (t, d) or (b, t, d); None if no model reads any.
        horizons: positive integers k, rising.
        warm_up: positive integer w, how many known outputs come before each forecast; None for the longest delay of the
            models, all of which are NARX or AR then. More makes no difference to these, but gives other memories time.

    Returns:
        A `ForecastErrors`; outputs count alike, so that those of different units are better judged apart.

    Raises:
        TypeError, ValueError: models that are none of these, or forecast another shape; a warm-up shorter than the delays;
            horizons that are not rising positive integers, or beyond the series; targets that are constant.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import fit_arx, forecast_errors
    rng = np.random.default_rng(0)
    u, y = rng.normal(size=300), np.zeros(300)
    for t in range(1, 300):
        y[t] = 0.8 * y[t - 1] + u[t - 1] + 0.1 * rng.normal()
    arx = fit_arx(y[:200], u[:200], input_delays=[1], output_delays=1)
    print(forecast_errors({"ARX": arx}, y[200:], u[200:], horizons=[1, 5]))
    ```
    """
    several = models if isinstance(models, Mapping) else {"model": models}
    if not several or LAST in several:
        raise ValueError(f"models: expected at least one, and none of the name {LAST!r}, got {list(several)}")
    y = series("targets", targets)
    x = np.zeros((*y.shape[:2], 1)) if sequences is None else series("sequences", sequences, like=y)
    known = _warm_up(several, warm_up)
    ahead = _horizons(horizons, y.shape[1] - known)
    forecasters = {name: forecaster_of(model, sequences is not None) for name, model in several.items()}
    forecasters[LAST] = lambda t, s: np.repeat(t[:, -1:], s.shape[1] - t.shape[1], axis=1)
    first = known + ahead[-1] - 1
    true, bounds = y[:, first:], _bounds(y)
    rmse, fit, free_runs, diverged = [], [], {}, {}
    for name, forecast in forecasters.items():
        found = _ahead(forecast, y, x, known, ahead[-1])
        each = [found[:, first - known - k + 1 : y.shape[1] - known - k + 1, k - 1] for k in ahead]
        free = free_runs[name] = free_run(forecast, y, x, known)
        if np.isnan(free).any():
            diverged[name] = known + int(np.flatnonzero(np.isnan(free).any(axis=(0, 2)))[0])
        each.append(free[:, first - known :])
        each = [np.where(_far(e, bounds), np.nan, e) for e in each]
        rmse.append([_or(math.inf, np.sqrt(np.mean((e - true) ** 2))) for e in each])
        fit.append([_or(-math.inf, _fit(true, e)) for e in each])
    names = list(forecasters)
    return ForecastErrors(names, ahead, np.array(rmse), np.array(fit), first, free_runs, known, diverged)


def free_run(forecast: Callable[..., Any], y: np.ndarray, x: np.ndarray, known: int) -> np.ndarray:
    """The steps of (b, t, k) after `known` ones from the model's own outputs; NaN from where it diverges."""
    free = _checked(forecast, y[:, :known], x, y.shape[1] - known, y.shape[2])
    free[np.maximum.accumulate(np.any(_far(free, _bounds(y)), axis=2), axis=1)] = np.nan
    return free


def _fit(y, predicted, axis=None):
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.sqrt(np.sum((y - y.mean(axis=(0, 1))) ** 2, axis=axis))
        if not np.all(size):
            raise ValueError("true: expected values that differ, got a constant")
        fit = 100 * (1 - np.sqrt(np.sum((y - predicted) ** 2, axis=axis)) / size)
    return np.where(np.isnan(fit), -math.inf, fit)


def _or(otherwise, value):
    return otherwise if np.isnan(value) else float(value)


def _bounds(y):
    """Mean and greatest distance from it that is no divergence, of each output."""
    mean, ranges = y.mean(axis=(0, 1)), np.ptp(y, axis=(0, 1))
    if not np.all(ranges):
        raise ValueError("targets: expected values that differ, got a constant")
    return mean, FAR * ranges


def _far(values, bounds):
    mean, most = bounds
    with np.errstate(invalid="ignore", over="ignore"):
        return ~(np.abs(values - mean) <= most)


def _warm_up(models, given):
    delays = {name: m.delays for name, m in models.items() if isinstance(m, NARX)}
    if given is None:
        others = [name for name in models if name not in delays]
        if others:
            raise ValueError(
                f"warm_up: expected a positive integer for models other than NARX and AR ({others}), got None"
            )
        return max(delays.values())
    given = positive_integer("warm_up", given)
    if given < max(delays.values(), default=1):
        raise ValueError(f"warm_up: expected at least the {max(delays.values())} of the delays, got {given}")
    return given


def _horizons(horizons, most):
    if not isinstance(horizons, (list, tuple, range, np.ndarray)):
        raise TypeError(f"horizons: expected rising positive integers, got {horizons!r:.80}")
    found = [positive_integer("horizons", k) for k in horizons]
    if not found or any(b <= a for a, b in itertools.pairwise(found)):
        raise ValueError(f"horizons: expected rising positive integers, got {list(horizons)}")
    if found[-1] > most:
        raise ValueError(f"horizons: expected at most {most}, the steps after the warm-up, got {found[-1]}")
    return np.array(found)


def forecaster_of(model: Any, has_inputs: bool) -> Callable[..., Any]:
    """The model as a function (targets, sequences) -> forecasts; layers compiled."""
    if isinstance(model, NARX):
        if model.cell.exogenous and not has_inputs:
            raise ValueError(f"sequences: expected the inputs that {model.name} reads, got None")
        if model.cell.exogenous:
            return _compiled(model.forecast)
        return _compiled(lambda t, s: model.forecast(t, steps=s.shape[1] - t.shape[1]))
    if isinstance(model, RNN):
        feeds = getattr(model.cell, "supports_teacher_forcing", False)
        if not feeds or not model.return_sequences or model.stateful or model.return_internals:
            raise TypeError(
                "models: expected a layer that feeds its output back, with return_sequences=True, stateful=False and "
                f"return_internals=False, got {model.name}"
            )

        def forecast(t, s):
            _, *states = model(s[:, : t.shape[1]], targets=t, return_state=True)
            return model(s[:, t.shape[1] :], initial_state=states, return_state=False)

        return _compiled(forecast)
    if isinstance(model, type) or not callable(model):
        raise TypeError(f"models: expected a NARX, an RNN that feeds its output back or a function, got {model!r:.80}")
    return lambda t, s: model(t.astype("float32"), s.astype("float32"))


def _compiled(forecast):
    """One program for each shape."""
    function = tf.function(forecast, autograph=False)

    def run(t, s):
        t, s = tf.convert_to_tensor(t), tf.convert_to_tensor(s)
        return function.get_concrete_function(t, s)(t, s)

    return run


def _checked(forecast, t, s, steps, outputs):
    """Forecasts (b, steps, k) as float64; an error if they have another shape."""
    found = numbers("models: of forecasts", forecast(t, s))
    if found.shape != (len(t), steps, outputs):
        raise ValueError(f"models: expected forecasts of shape {(len(t), int(steps), outputs)}, got {found.shape}")
    return found


def _ahead(forecast, y, x, known, most):
    """Forecasts from each step from `known` on, (b, t - known, most, k); what lies beyond the series is none."""
    rows, steps, k = y.shape
    x = np.concatenate([x, np.zeros((rows, most, x.shape[-1]))], axis=1)
    targets = np.lib.stride_tricks.sliding_window_view(y[:, :-1], known, axis=1).swapaxes(2, 3)
    inputs = np.lib.stride_tricks.sliding_window_view(x[:, :-1], known + most, axis=1).swapaxes(2, 3)
    starts = steps - known
    per = max(1, AT_ONCE // (rows * ((known + most) * x.shape[-1] + known * k)))
    found = []
    for i in range(0, starts, per):
        t, s = targets[:, i : i + per], inputs[:, i : i + per]
        t, s = (v.reshape(-1, *v.shape[2:]) for v in (t, s))
        found.append(_checked(forecast, t, s, most, k).reshape(rows, -1, most, k))
    return np.concatenate(found, axis=1)

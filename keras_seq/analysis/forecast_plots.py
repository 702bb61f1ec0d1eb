"""Pictures of residuals and forecasts, one in each Axes; none needs colour to be read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.analysis.forecasts import ForecastErrors
from keras_seq.analysis.intervals import Interval
from keras_seq.analysis.plots import _axes, _by_name, _legend_below, _line, _styles
from keras_seq.analysis.residuals import Correlation
from keras_seq.analysis.series import numbers
from keras_seq.arguments import finite_array, integer_or_none
from keras_seq.typing import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 30
"""Errors that differ by more than this factor are drawn on a logarithmic scale."""


def plot_correlation(correlation: Correlation, ax: Axes | None = None) -> Axes:
    """Draw correlations of residuals over lags, with the limits: filled markers lie beyond them.

    MATLAB's `ploterrcorr` for residuals with themselves, `plotinerrcorr` for residuals with an input, divided so that
    values lie between -1 and 1. The 1 of residuals with themselves at lag 0 is left out. Grey markers, at negative lags of
    an input, are not tested.

    Args:
        correlation: one of the `correlations` that `residual_tests` gives.
        ax: as in `plot_spectrum`.

    Returns:
        The Axes.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: a correlation that is none; an `ax` that is no Axes.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import plot_correlation, residual_tests
    found = residual_tests(np.random.default_rng(0).normal(size=300))
    ax = plot_correlation(found.correlations["residual"])
    ```
    """
    if not isinstance(correlation, Correlation):
        raise TypeError(f"correlation: expected one of residual_tests(..).correlations, got {correlation!r:.80}")
    lags, values, limit = correlation.lags, correlation.values, correlation.limit
    shown = correlation.tested | (lags < 0)
    beyond = shown & np.isin(lags, correlation.beyond)
    ax = _axes(ax, 5, 3.2)
    ax.axhline(0, color="black", linewidth=0.8)
    for sign in (-1, 1):
        ax.axhline(sign * limit, color="#D55E00", linestyle="--", linewidth=1, zorder=0)
    colours = np.where(correlation.tested, "black", "0.6")
    ax.vlines(lags[shown], 0, values[shown], colors=list(colours[shown]), linewidth=1)
    for chosen, colour, fill in (
        (shown & ~correlation.tested, "0.6", "white"),
        (correlation.tested & ~beyond, "black", "white"),
        (beyond, "black", "black"),
    ):
        ax.scatter(lags[chosen], values[chosen], s=20, edgecolors=colour, facecolors=fill, zorder=3)
    reach = 1.15 * max(np.abs(values[shown]).max(), limit)
    count = f"{len(correlation.beyond)} of {correlation.tested.sum()} beyond the limits, p {_p(correlation.p_value)}"
    ax.set(xlabel="lag, steps", ylabel="correlation", ylim=(-reach, reach))
    ax.set_title(f"{correlation.name}: {count}", fontsize=9)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def plot_forecast_errors(errors: ForecastErrors, ax: Axes | None = None) -> Axes:
    """Draw how errors grow with the horizon: a line for each model, at the right margin the error of its free run.

    Args:
        errors: what `forecast_errors` gives, best with many horizons, such as `range(1, 51)`.
        ax: as in `plot_spectrum`.

    Returns:
        The Axes, logarithmic where errors differ by more than a factor of 30. Horizons at which a model diverges are left out;
        a free run that diverges is said in the legend.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: errors that are none; an `ax` that is no Axes.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import fit_arx, forecast_errors, plot_forecast_errors
    y = np.sin(np.arange(200) / 5) + 0.1 * np.random.default_rng(0).normal(size=200)
    ar = fit_arx(y[:100], output_delays=4)
    ax = plot_forecast_errors(forecast_errors({"AR": ar}, y[100:], horizons=range(1, 21)))
    ```
    """
    if not isinstance(errors, ForecastErrors):
        raise TypeError(f"errors: expected what forecast_errors gives, got {errors!r:.80}")
    ax = _axes(ax, 5, 3.4)
    horizons = errors.horizons
    last = horizons[-1] + max(1.0, 0.12 * (horizons[-1] - horizons[0]))
    for i, (name, style) in enumerate(zip(errors.names, _styles(len(errors.names)), strict=True)):
        found = np.where(np.isfinite(errors.rmse[i]), errors.rmse[i], np.nan)
        label = f"{name} (free run diverges at step {errors.diverged[name]})" if name in errors.diverged else name
        _line(ax, horizons, found[:-1], style, label=label, place=i)
        ax.plot([last], found[-1:], color=style["color"], marker=style["marker"], markersize=8, linestyle="none")
    ax.axvline((horizons[-1] + last) / 2, color="0.8", linewidth=0.8)
    ticks = [int(t) for t in ax.get_xticks() if horizons[0] <= t <= horizons[-1] and t == int(t)]
    ax.set_xticks([*ticks, last], [*map(str, ticks), "free"])
    shown = errors.rmse[np.isfinite(errors.rmse) & (errors.rmse > 0)]
    if len(shown) and shown.max() > WIDE * shown.min():
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, None)
    ax.set(xlabel="steps ahead", ylabel="root mean squared error")
    _legend_below(ax)
    return ax


def plot_forecasts(
    true: Tensor, forecasts: Any, known: int = 0, row: int = 0, output: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw a series and forecasts of its last steps, with their intervals: MATLAB's `plotresponse`.

    Args:
        true: the series, (t,), (t, k) or (b, t, k).
        forecasts: of the steps from `known` on, (t - known,), (t - known, k) or (b, t - known, k), such as the `free_runs` of
            `forecast_errors`; or an `Interval` of such; or a dict of these by name.
        known: how many steps come before the forecasts; a line is drawn there.
        row, output: which sequence and which output of several.
        ax: as in `plot_spectrum`.

    Returns:
        The Axes. A forecast that is not finite from some step on has a cross where it ends or leaves the picture, and the
        legend says at which step it diverges.

    Raises:
        ImportError: matplotlib is not installed.
        IndexError: no such row or output.
        TypeError, ValueError: series or forecasts of other shapes; an `ax` that is no Axes.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import ensemble_interval, plot_forecasts
    y = np.sin(np.arange(80) / 5)
    models = [y[30:] + 0.01 * n * np.arange(50) for n in (-1, 1, 2)]
    ax = plot_forecasts(y, {"three models": ensemble_interval(models)}, known=30)
    ```
    """
    y = _one(finite_array("true", true), "true", row, output)
    if integer_or_none("known", known) is None or not 0 <= known < len(y):
        raise ValueError(f"known: expected an integer of at least 0 and less than the {len(y)} steps, got {known!r}")
    several = forecasts if isinstance(forecasts, Interval) else _by_name("forecasts", forecasts)
    several = {None: several} if isinstance(several, Interval) else several
    drawn: dict[Any, list[np.ndarray]] = {}
    for name, forecast in several.items():
        parts = list(forecast[:3]) if isinstance(forecast, Interval) else [forecast]
        drawn[name] = [_one(numbers("forecasts", part), "forecasts", row, output) for part in parts]
        if any(len(part) != len(y) - known for part in drawn[name]):
            raise ValueError(
                f"forecasts: expected the {len(y) - known} steps from known={known} on, got {len(drawn[name][0])}"
            )
    ax = _axes(ax, 7, 3.2)
    steps = np.arange(len(y))
    ax.plot(steps, y, color="0.55", linewidth=3, label="true", zorder=1)
    if known:
        ax.axvline(known - 0.5, color="black", linewidth=0.8, linestyle=":")
    low, high, cut = y.min(), y.max(), []
    for i, ((name, parts), style) in enumerate(zip(drawn.items(), _styles(len(drawn) + 1)[1:], strict=True)):
        ends = np.flatnonzero(~np.isfinite(parts[0]))
        end = ends[0] if len(ends) else len(parts[0])
        label = "forecast" if name is None else str(name)
        if len(parts) == 3:
            label += f", {several[name].level:.0%} interval"
            ax.fill_between(
                *(steps[known:], parts[1], parts[2]), color=style["color"], alpha=0.2, linewidth=0.6, zorder=0
            )
            low, high = min(low, np.nanmin(parts[1])), max(high, np.nanmax(parts[2]))
        if end < len(parts[0]):
            label += f" (diverges at step {known + end})"
        shown = parts[0][:end]
        if end < len(parts[0]):
            cut.append((shown, style["color"]))
        _line(ax, steps[known : known + end], shown, style, label=label, place=i)
        if end:
            low, high = min(low, shown.min()), max(high, shown.max())
    spread = np.ptp(y) or 1.0
    low, high = max(low, y.min() - spread / 2), min(high, y.max() + spread / 2)
    room = 0.05 * (high - low)
    low, high = low - room, high + room
    for shown, colour in cut:  # a cross where the line leaves the picture, or ends
        outside = np.flatnonzero((shown < low) | (shown > high))
        last = outside[0] if len(outside) else len(shown) - 1
        if last >= 0:
            style = {"marker": "x", "markersize": 9, "markeredgewidth": 2, "color": colour, "clip_on": False}
            ax.plot([known + last], [np.clip(shown[last], low, high)], **style)
    ax.set(xlabel="step", ylabel="output", xlim=(0, len(y) - 1), ylim=(low, high))
    _legend_below(ax)
    return ax


def _one(values, name, row, output):
    """One series (t,) of (t,), (t, k) or (b, t, k)."""
    if values.ndim not in (1, 2, 3) or 0 in values.shape:
        raise ValueError(f"{name}: expected shape (t,), (t, k) or (b, t, k), got {values.shape}")
    values = values.reshape(values.shape if values.ndim == 3 else (1, len(values), -1))
    for argument, index, size in (("row", row, len(values)), ("output", output, values.shape[2])):
        if integer_or_none(argument, index) is None or not -size <= index < size:
            raise IndexError(f"{argument}: expected one of the {size} of {name}, got {index!r}")
    return values[row, :, output]


def _p(value):
    return "untested" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"= {value:.4f}"

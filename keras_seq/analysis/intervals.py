"""Forecasts with a margin: from several models, or from quantiles."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_seq.arguments import finite_array, positive_number, rate
from keras_seq.typing import Tensor


class Interval(NamedTuple):
    """A forecast with a margin; see `ensemble_interval` and `quantile_interval`."""

    centre: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    level: float
    """The share of true values that should lie between."""

    def coverage(self, true: Tensor) -> float:
        """The share of true values, of the shape of the forecast, that do lie between."""
        true = finite_array("true", true)
        if true.shape != self.centre.shape:
            raise ValueError(f"true: expected shape {self.centre.shape}, got {true.shape}")
        return float(np.mean((self.lower <= true) & (true <= self.upper)))

    @property
    def width(self) -> float:
        """The mean width. Of two intervals of the right coverage the narrower is better."""
        return float(np.mean(self.upper - self.lower))


def ensemble_interval(forecasts: Tensor, level: float = 0.9, noise: float | None = None) -> Interval:
    """Mean and spread of the forecasts of several models.

        mean +- z sqrt(s^2 + noise^2)        s^2 = sum_i (forecast_i - mean)^2 / (m - 1)

    z is the quantile of the normal distribution. Models that were started or trained otherwise disagree where data were
    few: s. They agree about noise, so that s alone is too narrow wherever there is any; `noise` adds it, as the standard
    deviation of the residuals of a held-out part. Nothing makes the level come true but checking it: `coverage`.

    Args:
        forecasts: (m, ...), the forecasts of at least two models.
        level: which share of true values should lie between, in (0, 1).
        noise: positive standard deviation of what no model can forecast; None for none.

    Returns:
        An `Interval` of the shape of one forecast.

    Raises:
        TypeError, ValueError: fewer than two forecasts, or not finite; a level or noise that is none.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import ensemble_interval
    rng = np.random.default_rng(0)
    true = np.sin(np.arange(200) / 9)
    models = [true + 0.1 * rng.normal(size=200) for _ in range(8)]
    interval = ensemble_interval(models, level=0.9, noise=0.2)
    print(interval.coverage(true + 0.2 * rng.normal(size=200)))
    ```
    """
    found, level = finite_array("forecasts", forecasts), _level(level)
    if found.ndim < 2 or len(found) < 2 or 0 in found.shape:
        raise ValueError(f"forecasts: expected those of at least two models, (m, ...), got shape {found.shape}")
    spread = np.sqrt(found.var(axis=0, ddof=1) + (0.0 if noise is None else positive_number("noise", noise)) ** 2)
    margin = statistics.NormalDist().inv_cdf((1 + level) / 2) * spread
    centre = found.mean(axis=0)
    return Interval(centre, centre - margin, centre + margin, level)


def quantile_interval(forecasts: Tensor, quantiles: Sequence[float]) -> Interval:
    """The interval from the least quantile to the greatest, about the one nearest to the median.

    A model trained by `keras_seq.training.PinballLoss` forecasts quantiles, which may cross. They are put in order at each
    step, which makes none of them worse (Chernozhukov, Fernandez-Val and Galichon 2010).

    Args:
        forecasts: (..., q), quantiles of one output along the last axis.
        quantiles: q rising numbers in (0, 1), at least two.

    Returns:
        An `Interval` of shape (...), of the level that lies between the first quantile and the last.

    Raises:
        TypeError, ValueError: forecasts that are not finite, or not as many as quantiles; quantiles that do not rise.

    Example:

    ```python
    from keras_seq.analysis import quantile_interval
    interval = quantile_interval([[-1.0, 0.0, 2.0], [0.5, 0.0, 1.0]], quantiles=[0.05, 0.5, 0.95])
    print(interval.lower, interval.upper)  # [-1.  0.] [2. 1.]
    ```
    """
    found, levels = finite_array("forecasts", forecasts), finite_array("quantiles", quantiles)
    rising = levels.ndim == 1 and len(levels) > 1 and np.all(np.diff(levels, prepend=0.0, append=1.0) > 0)
    if not rising:
        raise ValueError(f"quantiles: expected at least two rising numbers in (0, 1), got {quantiles!r:.80}")
    if found.ndim < 1 or found.shape[-1] != len(levels):
        raise ValueError(f"forecasts: expected shape (..., {len(levels)}), one for each quantile, got {found.shape}")
    found = np.sort(found, axis=-1)
    middle = int(np.argmin(np.abs(levels - 0.5)))
    return Interval(found[..., middle], found[..., 0], found[..., -1], float(levels[-1] - levels[0]))


def _level(value):
    if rate("level", value) == 0:
        raise ValueError(f"level: expected a number in (0, 1), got {value!r}")
    return float(value)

"""What a model has left unexplained: residuals that correlate with themselves or with inputs."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np

from keras_seq.analysis.series import series, table
from keras_seq.arguments import boolean, integer_or_none, positive_integer, rate
from keras_seq.extras import needed
from keras_seq.typing import Tensor


class Correlation(NamedTuple):
    """Correlations of residuals with themselves, or with a signal, at many lags; see `residual_tests`."""

    name: str
    """What was correlated: "residual", or "residual, input"."""
    lags: np.ndarray
    """Steps from the signal to the residual, (n,): at a positive lag the signal comes first."""
    values: np.ndarray
    """Of -1 .. 1, (n,)."""
    limit: float
    """Of residuals that know nothing of the signal, the given share of values lies within -limit .. limit."""
    statistic: float
    """Over all tested lags together; see `residual_tests`."""
    p_value: float
    """How probable so great a statistic is where nothing is left to explain; NaN if nothing can be tested."""
    tested: np.ndarray
    """Which lags the statistic takes in, and the limits apply to, (n,), booleans."""

    @property
    def beyond(self) -> np.ndarray:
        """The tested lags whose value lies beyond the limits."""
        return self.lags[self.tested & (np.abs(self.values) > self.limit)]


class ResidualTests(NamedTuple):
    """What `residual_tests` finds: as a table by `print`, in numbers by its fields."""

    correlations: dict[str, Correlation]
    """By their names."""
    steps: int
    """How many residuals of one output there are."""
    confidence: float
    mean: np.ndarray
    """Of the residuals of each output, (k,), which the correlations leave out."""

    def __str__(self) -> str:
        limit = next(iter(self.correlations.values())).limit
        means = ", ".join(f"{m:.3g}" for m in self.mean)
        rows = [["correlation of", "beyond", "greatest", "at lag", "statistic", "p"]]
        for c in self.correlations.values():
            lags, values = c.lags[c.tested], c.values[c.tested]
            most = np.argmax(np.abs(values))
            beyond = f"{len(c.beyond)} of {len(lags)}"
            rows.append(
                [c.name, beyond, f"{values[most]:.3f}", f"{lags[most]}", f"{c.statistic:.1f}", f"{c.p_value:.4f}"]
            )
        title = f"{self.steps} residuals of mean {means}; {self.confidence:.0%} of values within {limit:.3f} by chance"
        return f"{title}\n{table(rows)}"


def residual_tests(
    residuals: Tensor,
    inputs: Tensor | None = None,
    lags: int = 20,
    confidence: float = 0.95,
    higher_order: bool = False,
    model_df: int = 0,
) -> ResidualTests:
    """Whether residuals e_t = y_t - predicted_t still hold something that a model could explain.

        residual           r(k) = sum_t e_t e_{t-k} / sum_t e_t^2                                  k = 1 .. lags
        residual, input    r(k) = sum_t e_t u_{t-k} / sqrt(sum_t e_t^2 sum_t u_t^2)                k = 0 .. lags

    of e and u less their means. If residuals are white and independent of inputs, each r(k) is about normal with variance 1
    / n, n the number of residuals: the limits. One in twenty lies beyond those of 95 % by chance, so that a statistic
    judges all lags together. For residuals with themselves it is that of Ljung and Box (1978), n (n + 2) sum_k r(k)^2 / (n
    - k), chi-squared with lags - model_df degrees of freedom; for others n r' R^{-1} r (Ljung 1999, section 16.6), where R
    holds the correlations of u among its own lags, so that smooth inputs do not raise false alarms. A large r(k) of
    residuals with an input says which delay is missing; of residuals with themselves, that the noise has a memory, or the
    outputs need more delays. At negative lags, which are shown and not tested, residuals come before the input: they speak
    of a controller.

    With `higher_order` also the tests of Billings and Voon (1986), which find what linear correlations miss: residuals with
    u^2, e^2 with u^2, and residuals with the products e_{t-k} u_{t-k}, k = 1 .. lags. A model that lacks a term in u^2
    passes the first two tests.

    Residuals one step ahead are what these tests are for. Those of a free run are not white even where the model is the
    plant. MATLAB's `ploterrcorr` and `plotinerrcorr` are not divided by the variances: `ploterrcorr` has the mean squared
    error at lag 0, and limits of 2 / sqrt(n) times that.

    Args:
        residuals: (t,), (t, k) for k outputs, or rows (b, t, k), each with itself alone, summed over rows.
        inputs: (t,), (t, d) or (b, t, d), of the same steps; None for the residuals alone.
        lags: positive integer, the greatest lag, less than the steps.
        confidence: share of values within the limits by chance, in (0, 1).
        higher_order: whether to add the tests of higher order; needs inputs.
        model_df: how many weights of a linear model of the noise were fitted to these residuals, less than `lags`.

    Returns:
        A `ResidualTests`. With several outputs or inputs the correlations are those of each pair, numbered from 1.

    Raises:
        ImportError: SciPy is not installed.
        TypeError, ValueError: series of other shapes, not finite or constant; no more steps than lags; higher_order without
            inputs.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import residual_tests
    rng = np.random.default_rng(0)
    u, noise = rng.normal(size=(2, 500))
    found = residual_tests(noise[3:] + 0.5 * u[:-3], inputs=u[3:])
    print(found.correlations["residual, input"].beyond)  # [3]
    ```
    """
    e = series("residuals", residuals)
    u = None if inputs is None else series("inputs", inputs, like=e)
    lags, confidence = positive_integer("lags", lags), rate("confidence", confidence)
    if confidence == 0:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    if lags >= e.shape[1]:
        raise ValueError(f"lags: expected fewer than the {e.shape[1]} steps of residuals, got {lags}")
    if boolean("higher_order", higher_order) and u is None:
        raise ValueError("inputs: expected some, which higher_order=True reads, got None")
    lost = integer_or_none("model_df", model_df)
    if lost is None or not 0 <= lost < lags:
        raise ValueError(f"model_df: expected an integer of at least 0 and less than lags={lags}, got {model_df!r}")
    rows, steps = e.shape[:2]
    limit = statistics.NormalDist().inv_cdf((1 + confidence) / 2) / np.sqrt(rows * steps)
    named_inputs = {} if u is None else _by_number("input", _centred("inputs", u))
    found = []
    for name, one in _by_number("residual", _centred("residuals", e)).items():
        found.append(_with_itself(name, one, lags, limit, lost))
        for of, signal in named_inputs.items():
            found.append(_with_signal(f"{name}, {of}", one, signal, range(-lags, lags + 1), limit))
            if higher_order:
                square = _centred("inputs: of their squares", signal**2)
                found.append(_with_signal(f"{name}, {of}^2", one, square, range(lags + 1), limit))
                found.append(_with_signal(f"{name}^2, {of}^2", one**2, square, range(lags + 1), limit))
                found.append(_with_signal(f"{name}, {name} * {of}", one, one * signal, range(1, lags + 1), limit))
    return ResidualTests({c.name: c for c in found}, rows * steps, confidence, e.mean(axis=(0, 1)))


def _centred(name, values):
    """Less the means over rows and steps; an error for a constant."""
    centred = values - values.mean(axis=(0, 1))
    if not np.all(np.any(centred, axis=(0, 1))):
        raise ValueError(f"{name}: expected values that differ, got a constant")
    return centred


def _by_number(name, values):
    """The series (b, t) of values (b, t, k), numbered from 1 if there are several."""
    several = values.shape[-1] > 1
    return {f"{name} {i + 1}" if several else name: values[..., i] for i in range(values.shape[-1])}


def _products(a, b, lags):
    """sum_t a_t b_{t-k} over all rows, for each lag k."""
    steps = a.shape[1]
    return np.array([np.sum(a[:, max(k, 0) : steps + min(k, 0)] * b[:, max(-k, 0) : steps - max(k, 0)]) for k in lags])


def _with_itself(name, e, lags, limit, lost):
    (rows, steps), n = e.shape, e.size
    tested = np.arange(1, lags + 1)
    values = _products(e, e, range(lags + 1)) / np.sum(e**2)
    statistic = n * (n + 2) * np.sum(values[1:] ** 2 / (rows * (steps - tested)))
    p = _chi_squared(statistic, lags - lost)
    return Correlation(name, np.arange(lags + 1), values, limit, float(statistic), p, np.arange(lags + 1) > 0)


def _with_signal(name, e, u, lags, limit):
    e, u, lags = e - e.mean(), u - u.mean(), np.asarray(lags)
    tested = lags >= 0
    size = np.sum(e**2) * np.sum(u**2)
    if not size:  # such as squares of residuals of one modulus
        nothing = np.zeros(len(lags))
        return Correlation(name, lags, nothing, limit, 0.0, float("nan"), tested)
    values = _products(e, u, lags) / np.sqrt(size)
    own = _products(u, u, range(tested.sum())) / np.sum(u**2)
    distance = np.abs(np.subtract.outer(np.arange(len(own)), np.arange(len(own))))
    statistic = e.size * values[tested] @ np.linalg.solve(own[distance], values[tested])
    return Correlation(name, lags, values, limit, float(statistic), _chi_squared(statistic, tested.sum()), tested)


def _chi_squared(statistic, freedom):
    """How probable a greater one is."""
    return float(needed("scipy.special", "analysis").chdtrc(freedom, statistic))

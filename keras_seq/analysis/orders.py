"""Which delays a model needs: linear ones by least squares, any others by a function that trains them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_seq.analysis.forecasts import forecaster_of, free_run
from keras_seq.analysis.series import series, table
from keras_seq.cells.narx import delays_of
from keras_seq.layers import AR, NARX
from keras_seq.typing import Tensor

TITLES = {"aic": "AIC", "aicc": "AICc", "bic": "BIC", "fpe": "FPE", "one_step": "one step", "free_run": "free run"}
CRITERIA = tuple(TITLES)


class Order(NamedTuple):
    """One choice of delays; see `select_orders`."""

    input_delays: list[int] | None
    output_delays: list[int]
    weights: int
    aic: float
    aicc: float
    bic: float
    fpe: float
    one_step: float
    """Root mean squared error one step ahead on the validation series; NaN without one."""
    free_run: float
    """Likewise of the free run; inf if it diverges."""


class OrderSelection(NamedTuple):
    """What `select_orders` finds: as a table by `print`, best values marked; in numbers by its rows."""

    orders: list[Order]

    def best(self, criterion: str = "bic") -> Order:
        """The row that is least by one of "aic", "aicc", "bic", "fpe", "one_step", "free_run"."""
        if criterion not in CRITERIA:
            raise ValueError(f"criterion: expected one of {list(CRITERIA)}, got {criterion!r}")
        values = [getattr(order, criterion) for order in self.orders]
        if all(math.isnan(v) for v in values):
            raise ValueError(f"criterion: expected another than {criterion!r}, which needs a validation series")
        return self.orders[int(np.nanargmin(values))]

    def __str__(self) -> str:
        shown = [c for c in CRITERIA if not all(math.isnan(getattr(o, c)) for o in self.orders)]
        rows = [["input delays", "output delays", "weights", *(TITLES[c] + " " for c in shown)]]
        for order in self.orders:
            row = [_listed(order.input_delays), _listed(order.output_delays), str(order.weights)]
            for criterion in shown:
                best = self.best(criterion)
                mark = "*" if order is best else " "
                row.append(_shown(criterion, getattr(order, criterion), getattr(best, criterion)) + mark)
            rows.append(row)
        return f"{table(rows)}\n* the least of its column; AIC, AICc and BIC are shown as what they are above it"


def _shown(criterion, value, least):
    if criterion in ("aic", "aicc", "bic") and math.isfinite(least):
        return f"{value - least:.1f}"
    return "diverges" if criterion == "free_run" and math.isinf(value) else f"{value:.5g}"


def fit_arx(targets: Tensor, sequences: Tensor | None = None, input_delays: Any = 1, output_delays: Any = 1) -> NARX:
    """A linear model with the delays given, its weights by least squares: the first to try, and the one to beat.

        y_t = sum_i A_i x_{t-i} + sum_j B_j y_{t-j} + b,   least sum of squares one step ahead

    Args:
        targets: true outputs, (t,), (t, k) or (b, t, k); the first of each row serve as what was before.
        sequences: inputs of the same steps, (t,), (t, d) or (b, t, d); None for a model of outputs alone.
        input_delays, output_delays: as in `keras_seq.NARX`: 3 for the delays 0, 1, 2 of inputs and 1, 2, 3 of outputs.

    Returns:
        A built `keras_seq.NARX`, or `AR`, with `units=None` and `return_sequences=True`. Solved in float64.

    Raises:
        TypeError, ValueError: series of other shapes or not finite, fewer steps than weights; delays as in `keras_seq.NARX`.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import fit_arx
    u, y = np.random.default_rng(0).normal(size=100), np.zeros(100)
    for t in range(2, 100):
        y[t] = 0.5 * y[t - 1] - 0.3 * y[t - 2] + 2 * u[t - 1]
    layer = fit_arx(y, u, input_delays=[1], output_delays=2)
    print(layer.cell.kernel.numpy(), layer.cell.recurrent_kernel.numpy())   # 2; 0.5 and -0.3
    ```
    """
    y, x = _both(targets, sequences)
    if x is not None and input_delays is None:
        raise TypeError("input_delays: expected what NARX takes, as there are sequences, got None")
    linear = _least_squares(y, x, *_delays(None if x is None else input_delays, output_delays))
    return _layer(linear, y, x)


def select_orders(
    targets: Tensor,
    sequences: Tensor | None = None,
    input_delays: Sequence[Any] = (1, 2, 3, 4),
    output_delays: Sequence[Any] = (1, 2, 3, 4),
    validation: Any = None,
    fit: Callable[..., NARX] | None = None,
) -> OrderSelection:
    """Compare all pairs of delays by information criteria, and by errors on a validation series.

        AIC = n ln V + 2 p               AICc = AIC + 2 p (p + 1) / (n k - p - 1)
        BIC = n ln V + p ln n            FPE = V ((n k + p) / (n k - p))^k

    of p weights, n steps and V the determinant of the mean of e e' over the residuals e of k outputs one step ahead (Akaike
    1974 and 1970; Hurvich and Tsai 1989; Schwarz 1978), constants that all orders share left out. All orders are judged on
    the same steps: those after the longest delay of all. BIC takes the fewest weights; AIC and FPE forecast best one step
    ahead. They count the weights of a linear model rightly; those of a net count for less than one each where training
    stops early, so that there the errors on a validation series decide, above all the free run.

    Args:
        targets, sequences: as in `fit_arx`; the series to fit.
        input_delays, output_delays: lists of what `keras_seq.NARX` takes by these names, such as `range(1, 6)`, or
            `[[1], [1, 2], [1, 24]]`. Without sequences `input_delays` has no meaning.
        validation: `(targets, sequences)` of the validation series, or its targets alone where there are no sequences.
        fit: function (input_delays, output_delays) -> `keras_seq.NARX` or `AR`, trained on the series to fit, which it knows;
            delays are lists. None for linear models by least squares.

    Returns:
        An `OrderSelection`; `best("bic")` is a row of it, `print` a table.

    Raises:
        TypeError, ValueError: as in `fit_arx`; no pair of delays; a `fit` that gives no such layer, or one of other delays.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import select_orders
    rng = np.random.default_rng(0)
    u, y = rng.normal(size=600), np.zeros(600)
    for t in range(2, 600):
        y[t] = 1.2 * y[t - 1] - 0.5 * y[t - 2] + u[t - 1] + 0.1 * rng.normal()
    found = select_orders(y[:400], u[:400], [[1], [1, 2]], range(1, 5), validation=(y[400:], u[400:]))
    best = found.best("bic")
    print(best.input_delays, best.output_delays)  # [1] [1, 2]
    ```
    """
    y, x = _both(targets, sequences)
    if fit is not None and (isinstance(fit, type) or not callable(fit)):
        raise TypeError(f"fit: expected a function (input_delays, output_delays) -> NARX, or None, got {fit!r:.80}")
    pairs = [
        (_delays(p, q))
        for p in (_listable("input_delays", input_delays) if x is not None else [None])
        for q in _listable("output_delays", output_delays)
    ]
    skip = max(max([*(p or [0]), *q]) for p, q in pairs)
    held = None if validation is None else _validation(validation, y, x)
    return OrderSelection([_judged(p, q, y, x, skip, held, fit) for p, q in pairs])


class _Linear(NamedTuple):
    """A linear model in NumPy: by hundreds of times faster to make than a layer."""

    input_delays: list[int] | None
    output_delays: list[int]
    kernel: np.ndarray
    """(taps + 1, k): those of inputs, of outputs, the bias."""

    def one_step(self, y, x, skip):
        return _taps(self, y, x, skip) @ self.kernel

    def __call__(self, targets, sequences):
        """A free run, as `NARX.forecast`."""
        known, steps, k = targets.shape[1], sequences.shape[1], targets.shape[2]
        y = np.concatenate([targets, np.zeros((len(targets), steps - known, k))], axis=1)
        n = 0 if self.input_delays is None else len(self.input_delays) * sequences.shape[2]
        driven = np.broadcast_to(self.kernel[-1], (len(y), steps - known, k))
        if n:
            lagged = [sequences[:, known - d : steps - d] for d in self.input_delays]
            driven = driven + np.concatenate(lagged, axis=-1) @ self.kernel[:n]
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(known, steps):
                past = np.concatenate([y[:, t - d] for d in self.output_delays], axis=-1)
                y[:, t] = driven[:, t - known] + past @ self.kernel[n:-1]
        return y[:, known:]


def _taps(model, y, x, skip):
    """What a linear model multiplies with its weights, for the steps from `skip` on."""
    lagged = [] if x is None else [x[:, skip - d : x.shape[1] - d] for d in model.input_delays]
    lagged += [y[:, skip - d : y.shape[1] - d] for d in model.output_delays]
    return np.concatenate([*lagged, np.ones((*y[:, skip:].shape[:2], 1))], axis=-1)


def _least_squares(y, x, input_delays, output_delays, skip=None):
    model = _Linear(input_delays, output_delays, np.zeros(0))
    skip = max([*(input_delays or [0]), *output_delays]) if skip is None else skip
    if skip >= y.shape[1]:
        raise ValueError(f"targets: expected more steps than the longest delay, {skip}, got {y.shape[1]}")
    taps = _taps(model, y, x, skip).reshape(-1, _width(model, y, x))
    if len(taps) <= taps.shape[1]:
        raise ValueError(
            f"targets: expected more steps after the delays than the {taps.shape[1]} weights, got {len(taps)}"
        )
    return model._replace(kernel=np.linalg.lstsq(taps, y[:, skip:].reshape(-1, y.shape[2]), rcond=None)[0])


def _width(model, y, x):
    return (0 if x is None else len(model.input_delays) * x.shape[2]) + len(model.output_delays) * y.shape[2] + 1


def _layer(linear, y, x):
    shared = {"output_delays": linear.output_delays, "return_sequences": True}
    k = y.shape[2]
    layer = AR(None, k, **shared) if x is None else NARX(None, k, input_delays=linear.input_delays, **shared)
    layer.build((None, None, k if x is None else x.shape[2]))
    n = 0 if x is None else len(linear.input_delays) * x.shape[2]
    if n:
        layer.cell.kernel.assign(linear.kernel[:n])
    layer.cell.recurrent_kernel.assign(linear.kernel[n:-1])
    layer.cell.bias.assign(linear.kernel[-1])
    return layer


def _judged(input_delays, output_delays, y, x, skip, held, fit):
    if fit is None:
        model = _least_squares(y, x, input_delays, output_delays, skip)
        one_step, weights = model.one_step, model.kernel.size
        free = model
    else:
        model = fit(input_delays, output_delays)
        if not isinstance(model, NARX):
            raise TypeError(f"fit: expected a function that gives a NARX or AR, got {model!r:.80}")
        delays = (model.cell.input_delays if model.cell.exogenous else None), model.cell.output_delays
        if delays != (input_delays, output_delays):
            raise ValueError(f"fit: expected a layer of delays {(input_delays, output_delays)}, got {delays}")
        weights, free = model.count_params(), forecaster_of(model, x is not None)
        opened = model.open_loop(return_sequences=True, return_state=False, stateful=False, return_internals=False)

        def one_step(y, x, skip):
            found = opened(y if x is None else x, targets=y)
            return np.asarray(ops.convert_to_numpy(found), "float64")[:, skip:]

    e = (y[:, skip:] - one_step(y, x, skip)).reshape(-1, y.shape[2])
    measures = _criteria(np.linalg.slogdet(e.T @ e / len(e))[1], len(e), weights, y.shape[2])
    errors = math.nan, math.nan
    if held is not None:
        t, s = held
        far = free_run(free, t, np.zeros((*t.shape[:2], 1)) if s is None else s, skip) - t[:, skip:]
        errors = tuple(float(np.sqrt(np.mean(e**2))) for e in (one_step(t, s, skip) - t[:, skip:], far))
        errors = errors[0], math.inf if math.isnan(errors[1]) else errors[1]
    return Order(input_delays, output_delays, int(weights), *measures, *errors)


def _criteria(log_volume, n, p, k):
    """AIC, AICc, BIC, FPE of the logarithm of V; infinite where there are too few steps for so many weights."""
    aic = n * log_volume + 2 * p
    corrected = aic + 2 * p * (p + 1) / (n * k - p - 1) if n * k > p + 1 else math.inf
    fpe = math.exp(log_volume) * ((n * k + p) / (n * k - p)) ** k if n * k > p else math.inf
    return aic, corrected, n * log_volume + p * math.log(n), fpe


def _both(targets, sequences, of=""):
    y = series(f"{of}targets", targets)
    return y, None if sequences is None else series(f"{of}sequences", sequences, like=y)


def _validation(given, y, x):
    pair = (given, None) if x is None else given
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
        raise ValueError("validation: expected (targets, sequences), as there are sequences, got something else")
    t, s = _both(*pair, of="validation ")
    if t.shape[2] != y.shape[2] or (s is not None and s.shape[2] != x.shape[2]):
        raise ValueError("validation: expected series as wide as those to fit, got others")
    return t, s


def _listable(name, given):
    if not isinstance(given, (list, tuple, range, np.ndarray)) or not len(given):
        raise TypeError(f"{name}: expected a list of what NARX takes as {name}, got {given!r:.80}")
    return list(given)


def _delays(input_delays, output_delays):
    first = None if input_delays is None else delays_of("input_delays", input_delays, 0)
    return first, delays_of("output_delays", output_delays, 1)


def _listed(delays):
    if delays is None:
        return "-"
    whole = len(delays) > 2 and delays == list(range(delays[0], delays[-1] + 1))
    return f"{delays[0]}..{delays[-1]}" if whole else ", ".join(map(str, delays))

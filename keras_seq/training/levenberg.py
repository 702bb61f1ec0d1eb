"""Training by damped Gauss-Newton steps: Levenberg-Marquardt, with Bayesian regularisation."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq.arguments import boolean, needs_tensorflow, positive_integer, positive_number
from keras_seq.training.residuals import (
    Normal,
    Residuals,
    divergence,
    inputs_of,
    outline_of,
    output_shape,
    prepared,
    total,
)

MOST_DAMPING = 1e10
"""Times the largest diagonal entry of J^T J: with more, no step is tried."""
WORTH_COMPILING = 25_000
"""Steps of a loop, about two seconds, that a fit saves where XLA compiles it, which takes as long."""
FEW_ENTRIES = 2**17
"""Of the Jacobian: with no more, a trial computes it at once, which another program for the sum alone would not be worth."""
TINY = 1e-200
"""In the place of zero where something is divided by it."""


class LevenbergMarquardt:
    """Trains a model whose loss is a sum of squares by damped Gauss-Newton steps, the way of MATLAB's `trainlm`.

        (J^T J + mu I) step = -J^T r,    r = sqrt(sample_weight) (model(x) - y),    J = dr/dw

    J has a row for each output and a column for each trainable weight, through all steps of a recurrent layer too. A step that
    lowers the sum of squares is taken, else mu grows and another is tried. With gain = what it was lowered by, over what the
    linear model foretold,

        mu <- mu max(1/3, 1 - (2 gain - 1)^3)    when a step is taken,    mu <- mu nu, nu <- 2 nu    when not (nu = 2 at first)

    With `bayesian` the sum is r^T r + (alpha / beta) w^T w, and alpha and beta are estimated after each step, the way of
    `trainbr`:

        gamma = sum of lambda / (lambda + alpha / beta) over the eigenvalues lambda of J^T J
        alpha = gamma / (2 w^T w),    beta = (n - gamma) / (2 r^T r)

    for n residuals and p weights; gamma is the effective number of parameters. With A = J^T J + (alpha / beta) I, the logarithm
    of the evidence of the model, by which models of other sizes may be compared, is

        (p log(alpha / beta) - log det A + n log(beta / pi)) / 2 - alpha w^T w - beta r^T r

    For small models, up to some thousand weights: a step solves p equations, and takes 8 p^2 bytes several times. All of it
    is computed in float64, on a copy of the model; the weights of the model itself are set after each step, in its own type.

    Sources: Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", J. SIAM 11(2), 1963; the rule for
    mu: Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, DTU; for alpha and beta: Foresee and Hagan,
    "Gauss-Newton approximation to Bayesian learning", ICNN 1997; the evidence: MacKay, "Bayesian interpolation", Neural
    Computation 4(3), 1992. Left open there: alpha / beta begins at a thousandth of the
    mean of the diagonal of J^T J, so that it is defined with more weights than residuals too.

    Args:
        model: a built Sequential or functional model with one output, of layers that draw no random numbers and keep no
            statistics. It need not be compiled; if it is, its loss is the mean squared error.
        damping: positive number, mu at the beginning over the largest diagonal entry of J^T J.
        bayesian: regularise, as above.
        max_bytes: positive integer, how much a fit may take.
        jit_compile: compile by XLA; "auto": for fits that are long enough to win back the seconds that this takes.

    Attributes:
        stop_reason: why the last fit ended: "gradient", "step", "damping" (no step helps), "validation", "callback", "epochs".

    Raises:
        TypeError, ValueError: another model: several outputs; another loss; a regularizer, constraint or stateful layer; a
            layer that lets no gradient through its states.
        RuntimeError: a backend other than TensorFlow.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_seq.training import LevenbergMarquardt

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(1)])
    x = np.linspace(-1, 1, 50)[:, None]
    history = LevenbergMarquardt(model).fit(x, np.sin(3 * x), epochs=20, verbose=0)
    print(history.history["loss"][-1])      # below 1e-6
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        damping: float = 1e-3,
        bayesian: bool = False,
        max_bytes: int = 2**31,
        jit_compile: bool | str = "auto",
    ) -> None:
        needs_tensorflow("LevenbergMarquardt")
        self.model, self.stop_reason = model, None
        self.damping = positive_number("damping", damping)
        self.bayesian = boolean("bayesian", bayesian)
        self.max_bytes = positive_integer("max_bytes", max_bytes)
        self.jit_compile = _auto_or_boolean("jit_compile", jit_compile)
        self._residuals = Residuals(model)

    def fit(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        epochs: int = 100,
        validation_data: Any = None,
        patience: int | None = 6,
        restarts: int = 0,
        gradient_tolerance: float = 1e-8,
        step_tolerance: float = 1e-10,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> keras.callbacks.History:
        """Take steps until one of the reasons to stop holds; the model is left with the best weights.

        A fit goes on from the weights of the model. Of a model that runs freely over many steps, fit one of short pieces first
        (`free_run_pieces`), then longer ones, then the whole.

        Args:
            x, y, sample_weight: arrays of all the data, as in Keras's `fit`.
            epochs: positive integer, the most steps from each start; an epoch is one step, on all the data.
            validation_data: `(x, y)` or `(x, y, sample_weight)`, or None. With it, the best weights are those of the least
                "val_loss", those before the first step among them. Without, they are those of the last step from the start
                that ends with the least "loss" or, if Bayesian, with the largest "log_evidence".
            patience: positive integer, stop after so many epochs without a lower "val_loss"; None for never.
            restarts: integer of at least 0, how many times to begin again from newly drawn weights; the best of all wins.
            gradient_tolerance: stop where no entry of the gradient of "loss" is larger.
            step_tolerance: stop where a step is shorter, relative to the weights.
            verbose, callbacks: as in Keras. The logs have "loss" (the mean squared error, as Keras weighs it), "val_loss",
                "damping" (mu), "gradient" (its largest entry) and "start" (from 0); and if Bayesian "alpha", "beta",
                "effective_parameters" and "log_evidence".

        Returns:
            Keras's `History`.

        Raises:
            TypeError, ValueError: wrong arguments; a model that by now has another loss, or trains other weights than when the
                trainer was made; data that do not fit the model or each other, or are not finite; a layer with dropout, noise
                or statistics of the batch; restarts of a model whose initializers draw nothing anew, such as those with a
                seed; a mask that shows no step; more bytes than `max_bytes`; a start, and no restart, from which a run stays
                finite: the row and step at which it diverges is named.
        """
        epochs, restarts = positive_integer("epochs", epochs), _count("restarts", restarts)
        patience = None if patience is None else positive_integer("patience", patience)
        gradient_tolerance = positive_number("gradient_tolerance", gradient_tolerance)
        step_tolerance = positive_number("step_tolerance", step_tolerance)
        start, held_out = self._residuals.current(), None
        data = self._data("", x, y, sample_weight)
        if validation_data is not None:
            if not (isinstance(validation_data, (tuple, list)) and len(validation_data) in (2, 3)):
                raise TypeError(
                    f"validation_data: expected (x, y) or (x, y, sample_weight), got {validation_data!r:.80}"
                )
            held_out = self._data("validation_data: ", *validation_data)
        verbose = 1 if verbose == "auto" else verbose
        shown = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs * (1 + restarts),
            steps=1,
            model=self.model,
        )
        starts = [start, *self._residuals.drawn(restarts)]
        self._residuals.check_certain(data.batches[0].x)
        by_xla = self._by_xla(data, epochs * (1 + restarts))
        fit = _Fit(self, by_xla, data, held_out, shown, epochs, patience, gradient_tolerance, step_tolerance)
        self.model.stop_training = False
        shown.on_train_begin()
        for number in range(1 + restarts):
            fit.go(number, starts[number])
            if self.model.stop_training:
                break
        self._residuals.assign(start if fit.best is None else fit.best)
        shown.on_train_end(fit.logs)
        if fit.best is None:
            raise ValueError(f"model: expected weights from which a run stays finite, got one that {fit.diverged}")
        self.stop_reason = fit.reason_of_best
        return self.model.history

    def jacobian(self, x: Any) -> np.ndarray:
        """How the outputs change with the trainable weights: (b, .., p), the weights side by side in the model's order.

        Zeros at outputs that a mask hides.
        """
        start = self._residuals.current()
        flat = inputs_of(self._residuals, "", x)
        shape = output_shape(outline_of(self._residuals, flat))
        data = self._data("", x, np.zeros(shape), None)
        jacobian = self._residuals.programs(data, self._by_xla(data, 1)).jacobian
        found = [jacobian(tf.constant(start), batch)[0].numpy() for batch in data.batches]
        columns = np.concatenate(found, axis=1)[:, : math.prod(shape)]
        return np.moveaxis(columns.reshape(-1, *shape), 0, -1)

    def _by_xla(self, data, passes):
        """Whether programs for so many passes over the data are compiled by XLA."""
        return passes * data.work > WORTH_COMPILING if self.jit_compile == "auto" else self.jit_compile

    def _data(self, name, x, y, sample_weight=None):
        return prepared(self._residuals, name, x, y, sample_weight, self.max_bytes)


class _Fit:
    """The steps of one `fit`, from one start after the other."""

    def __init__(self, trainer, by_xla, data, held_out, shown, epochs, patience, gradient_tolerance, step_tolerance):
        self.trainer, self.residuals, self.by_xla = trainer, trainer._residuals, by_xla
        self.data, self.held_out = data, held_out
        self.shown, self.epochs, self.patience = shown, epochs, patience
        self.gradient_tolerance, self.step_tolerance = gradient_tolerance, step_tolerance
        self.epoch, self.logs, self.diverged = 0, {}, None
        self.best, self.least, self.reason_of_best = None, math.inf, None

    def go(self, number, weights):
        """Steps from these weights until there is a reason to stop."""
        programs = self.residuals.programs(self.data, self.by_xla)
        point = _Point(programs, self.data, weights, self.trainer.damping, self.trainer.bayesian)
        found = divergence(point.normal.outputs, self.data.bound)
        if found is not None:
            self.diverged = self.diverged or found
            return
        if not point.normal.count:
            raise ValueError("x: expected steps that the mask of the outputs shows, got none")
        kept, waited, reason = None, 0, None
        if self.held_out is not None:
            kept = self._val_loss(weights), weights
        for _ in range(self.epochs):
            self.shown.on_epoch_begin(self.epoch)
            self.shown.on_train_batch_begin(0)
            reason = point.step(self.step_tolerance)
            if reason is None and point.slope <= self.gradient_tolerance:
                reason = "gradient"
            self.residuals.assign(point.weights)
            self.logs = {**point.said(), "start": number}
            self.shown.on_train_batch_end(0, self.logs)
            score = point.score
            if self.held_out is not None:
                score = self.logs["val_loss"] = self._val_loss(point.weights)
            self.shown.on_epoch_end(self.epoch, self.logs)
            self.epoch += 1
            waited = 0 if kept is None or score < kept[0] else waited + 1
            if not waited or self.held_out is None:
                kept = score, point.weights
            if self.residuals.model.stop_training:
                reason = "callback"
            elif reason is None and self.held_out is not None and waited == self.patience:
                reason = "validation"
            if reason is not None:
                break
        if self.best is None or kept[0] < self.least:
            self.least, self.best = kept
            self.reason_of_best = reason or "epochs"

    def _val_loss(self, weights):
        sums = total(self.residuals.programs(self.held_out, self.by_xla).sums, weights, self.held_out)
        if not sums.count:
            raise ValueError("validation_data: x: expected steps that the mask of the outputs shows, got none")
        found = divergence(sums.outputs, self.held_out.bound)
        if found is None:
            return float(sums.squares / sums.count)
        warnings.warn(f"validation_data: a run {found} (epoch {self.epoch}); val_loss: inf", stacklevel=4)
        return math.inf


class _Point:
    """Weights, the normal equations there, and how much the next step is damped."""

    def __init__(self, programs, data, weights, damping, bayesian):
        self.programs, self.data, self.weights, self.bayesian = programs, data, weights, bayesian
        self.normal = total(programs.normal, weights, data)
        largest = max(np.diagonal(self.normal.product).max(), TINY)
        self.damping, self.growth, self.most = damping * largest, 2.0, MOST_DAMPING * largest
        self.ratio = 1e-3 * np.diagonal(self.normal.product).mean() if bayesian else 0.0  # alpha / beta
        self.alpha = self.beta = self.effective = self.evidence = math.nan

    @property
    def slope(self):
        """The largest entry of the gradient of what is lowered, over the number of residuals."""
        return 2 * float(np.abs(self._gradient()).max() / self.normal.count)

    @property
    def score(self):
        """What is lower at better weights."""
        return -self.evidence if self.bayesian else float(self.normal.squares / self.normal.count)

    def _gradient(self):
        return self.normal.gradient + self.ratio * self.weights

    def _lowered(self, squares, weights):
        return squares + self.ratio * weights @ weights

    def step(self, tolerance):
        """Take the first step that lowers the sum; why there is none, if so."""
        gradient, now = self._gradient(), self._lowered(self.normal.squares, self.weights)
        equations = self.normal.product + self.ratio * np.eye(len(gradient))
        while self.damping <= self.most:
            step = _solved(equations, self.damping, -gradient)
            if step is not None:
                if np.linalg.norm(step) <= tolerance * (np.linalg.norm(self.weights) + tolerance):
                    return "step"
                new = self.weights + step
                tried = self._try(new)
                then = self._lowered(tried.squares, new)
                foretold = step @ (self.damping * step - gradient)
                if then < now and foretold > 0:  # not where it is NaN
                    self._move(new, (now - then) / foretold, tried)
                    return None
            self.damping, self.growth = self.damping * self.growth, 2 * self.growth
        return "damping"

    def _try(self, weights):
        """The sum of squares at other weights; where that costs little, with the normal equations there."""
        few = self.data.entries <= FEW_ENTRIES
        return total(self.programs.normal if few else self.programs.sums, weights, self.data)

    def _move(self, weights, gain, tried):
        self.weights = weights
        self.damping, self.growth = self.damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
        self.normal = tried if isinstance(tried, Normal) else total(self.programs.normal, weights, self.data)
        if self.bayesian:
            self._estimate()

    def _estimate(self):
        """alpha, beta, the effective number of parameters and the evidence, from alpha / beta of the step before."""
        p, n = len(self.weights), float(self.normal.count)
        squares, norm = max(float(self.normal.squares), TINY), float(self.weights @ self.weights)
        eigenvalues = np.maximum(np.linalg.eigvalsh(self.normal.product), 0)  # which rounding may leave below
        self.effective = float(np.sum(eigenvalues / (eigenvalues + self.ratio)))
        # nothing but rounding is left where there are no more residuals than weights
        left = max(n - self.effective, 1e-12 * n)
        self.alpha, self.beta = self.effective / (2 * norm), left / (2 * squares)
        self.ratio = max(self.alpha / self.beta, TINY)
        determinant = float(np.sum(np.log(eigenvalues + self.ratio)))
        fitted = self.alpha * norm + self.beta * squares
        self.evidence = (p * math.log(self.ratio) - determinant + n * math.log(self.beta / math.pi)) / 2 - fitted

    def said(self):
        """What the logs show of it."""
        found = {"loss": self.normal.squares / self.normal.count, "damping": self.damping, "gradient": self.slope}
        if self.bayesian:
            found |= {"alpha": self.alpha, "beta": self.beta, "effective_parameters": self.effective}
            found["log_evidence"] = self.evidence
        return {name: float(value) for name, value in found.items()}


def _solved(matrix, damping, right):
    """The solution of (matrix + damping I) x = right; None where the matrix is singular to rounding."""
    try:
        return np.linalg.solve(matrix + damping * np.eye(len(right)), right)
    except np.linalg.LinAlgError:
        return None


def _auto_or_boolean(name, value):
    """`value`; a TypeError or ValueError that names the argument unless it is "auto", True or False."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'{name}: expected "auto", True or False, got {value!r}')
    return value if isinstance(value, str) else boolean(name, value)


def _count(name, value):
    """`value` as an int; an error that names the argument unless it is an integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer of at least 0, got {value!r}")
    if value < 0:
        raise ValueError(f"{name}: expected an integer of at least 0, got {value!r}")
    return int(value)

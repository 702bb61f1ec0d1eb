"""Conditional random fields: the loss of given tags, and the probabilities of tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.arguments import boolean, known, tensor
from keras_seq.decoding.crf_chain import (
    as_labels,
    check_labels,
    check_potentials,
    log_forward,
    pair_shares,
    real_steps,
    relative,
)
from keras_seq.decoding.long_loss import LongLoss
from keras_seq.decoding.tokens import WORST
from keras_seq.engine.backend import custom_gradient, gather
from keras_seq.layers.spans import allowed_transitions, check_tags
from keras_seq.shapes import fits
from keras_seq.typing import DType, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class CRFLoss(LongLoss):
    """The negative log-likelihood of tags under a conditional random field (Lafferty et al. 2001).

        loss = -log p(y | x) = log sum_{y'} exp s(x, y') - s(x, y),   s(x, y) = sum_t P_t[y_{t-1}, y_t]

    It takes the potentials P that `keras_seq.CRF` gives, and needs nothing else of that layer: masks and constraints are in
    them. The sum over all tags runs through the steps once (the forward algorithm); the gradient, the probability of each pair
    of tags less 1 for the pair that is there, through them once more. It compiles under XLA with any number of steps, known
    or not.

    The loss of a row is that of its real steps, not divided by their number; what stands in `y_true` at other steps does not
    count. A row without a real step has the loss 0. Tags that the potentials forbid (-inf), or that there are not, have the
    loss inf and send no gradient; in eager mode they are a ValueError that names row and step, as `crf_check_labels` does
    before training.

    Args:
        reduction, name: as in `keras.losses.Loss`; the mean over rows by default.
        dtype: "float32" or "float64"; None for `keras.config.floatx()`, float32 at least.

    Call arguments:
        y_true: tags (b, t), integers.
        y_pred: potentials (b, t, k, k).
        sample_weight: (b,).

    Raises:
        TypeError, ValueError: a dtype of less than 32 bits; tags that are not (b, t), or in eager mode are not there or
            forbidden; potentials that are not (b, t, k, k); weights that are not (b,).

    Example:

    ```python
    import keras
    import keras_seq
    from keras_seq.decoding import CRFLoss
    model = keras.Sequential([
        keras.layers.Masking(), keras_seq.LSTM(16, return_sequences=True), keras.layers.Dense(5), keras_seq.CRF(5)
    ])
    model.compile("adam", CRFLoss(), jit_compile=True)
    x, y = keras.random.normal((8, 20, 3)), keras.random.randint((8, 20), 0, 5)
    history = model.fit(x, y, verbose=0)
    ```
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "crf_loss", dtype: DType = None
    ) -> None:
        super().__init__(reduction, name, dtype)

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        y_true, y_pred = as_labels("labels", y_true), tensor("potentials", y_pred, "numbers")
        shape = () if sample_weight is None else tuple(np.shape(sample_weight))
        rows = y_pred.shape[:1]
        if shape and not (fits(shape, rows) or fits(shape, (*rows, 1))):
            raise ValueError(f"sample_weight: expected one for each row, (b,), got shape {shape}")
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Any:
        return crf_loss(y_true, y_pred)


def crf_loss(labels: Tensor, potentials: Tensor) -> Tensor:
    """The loss of each row, -log p(labels | x), as `CRFLoss` says.

    It is summed up of the steps' -log p(tag before | tag, x) and the last -log p(tag | x), each of which is 0 or more: no
    digits are lost where a long row is likely.

    Args:
        labels: tags (b, t), integers; at steps that are not real, anything.
        potentials: tensor (b, t, k, k), as `keras_seq.CRF` gives them.

    Returns:
        (b,), in the type of the potentials, float32 at least. inf where the potentials forbid the tags.

    Raises:
        TypeError, ValueError: potentials that are not (b, t, k, k); labels that are not (b, t) or, in eager mode, are none of
            the k tags or forbidden.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import crf_loss
    potentials = np.log([[[[0.6, 0.4]] * 2, [[0.9, 0.1], [0.5, 0.5]]]])     # p(first tag), p(second tag | first tag)
    print(np.exp(-crf_loss(np.array([[1, 0]]), potentials)))                # 0.2 = 0.4 * 0.5
    ```
    """
    potentials = check_potentials(potentials)
    real = real_steps(potentials)
    labels, before, outside = check_labels(labels, potentials, real)
    size = potentials.shape[-1]
    pair = before * size + labels

    def flat(potentials):
        return ops.reshape(potentials, (*ops.shape(labels), size * size))

    forbidden = ops.logical_and(real, gather(flat(ops.stop_gradient(potentials)), pair, axis=2, batch_dims=2) == WORST)
    _check_allowed(labels, before, forbidden)
    impossible = ops.any(ops.logical_or(forbidden, outside), axis=1)
    counted = ops.logical_and(real, ops.logical_not(impossible)[:, None])
    last = _last_label(labels, real)

    @custom_gradient
    def negative_log(potentials):
        scores = log_forward(potentials)
        shares = relative(ops.swapaxes(scores[:-1], 0, 1), axis=2)  # of the tags before each step (b, t, k), logs
        arriving = gather(potentials, labels, axis=3, batch_dims=2)  # (b, t, tag before)
        logs = _log_of_share(shares + arriving, before)
        logs = ops.where(counted, logs, ops.zeros_like(logs))
        total = ops.sum(logs, axis=1) + _log_of_share(scores[-1], last)

        def gradient(delta, upstream=None):  # Keras on torch gives the inputs first, and the slope by name
            delta = delta if upstream is None else upstream
            slopes = pair_shares(potentials, scores)
            there = ops.reshape(ops.one_hot(pair, size * size, dtype=slopes.dtype), ops.shape(slopes))
            slopes = ops.where(counted[:, :, None, None], slopes - there, ops.zeros_like(slopes))
            return slopes * delta[:, None, None, None]

        return ops.where(impossible, float("inf"), 0.0 - total), gradient

    return negative_log(potentials)


def crf_marginals(potentials: Tensor, pairs: bool = False) -> Tensor:
    """The probability of each tag at each step, all tags of the other steps summed over (forward-backward).

        p(y_t = j | x),   with `pairs` p(y_{t-1} = i, y_t = j | x)

    Args:
        potentials: tensor (b, t, k, k), as `keras_seq.CRF` gives them.
        pairs: whether of pairs of tags. The tag before the first real step counts as tag 0.

    Returns:
        (b, t, k), or (b, t, k, k) of pairs, in the type of the potentials, float32 at least; zeros at steps that are not real,
        elsewhere they sum to 1. Gradients are not to be had.

    Raises:
        TypeError, ValueError: potentials that are not (b, t, k, k), `pairs` that is neither True nor False.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import crf_marginals
    potentials = np.log([[[[0.6, 0.4]] * 2, [[0.9, 0.1], [0.5, 0.5]]]])     # p(first tag), p(second tag | first tag)
    print(crf_marginals(potentials))                                        # [[[0.6 0.4], [0.74 0.26]]]
    ```
    """
    boolean("pairs", pairs)
    potentials = ops.stop_gradient(check_potentials(potentials))
    found = pair_shares(potentials, log_forward(potentials))
    found = ops.where(real_steps(potentials)[:, :, None, None], found, ops.zeros_like(found))
    return found if pairs else ops.sum(found, axis=2)


def crf_check_labels(
    labels: Tensor, tags: int | Sequence[str], scheme: str | None = None, mask: Tensor | None = None
) -> None:
    """A ValueError if some labels are no tags, or follow one another as the scheme forbids: before training.

    In `fit`, which runs in a graph, such a row only has the loss inf.

    Args:
        labels: integers (b, t), an array.
        tags: the names of the tags, or their number.
        scheme: "BIO" or "BIOES"; None for no constraints.
        mask: booleans (b, t), True for real steps; None for all.

    Raises:
        TypeError, ValueError: it says how many rows are wrong, and names row and step of the first; a row without a real step
            is wrong as well.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import crf_check_labels
    crf_check_labels(np.array([[1, 2, 0]]), ["O", "B-day", "I-day"], "BIO")
    ```
    """
    labels = _array("labels", labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels: expected integers of shape (b, t), got {labels.dtype} {labels.shape}")
    real = np.ones(labels.shape, bool) if mask is None else _array("mask", mask)
    if real.shape != labels.shape or real.dtype != bool:
        raise ValueError(f"mask: expected booleans of shape {labels.shape}, got {real.dtype} {real.shape}")
    given, number = check_tags(tags)
    names = given if isinstance(given, list) else list(map(str, range(number)))
    whole = [np.ones(n, bool) for n in (len(names), (len(names),) * 2, len(names))]
    allowed = whole if scheme is None else allowed_transitions(names, scheme)
    wrong = [(row, *found) for row in range(len(labels)) if (found := _wrong(labels[row], real[row], names, allowed))]
    if wrong:
        row, step, message = wrong[0]
        raise ValueError(
            f"labels: {len(wrong)} of {len(labels)} rows are wrong, the first is row {row}: at step {step} {message}"
        )


def _array(name, value):
    """An array; a TypeError that names the argument if it is none."""
    try:
        return np.asarray(ops.convert_to_numpy(value) if hasattr(value, "dtype") else value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array, got {value!r:.80}") from error


def _log_of_share(scores, index):
    """log(exp scores[.., index] / sum exp scores), exact where it is near 0: of differences, the largest of which is apart."""
    others = scores - ops.take_along_axis(scores, index[..., None], axis=-1)
    largest = ops.argmax(others, axis=-1)
    most = ops.max(others, axis=-1)
    rest = ops.exp(others - most[..., None]) * (1 - ops.one_hot(largest, others.shape[-1], dtype=others.dtype))
    return -(most + ops.log1p(ops.sum(rest, axis=-1)))


def _last_label(labels, real):
    """The tag (b,) after the last step: that of the last real one, or 0."""
    number = ops.cumsum(ops.cast(real, "int32"), axis=1)
    is_last = ops.logical_and(real, number == number[:, -1:])
    return ops.sum(ops.where(is_last, labels, ops.zeros_like(labels)), axis=1)


def _check_allowed(labels, before, forbidden):
    """A ValueError for the first forbidden transition, where values are known."""
    values = known(forbidden)
    if values is None or not values.any():
        return
    row, step = np.argwhere(values)[0]
    tag, previous = (int(known(x)[row, step]) for x in (labels, before))
    raise ValueError(
        f"labels: expected tags that the potentials allow, got tag {tag} at row {row}, step {step}, "
        f"where its potential after tag {previous} (0 before the first step) is -inf"
    )


def _wrong(labels, real, names, allowed):
    """`(step, what is wrong there)` of one row, or None."""
    first, transitions, last = allowed
    steps = np.flatnonzero(real)
    if not len(steps):
        return 0, "expected a real step in each row, got none"
    before = None
    for step in steps:
        tag = labels[step]
        if not 0 <= tag < len(names):
            return step, f"expected a tag from 0 to {len(names) - 1}, got {tag}"
        if not (first[tag] if before is None else transitions[before, tag]):
            place = "at the start" if before is None else f"after {names[before]!r}"
            return step, f"{names[tag]!r} is forbidden {place}"
        before = tag
    return None if last[before] else (steps[-1], f"{names[before]!r} is forbidden at the end")

"""Connectionist temporal classification: labels whose places among the frames are not known."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq._keras import carried_mask
from keras_seq.arguments import boolean
from keras_seq.decoding.ctc_lattice import check_frames, check_labels, emitted, lattice, posteriors, states_of, to_front
from keras_seq.decoding.long_loss import LongLoss
from keras_seq.decoding.tokens import WORST, token
from keras_seq.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class CTCLoss(LongLoss):
    """The loss of connectionist temporal classification (Graves et al. 2006), under masks.

        loss = -log sum_{paths} prod_t softmax(logits_t)[path_t],   over all paths that collapse to the labels

    A path gives each frame a label or the blank; it collapses by taking equal neighbours together and blanks out. The
    forward algorithm sums over all paths in log space; the gradient, `softmax - share of each symbol`, comes of walking
    back over what it found. Both are one loop of `keras.ops` that compiles under XLA and keeps float64. In float32 scores
    are kept relative to the best of their frame and shares sum to 1 in each frame, so that thousands of frames cost no
    digits.

    Frames hidden by the Keras mask of the predictions (that of a `Masking` or an `Embedding`, which the layers here carry
    along) do not count, wherever they stand: the loss of a row is that of its visible frames alone, and none of what is
    hidden gets a gradient. `keras.losses.CTC` reads no mask and counts every frame.

    Labels that no path gives, because they and the blanks between equal neighbours are more than the visible frames, or
    because they lie outside the vocabulary, have the loss inf and send no gradient. `ctc_check_labels` finds them before
    training; `zero_infinity` is for those who want to train on the others regardless.

    Choices that the paper leaves open: a row without labels is asked for blanks alone; the loss of a row is not divided by
    its number of labels; the blank is an index of the reader's choice, by default 0 as in Keras.

    Args:
        blank: the index of the blank among the v logits. In the labels it is the padding: blanks are left out, wherever
            they stand.
        zero_infinity: whether a row whose labels no path gives counts as 0 rather than as inf.
        reduction, name: as in `keras.losses.Loss`; the mean over rows by default.
        dtype: "float32" or "float64"; None for `keras.config.floatx()`, float32 at least.

    Call arguments:
        y_true: labels (b, n), integers.
        y_pred: logits (b, t, v), before any softmax.
        sample_weight: (b,).

    Raises:
        TypeError, ValueError: a blank that is no index of a logit, a dtype of less than 32 bits, labels that are not (b, n)
            or, in eager mode, lie outside the vocabulary, logits that are not (b, t, v).

    Example:

    ```python
    import keras
    import keras_seq
    from keras_seq.decoding import CTCLoss
    model = keras.Sequential([
        keras.layers.Masking(), keras_seq.LSTM(16, return_sequences=True), keras.layers.Dense(5)
    ])
    model.compile("adam", CTCLoss(), jit_compile=True)
    x, labels = keras.random.normal((8, 20, 3)), keras.random.randint((8, 4), 1, 5)
    history = model.fit(x, labels, verbose=0)
    ```
    """

    def __init__(
        self,
        blank: int = 0,
        zero_infinity: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str | None = "ctc",
        dtype: DType = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.blank = token("blank", blank)
        if blank < 0:
            raise ValueError(f"blank: expected an integer of at least 0, got {blank}")
        self.zero_infinity = boolean("zero_infinity", zero_infinity)

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        # Keras would weight the loss of each row by the mask of its frames, which has another shape
        mask = carried_mask(y_pred)
        y_pred = {"logits": y_pred} if mask is None else {"logits": y_pred, "mask": mask}
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Any:
        mask = y_pred.get("mask")
        mask = None if mask is None else ops.cast(mask, "bool")
        losses = ctc_loss(y_true, y_pred["logits"], mask, self.blank)
        return ops.where(ops.isinf(losses), 0.0, losses) if self.zero_infinity else losses

    def get_config(self) -> Config:
        return {**super().get_config(), "blank": self.blank, "zero_infinity": self.zero_infinity}


def ctc_loss(labels: Tensor, logits: Tensor, mask: Tensor | None = None, blank: int = 0) -> Tensor:
    """The loss of each row, as `CTCLoss` says, with a mask that is given.

    Args:
        labels: integers (b, n); the blank is padding, wherever it stands.
        logits: tensor (b, t, v), before any softmax.
        mask: boolean (b, t), True for the frames that count; None for all.
        blank: the index of the blank.

    Returns:
        (b,), in the type of the logits, float32 at least. inf where no path gives the labels.

    Raises:
        TypeError, ValueError: a blank that is no index of a logit, logits that are not (b, t, v), a mask that is not (b, t),
            labels that are not (b, n) or, in eager mode, lie outside the vocabulary.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import ctc_loss
    logits = np.log([[[0.6, 0.4], [0.5, 0.5]]])              # two frames; blank, label 1
    print(np.exp(-ctc_loss(np.array([[1]]), logits)))       # 0.7 = 0.6 * 0.5 + 0.4 * 0.5 + 0.4 * 0.5
    ```
    """
    logits, visible = check_frames(logits, mask, blank)
    labels = check_labels(labels, logits)
    labels, count, _ = to_front(labels, labels != blank, blank)
    symbols, first, last, label = states_of(labels, count, blank)
    seen = ops.transpose(visible)

    def negative_log(logits):
        scores, common = lattice(emitted(logits, symbols), symbols, blank, first, seen, ops.logsumexp)
        ends = ops.where(ops.logical_or(last, label), scores[-1], WORST)
        total = ops.logsumexp(ends, axis=1) + common

        def gradient(delta, upstream=None):  # Keras on torch gives the inputs first, and the slope by name
            delta = delta if upstream is None else upstream
            shares = posteriors(scores, ends, symbols, blank, seen)
            shares = ops.einsum("tbs,bsv->btv", shares, ops.one_hot(symbols, logits.shape[-1], dtype=logits.dtype))
            possible = ops.logical_and(visible, total[:, None] > WORST)[:, :, None]
            slopes = ops.softmax(logits, axis=-1) - shares
            return ops.where(possible, slopes, ops.zeros_like(slopes)) * delta[:, None, None]

        return -total, gradient

    return ops.custom_gradient(negative_log)(logits)


def ctc_check_labels(labels: Tensor, frames: Tensor, vocabulary: int | None = None, blank: int = 0) -> np.ndarray:
    """A ValueError if some labels need more frames than there are, or lie outside the vocabulary: before training.

    A path gives n labels in `n + (number of labels equal to the one before)` frames at the least, as a blank must stand
    between equal ones. What asks for more has the loss inf.

    Args:
        labels: integers (b, n), an array; the blank is padding.
        frames: what there is for each row after all subsampling: a boolean mask (b, t), the numbers of frames (b,), or one
            integer.
        vocabulary: v, the number of logits, blank included; None to let the largest label be what it is.
        blank: the index of the blank.

    Returns:
        The least number of frames that each row needs, int64 (b,).

    Raises:
        ValueError: it says how many rows are wrong and names the first.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import ctc_check_labels
    print(ctc_check_labels(np.array([[3, 3, 1], [2, 0, 0]]), frames=4))     # [4 1]
    ```
    """
    labels, frames = np.asarray(labels), np.asarray(frames)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels: expected integers of shape (b, n), got {labels.dtype} {labels.shape}")
    frames = frames.sum(1) if frames.dtype == bool and frames.ndim == 2 else frames
    if frames.shape not in ((), labels.shape[:1]) or not np.issubdtype(frames.dtype, np.integer):
        raise ValueError(
            f"frames: expected a boolean mask (b, t) or integers of shape () or {labels.shape[:1]}, "
            f"got {frames.dtype} {frames.shape}"
        )
    outside = np.any((labels < 0) | (labels >= (np.inf if vocabulary is None else vocabulary)), axis=1)
    if outside.any():
        row = int(outside.argmax())
        expected = "of at least 0" if vocabulary is None else f"from 0 to {vocabulary - 1}"
        raise ValueError(
            f"labels: expected integers {expected}; {outside.sum()} of {len(labels)} rows have others, "
            f"the first is row {row}: {labels[row].tolist()}"
        )
    rows = [row[row != blank] for row in labels]
    counts = np.array([len(row) for row in rows], "int64")
    repeats = np.array([np.sum(row[1:] == row[:-1]) for row in rows], "int64")
    frames = np.broadcast_to(frames, counts.shape)
    wrong = counts + repeats > frames
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"labels: {wrong.sum()} of {len(labels)} rows need more frames than they have, the first is row {row}: "
            f"{counts[row]} labels, {repeats[row]} of them equal to the one before, need "
            f"{counts[row] + repeats[row]} frames, got {frames[row]}"
        )
    return counts + repeats

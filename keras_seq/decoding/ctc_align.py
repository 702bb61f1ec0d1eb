"""Forced alignment: which frames say which label."""

from __future__ import annotations

from keras import ops

from keras_seq.decoding.ctc_lattice import (
    arrivals,
    check_frames,
    check_labels,
    emitted,
    lattice,
    may_skip,
    states_of,
    to_front,
)
from keras_seq.decoding.tokens import WORST
from keras_seq.engine.backend import gather, iterate
from keras_seq.typing import Tensor


def ctc_align(logits: Tensor, labels: Tensor, mask: Tensor | None = None, blank: int = 0) -> tuple[Tensor, Tensor]:
    """The likeliest of all paths that collapse to the labels (Viterbi), frame by frame.

        path = argmax prod_t softmax(logits_t)[path_t],   over all paths that collapse to the labels

    The same lattice as the loss of Graves et al. (2006), with max in place of the sum, then walked back. Loops of `keras.ops`,
    so that it compiles under XLA and runs in a SavedModel. Of equally likely ways into a state the one that stays is taken.

    Args:
        logits: tensor (b, t, v), before any softmax.
        labels: integers (b, n); the blank is padding.
        mask: boolean (b, t), True for the frames that count; None for all.
        blank: the index of the blank.

    Returns:
        `(columns, scores)`: int32 (b, t), for each frame the column of `labels` that it says, -1 where it says the blank or is
        hidden; and (b,), log p of the path. Where no path gives the labels the score is -inf and all columns are -1.

    Raises:
        TypeError, ValueError: a blank that is no index of a logit, logits that are not (b, t, v), a mask that is not (b, t),
            labels that are not (b, n) or, in eager mode, lie outside the vocabulary.

    Example:

    ```python
    import numpy as np
    from keras_seq.decoding import ctc_align
    logits = np.log([[[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]]])     # four frames; blank, label 1
    columns, scores = ctc_align(logits, np.array([[1, 1]]))                 # [[0 0 -1 1]], log(0.9 * 0.8 * 0.7 * 0.9)
    ```
    """
    logits, visible = check_frames(logits, mask, blank)
    labels = check_labels(labels, logits)
    labels, count, columns = to_front(labels, labels != blank, blank)
    symbols, first, last, label = states_of(labels, count, blank)
    seen = ops.transpose(visible)
    scores, common = lattice(emitted(logits, symbols), symbols, blank, first, seen, ops.max)
    ends = ops.where(ops.logical_or(last, label), scores[-1], WORST)
    score, state = ops.max(ends, axis=1) + common, ops.cast(ops.argmax(ends, axis=1), "int32")
    skips = may_skip(symbols, blank)

    def back(state, index):
        ways = arrivals(gather(scores, index, axis=0), skips)
        ways = ops.take_along_axis(ways, state[None, :, None], axis=2)[:, :, 0]
        earlier = state - ops.cast(ops.argmax(ways, axis=0), "int32")
        return ops.where(gather(seen, index, axis=0), earlier, state), state

    _, states = iterate(back, state, ops.shape(seen)[0], reverse=True)
    says = ops.logical_and(ops.transpose(states) % 2 == 1, ops.logical_and(visible, score[:, None] > WORST))
    columns = ops.pad(columns, ((0, 0), (0, 1)))  # what says no label reads a place that may not be there
    columns = ops.take_along_axis(columns, ops.transpose(states) // 2, axis=1)
    return ops.where(says, columns, -1), score

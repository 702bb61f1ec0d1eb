"""What CTC's loss, decoders and alignment share: the ways through labels and blanks, and checks of what is given.

The lattice of n labels has s = 2 n + 1 states: blank, label, blank, label, .., blank. From frame to frame a path stays, goes on
by one, or leaves out a blank between different labels. It begins before the first frame in the first state, and ends in the
last one or the last label.
"""

import numpy as np
from keras import backend, ops

from keras_seq.arguments import known, tensor
from keras_seq.cells.floats import long_type
from keras_seq.decoding.tokens import WORST, token
from keras_seq.engine.backend import gather, iterate
from keras_seq.shapes import fits


def check_frames(logits, mask, blank):
    """`(logits (b, t, v), float32 at least; visible (b, t))`."""
    logits = tensor("logits", logits, "numbers")
    if len(logits.shape) != 3 or not logits.shape[-1] or 0 in logits.shape:
        raise ValueError(f"logits: expected shape (b, t, v) with b and t of 1 or more, got {tuple(logits.shape)}")
    logits = ops.cast(logits, long_type(logits.dtype))
    size = logits.shape[-1]
    if not 0 <= token("blank", blank) < size:
        raise ValueError(f"blank: expected the index of one of the {size} logits, got {blank!r}")
    if mask is None:
        return logits, ops.ones(ops.shape(logits)[:2], dtype="bool")
    mask = ops.convert_to_tensor(mask)
    if not fits(mask.shape, logits.shape[:2]) or backend.standardize_dtype(mask.dtype) != "bool":
        got = f"{backend.standardize_dtype(mask.dtype)} {tuple(mask.shape)}"
        raise ValueError(f"mask: expected booleans of shape {tuple(logits.shape[:2])}, got {got}")
    return logits, mask


def check_labels(labels, logits):
    """The labels (b, n) as int32; a ValueError for values outside the vocabulary where they can be seen.

    They may be whole floats, which Keras makes of the targets of a loss; what is not whole is none of the vocabulary.
    """
    labels = tensor("labels", labels, "numbers")
    if not fits(labels.shape, (logits.shape[0], None)):
        raise ValueError(f"labels: expected shape ({logits.shape[0]}, n), got {tuple(labels.shape)}")
    values, size = known(labels), logits.shape[-1]
    if values is not None:
        wrong = values[~((values >= 0) & (values < size) & (values == np.floor(values)))]
        if wrong.size:
            raise ValueError(f"labels: expected integers from 0 to {size - 1}, got {wrong[0]:g}")
    if "float" in backend.standardize_dtype(labels.dtype):
        labels = ops.where(labels == ops.floor(labels), labels, ops.full_like(labels, -1))
    return ops.cast(labels, "int32")


def to_front(values, keep, fill):
    """`(what is kept of each row, in its order and at the start, fill after it; how much; where each place came from)`."""
    length = ops.shape(values)[1]
    places = ops.arange(length, dtype="int32")
    order = ops.argsort(ops.where(keep, places, places + length), axis=1)
    count = ops.sum(ops.cast(keep, "int32"), axis=1)
    found = ops.take_along_axis(values, order, axis=1)
    return ops.where(places < count[:, None], found, fill), count, ops.cast(order, "int32")


def states_of(labels, count, blank):
    """`(the symbol of each state (b, s), the first state, the last one, the last label)`, the latter as booleans (b, s)."""
    batch, length = ops.shape(labels)
    between = ops.full_like(labels, blank)
    symbols = ops.reshape(ops.stack([between, labels], axis=2), (batch, 2 * length))
    symbols = ops.concatenate([symbols, ops.full((batch, 1), blank, dtype="int32")], axis=1)
    states, last = ops.arange(2 * length + 1, dtype="int32"), 2 * count[:, None]
    label = ops.logical_and(states == last - 1, count[:, None] > 0)
    return symbols, ops.broadcast_to(states == 0, ops.shape(symbols)), states == last, label


def emitted(logits, symbols):
    """log p of each state's symbol at each frame, time first (t, b, s); -inf for what is not in the vocabulary."""
    size = logits.shape[-1]
    logs = ops.log_softmax(logits, axis=-1)
    places = ops.broadcast_to(ops.clip(symbols, 0, size - 1)[:, None], (*ops.shape(logs)[:2], ops.shape(symbols)[1]))
    found = ops.take_along_axis(logs, places, axis=2)
    inside = ops.logical_and(symbols >= 0, symbols < size)
    return ops.transpose(ops.where(inside[:, None], found, WORST), (1, 0, 2))


def may_skip(symbols, blank):
    """Which states (b, s) can be reached from the last but one before them: labels unlike the label before."""
    return ops.logical_and(symbols != blank, symbols != moved(symbols, 2, blank))


def moved(x, places, fill):
    """(.., s) with everything so many states further on, and `fill` before it; below 0 further back, and `fill` after it."""
    size, before, after = ops.shape(x)[-1], max(0, places), max(0, -places)
    padded = ops.pad(x, (*[(0, 0)] * (len(x.shape) - 1), (before, after)), constant_values=fill)
    return padded[..., after : after + size]


def arrivals(scores, skips):
    """The scores (.., 3, b, s) with which each state is reached: by staying, from the one before, from the last but one."""
    skipping = ops.where(skips, moved(scores, 2, WORST), ops.full_like(scores, WORST))
    return ops.stack([scores, moved(scores, 1, WORST), skipping], axis=-3)


def lattice(emissions, symbols, blank, start, seen, combine):
    """`(scores (t + 1, b, s), common (b,))`: log scores of all ways into each state, before each frame and after the last.

    What the states have in common, the best score so far, is taken out before each frame, so that scores stay as exact after
    a thousand frames as after one; `common` is what has been taken out, to be added after the last frame.

    Args:
        emissions: (t, b, s).
        symbols: (b, s).
        start: boolean (b, s), the state before the first frame.
        seen: boolean (t, b); a frame that is not leaves the scores as they were.
        combine: `ops.logsumexp` for the sum over all ways, `ops.max` for the best one.
    """
    skips = may_skip(symbols, blank)
    first = ops.where(start, ops.zeros_like(emissions[0]), WORST)

    def body(scores, index):
        # by index: Keras on TensorFlow cannot scan two arrays of a length that is not known
        scores = scores - best(scores, axis=1)
        new = combine(arrivals(scores, skips), axis=0) + gather(emissions, index, axis=0)
        new = ops.where(gather(seen, index, axis=0)[:, None], new, scores)
        return new, new

    _, scores = iterate(body, first, ops.shape(seen)[0])
    scores = ops.concatenate([first[None], scores], axis=0)
    return scores, ops.sum(best(scores[:-1], axis=2), axis=(0, 2))


def best(scores, axis):
    """The largest, the axis kept; 0 where all are -inf."""
    found = ops.max(scores, axis=axis, keepdims=True)
    return ops.where(found > WORST, found, ops.zeros_like(found))


def posteriors(scores, ends, symbols, blank, seen):
    """The share (t, b, s) of the ways through each state in all ways to the `ends` (b, s), by the `scores` of `lattice`.

    From the last frame to the first, each state's share goes to the states it was reached from, in parts that sum to 1. So
    do the shares of each frame, however many there are.
    """
    ways = arrivals(scores[:-1], may_skip(symbols, blank))
    ways = ops.exp(ways - best(ways, axis=1))
    total = ops.sum(ways, axis=1, keepdims=True)
    ways = ways / ops.where(total > 0, total, ops.ones_like(total))
    last = ops.exp(ends - best(ends, axis=1))
    total = ops.sum(last, axis=1, keepdims=True)
    last = last / ops.where(total > 0, total, ops.ones_like(total))

    def back(shares, index):
        stayed, one, two = ops.unstack(gather(ways, index, axis=0) * shares, 3, axis=0)
        before = stayed + moved(one, -1, 0.0) + moved(two, -2, 0.0)
        return ops.where(gather(seen, index, axis=0)[:, None], before, shares), shares

    _, shares = iterate(back, last, ops.shape(seen)[0], reverse=True)
    return shares

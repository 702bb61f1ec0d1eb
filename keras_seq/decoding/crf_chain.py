"""What loss, marginals and Viterbi of a conditional random field share: the ways through the potentials of a chain.

Potentials (b, t, k, k) are log scores, `[.., i, j]` of tag j after tag i, as `keras_seq.CRF` gives them. Before the first step
a chain is at tag 0, so that of its first real step row 0 counts. A step that is not there leads from each tag to itself, and
from no tag to another.
"""

import numpy as np
from keras import backend, ops

from keras_seq.arguments import known, tensor
from keras_seq.cells.floats import long_type, lowest
from keras_seq.decoding.tokens import WORST
from keras_seq.engine.backend import gather, iterate
from keras_seq.shapes import fits, static


def check_potentials(potentials):
    """The potentials, float32 at least."""
    potentials = tensor("potentials", potentials, "numbers")
    shape = tuple(potentials.shape)
    if len(shape) != 4 or static(shape[3]) is None or shape[2] != shape[3] or shape[3] < 2 or 0 in shape:
        raise ValueError(
            "potentials: expected shape (b, t, k, k) with b and t of 1 or more and k of 2 or more, as keras_seq.CRF gives "
            f"them, got {shape}"
        )
    return ops.convert_to_tensor(potentials, dtype=long_type(potentials.dtype))


def real_steps(potentials):
    """Which steps are there, booleans (b, t): in which some tag leads to another one.

    The ways are counted by a product: XLA takes ten times as long for `any` or `all` over the last axes.
    """
    b, t, k, _ = ops.shape(potentials)
    ways = ops.cast(ops.reshape(potentials, (b * t, k * k)) != WORST, "float32")
    others = 1 - np.eye(k, dtype="float32")
    return ops.reshape(ops.matmul(ways, others.reshape(-1, 1)) > 0, (b, t))


def check_labels(labels, potentials, real):
    """`(labels (b, t) as int32, tags there are; those before them, 0 at the start; where they are none)`."""
    labels = as_labels("labels", labels)
    if not fits(labels.shape, potentials.shape[:2]):
        raise ValueError(f"labels: expected shape {tuple(potentials.shape[:2])}, got {tuple(labels.shape)}")
    outside = outside_tags("labels", labels, potentials.shape[-1], real)
    there = ops.logical_and(real, ops.logical_not(outside))
    labels = ops.cast(ops.where(there, labels, ops.zeros_like(labels)), "int32")
    number = ops.cumsum(ops.cast(real, "int32"), axis=1)  # of the step among the real ones, from 1
    # a hidden step, whose label is 0, adds nothing to the real one before it
    return labels, _in_order(labels, number, ops.maximum(number - 1, 0)), outside


def as_labels(name, labels):
    """Labels as a tensor of numbers; booleans are 0 and 1."""
    return tensor(name, ops.cast(labels, "int32") if getattr(labels, "dtype", None) == "bool" else labels, "numbers")


def outside_tags(name, tags, size, real):
    """Which real steps (b, t) have none of the tags 0 to `size` - 1; where values are known, a ValueError for the first."""
    outside = ops.logical_or(tags < 0, tags >= size)
    if "float" in backend.standardize_dtype(tags.dtype):  # which Keras makes of the targets of a loss
        outside = ops.logical_or(outside, tags != ops.floor(tags))
    outside = ops.logical_and(real, outside)
    values = known(outside)
    if values is not None and values.any():
        row, step = np.argwhere(values)[0]
        got = known(tags)[row, step]
        raise ValueError(f"{name}: expected integers from 0 to {size - 1}, got {got:g} at row {row}, step {step}")
    return outside


def _in_order(labels, number, wanted):
    """The labels of the steps with the wanted numbers (b, t), 0 before the first; what shares a number is added up."""
    b, t = ops.shape(labels)
    rows = ops.arange(b, dtype="int32")[:, None] * (t + 1)
    ordered = ops.scatter(ops.reshape(rows + number, (-1, 1)), ops.reshape(labels, (-1,)), (b * (t + 1),))
    return ops.take(ordered, rows + wanted)


def first_scores(potentials, *further):
    """Of the tags before the first step (b, k, ..): 0 for one way to tag 0, -inf for others."""
    size = potentials.shape[-1]
    first = np.full((1, size, *further), WORST)
    first.flat[0] = 0.0
    shape = (ops.shape(potentials)[0], size, *further)
    return ops.broadcast_to(ops.convert_to_tensor(first, dtype=potentials.dtype), shape)


def steps_of(potentials):
    """How many there are."""
    return ops.shape(potentials)[1]


def log_forward(potentials):
    """Log scores (t + 1, b, k) of all ways to each tag, before each step and after the last.

    The best one is taken out before each step, and the scores are those relative to it: as exact after a thousand steps as
    after one.
    """

    def body(scores, index):
        ways = relative(scores, axis=1)[:, :, None] + gather(potentials, index, axis=1)
        most = best(ways, axis=1)
        scores = ops.log(ops.sum(ops.exp(ways - most), axis=1)) + most[:, 0]
        return scores, scores

    first = first_scores(potentials)
    _, scores = iterate(body, first, steps_of(potentials))
    return ops.concatenate([first[None], scores], axis=0)


def pair_shares(potentials, scores):
    """p(tag i before, tag j at the step | x), (b, t, k, k), by the scores of `log_forward`.

    From the last step to the first, what a tag has goes to those before it in parts that sum to 1; so do the shares of each
    step, however many there are.
    """
    before, after = (ops.swapaxes(x, 0, 1) for x in (relative(scores[:-1], axis=2), scores[1:]))  # batch first
    after = ops.maximum(after, lowest(backend.standardize_dtype(scores.dtype)))  # of tags that no way leads to
    ways = ops.exp(before[:, :, :, None] + potentials - after[:, :, None])  # p(tag before | tag)

    def back(later, index):
        earlier = ops.sum(gather(ways, index, axis=1) * later[:, None], axis=2)
        return earlier / ops.sum(earlier, axis=1, keepdims=True), later  # rounding must not add up

    _, later = iterate(back, last_shares(scores), steps_of(potentials), reverse=True)
    return ways * ops.swapaxes(later, 0, 1)[:, :, None]


def last_shares(scores):
    """p(tag after the last step | x), (b, k), by the scores of `log_forward`."""
    last = ops.exp(relative(scores[-1], axis=1))
    return last / ops.sum(last, axis=1, keepdims=True)


def relative(scores, axis):
    """The scores less the best of them."""
    return scores - best(scores, axis)


def best(x, axis):
    """The largest, the axis kept; the least finite number where all are -inf."""
    return ops.maximum(ops.max(x, axis=axis, keepdims=True), lowest(backend.standardize_dtype(x.dtype)))

"""Rows of the batch in lanes: several loops over time as one, each over its own rows.

A step's products are too small to keep several cores busy, and its point-wise work is done by one. Two loops in one body
do not wait for each other within a step.
"""

import math
import os

import tensorflow as tf

from keras_seq.engine.arrays import loop


def lanes(batch, weights):
    """Into how many lanes to part a batch of this size, None where it is not known yet.

    Two where a product of one step is small. From 50 million operations on it is large enough to keep two cores busy by
    itself (docs/performance.md has the figures).
    """
    if tf.executing_eagerly() or (os.cpu_count() or 1) < 2 or tf.config.list_physical_devices("GPU"):
        return 1
    largest = max((math.prod(w.shape) for w in weights if len(w.shape) == 2), default=0)
    if 2 * (32 if batch is None else batch) * largest > 5e7:
        return 1
    return 2 if batch is None else max(1, min(2, batch))


def apart(tensors, count):
    """The rows of each lane, of every tensor (b, ...)."""
    if count == 1:
        return [list(tensors)]
    found = []
    for lane in range(count):
        rows = []
        for x in tensors:
            size = tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
            rows.append(x[lane * size // count : (lane + 1) * size // count])
        found.append(rows)
    return found


def joined(found, rows=None):
    """What the lanes found, as one: the first tensors by their rows, the others (after `rows` of them) as sums."""
    if len(found) == 1:
        return list(found[0])
    rows = len(found[0]) if rows is None else rows
    each = list(zip(*found, strict=True))
    return [tf.concat(x, 0) for x in each[:rows]] + [tf.add_n(x) for x in each[rows:]]


def side_by_side(passes):
    """Run generators that each yield one loop, `(time, body, carried)`, as one loop; what each returns in the end."""
    begun = [next(p) for p in passes]
    time = begun[0][0]

    def body(index, *carried):
        return index + 1, *(one(index, *c) for (_, one, _), c in zip(begun, carried, strict=True))

    _, *done = loop(time, body, tuple(carried for *_, carried in begun))
    found = []
    for one, carried in zip(passes, done, strict=True):
        try:
            one.send(carried)
        except StopIteration as end:
            found.append(end.value)
    return found

"""Rows of the batch in lanes: several loops over time as one, each over its own rows.

A step's products are too small to keep several cores busy, and its point-wise work is done by one. Two loops in one body
do not wait for each other within a step.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from keras_seq.engine.tensorflow._tensorflow import compiled_by_xla
from keras_seq.engine.tensorflow.arrays import loop, size
from keras_seq.engine.tensorflow.recurrence import Recurrence

COMPILED, INTERPRETED, LARGE = 2.5e5, 3e6, 5e7
"""Operations of one product: where two lanes begin to pay, in a program of XLA and in a graph, and where they cease to."""


def lane_count(batch: int | None, weights: Sequence[Any]) -> int:
    """Into how many lanes to split a batch of this size, None where it is not known yet.

    Two where the largest product of one step is neither so small that one core is done with it before another has begun,
    nor so large that it keeps two cores busy by itself (docs/performance.md has the figures).
    """
    if tf.executing_eagerly() or (os.cpu_count() or 1) < 2 or tf.config.list_physical_devices("GPU"):
        return 1
    largest = max((math.prod(w.shape) for w in weights if len(w.shape) == 2), default=0)
    operations = 2 * (32 if batch is None else batch) * largest
    if not (COMPILED if compiled_by_xla() else INTERPRETED) <= operations <= LARGE:
        return 1
    return 2 if batch is None else max(1, min(2, batch))


def split(tensors: Sequence[tf.Tensor], count: int) -> list[list[tf.Tensor]]:
    """For each lane, its rows of every tensor (b, ...)."""
    if count == 1:
        return [list(tensors)]
    if not tensors:
        return [[] for _ in range(count)]
    batch = size(tensors[0], 0)
    ends = [lane * batch // count for lane in range(count + 1)]
    rows = [end - start for start, end in itertools.pairwise(ends)]
    return [list(lane) for lane in zip(*(tf.split(x, rows, num=count) for x in tensors), strict=True)]


def join(found: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
    """The rows of all lanes, lists of tensors, put together again."""
    return list(found[0]) if len(found) == 1 else [tf.concat(x, 0) for x in zip(*found, strict=True)]


def split_recurrence(recurrence: Recurrence, count: int) -> list[Recurrence]:
    """The recurrence over the rows of each lane; the weights are the same."""
    if count == 1:
        return [recurrence]
    masks = [None] * count if recurrence.mask is None else [m for (m,) in split([recurrence.mask], count)]
    return [recurrence.with_rows(r, m) for r, m in zip(split(recurrence.rows, count), masks, strict=True)]


class Pass(Protocol):
    """A pass over time: what its loop carries at first, its body, and what it makes of what is carried in the end."""

    carried: Any

    def body(self, index: tf.Tensor, carried: Any) -> Any:
        """What is carried after the step at `index` in order of processing."""

    def finish(self, carried: Any) -> Any:
        """The results of the pass."""


def run_interleaved(passes: Sequence[Any], time: tf.Tensor) -> list[Any]:
    """Run passes over equally many steps as one loop; what each finishes with."""

    def body(index, *carried):
        return index + 1, *(p.body(index, c) for p, c in zip(passes, carried, strict=True))

    _, *done = loop(time, body, tuple(p.carried for p in passes))
    return [p.finish(c) for p, c in zip(passes, done, strict=True)]

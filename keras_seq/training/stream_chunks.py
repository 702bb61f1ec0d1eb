"""Streams longer than memory, cut into chunks that follow one another."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras import tree

from keras_seq.arguments import positive_integer


class Chunk(NamedTuple):
    """Of so many streams: `values` (rows, steps, ..), where one `starts` (rows,), which steps are `real` (rows, steps)."""

    values: Any
    starts: np.ndarray
    real: np.ndarray


def packed(streams: Iterable[Any], rows: int, steps: int, padding: int = 0) -> Iterator[Chunk]:
    """Streams, each a nest of arrays (length, ..), side by side in so many rows: chunk after chunk.

    The next stream begins with a chunk, in the row that is free first; what is left of a last chunk, and of a row for which
    no stream is left, is padding. Such a row begins anew at every chunk.
    """
    streams = iter(streams)
    running: list[Any] = [None] * rows
    for at in itertools.count():
        starts = np.zeros(rows, "int32")
        for row in range(rows):
            if running[row] is None:
                begun = next(streams, None)
                running[row] = None if begun is None else (begun, at)
                starts[row] = 1
        some = next((r for r in running if r is not None), None)
        if some is None:
            return
        values = tree.map_structure(
            lambda x: np.full((rows, steps, *np.shape(x)[1:]), padding, np.asarray(x).dtype),
            some[0],
        )
        real = np.zeros((rows, steps), "int32")
        for row, run in enumerate(running):
            if run is None:
                continue
            stream, begun = run
            first, flat = (at - begun) * steps, tree.flatten(stream)
            count = min(steps, len(flat[0]) - first)
            for to, x in zip(tree.flatten(values), flat, strict=True):
                to[row, :count] = x[first : first + count]
            real[row, :count] = 1
            if first + steps >= len(flat[0]):
                running[row] = None
        yield Chunk(values, starts, real)


def stream_chunks(
    x: Any, y: Any = None, sample_weight: Any = None, *, steps: int, rows: int | None = None
) -> tf.data.Dataset:
    """Streams in chunks, in order: the data of `TruncatedBPTT`.

    Each row of a chunk is a stream that goes on where the chunk before it ended. A stream begins with a chunk, in the row that
    is free first, while the others go on; what is left of its last chunk is no step: it moves no state and reaches no loss.
    Nothing is left out, nothing is shuffled.

    Args:
        x: arrays (b, T, ..): b streams of one length; a tuple or dict of them for a model of several inputs. A list is of
            streams (T_i, ..) of any length, each an array or a tuple or dict of arrays. A `tf.data.Dataset` has one stream in
            each element, `(x, y)` or `(x, y, sample_weight)`, and may be endless.
        y: what to predict at each step, likewise; None where x is a `tf.data.Dataset`.
        sample_weight: a weight for each step, (b, T) or a list of (T_i,); None for none.
        steps: positive integer, the length of a chunk: how far a gradient reaches back at the most.
        rows: positive integer, how many streams run side by side; None for all of them (a `tf.data.Dataset` needs a number).

    Returns:
        A `tf.data.Dataset` of `((x, starts), y)`, x (rows, steps, ..), where every step of every chunk is real, otherwise of
        `((x, starts, real), y)`, with the weights behind y where there are some. `starts` (rows,) is 1 where a row begins a
        new stream, or has none any more, `real` (rows, steps) is 1 for real steps, both int32.

    Raises:
        TypeError, ValueError: steps or rows that are no positive integers; streams whose x, y and weights are not of one
            length, or that have no step; chunks longer than the longest stream, more rows than streams.

    Example:

    ```python
    import numpy as np
    from keras_seq.training import stream_chunks
    x = np.arange(12).reshape(2, 6)                    # two streams of six steps
    for (x_k, starts), y_k in stream_chunks(x, x + 1, steps=3):
        print(x_k.numpy().tolist(), starts.numpy(), y_k.numpy().tolist())
    # [[0, 1, 2], [6, 7, 8]] [1 1] [[1, 2, 3], [7, 8, 9]]
    # [[3, 4, 5], [9, 10, 11]] [0 0] [[4, 5, 6], [10, 11, 12]]
    ```
    """
    steps = positive_integer("steps", steps)
    rows = None if rows is None else positive_integer("rows", rows)
    if isinstance(x, tf.data.Dataset):
        return _of_dataset(x, y, sample_weight, steps, rows)
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    given = {name: _streams(name, value) for name, value in given.items() if value is not None}
    if "y" not in given:
        raise ValueError("y: expected what to predict at each step, got None")
    for name, value in given.items():
        if len(value) != len(given["x"]):
            raise ValueError(f"{name}: expected {len(given['x'])} streams like x, got {len(value)}")
    streams = list(zip(*given.values(), strict=True))
    longest = max(_length(stream, i) for i, stream in enumerate(streams))
    rows = len(streams) if rows is None else rows
    if rows > len(streams):
        raise ValueError(f"rows: expected at most one for each of the {len(streams)} streams, got {rows}")
    if steps > longest:
        raise ValueError(f"steps: expected at most {longest}, the length of the longest stream, got {steps}")
    chunks = tree.map_structure(lambda *each: np.stack(each), *packed(streams, rows, steps))
    return tf.data.Dataset.from_tensor_slices(_element(chunks, ragged=not chunks.real.all()))


def _element(chunk, ragged=True):
    """What Keras trains on: `((x, starts), y)` or `((x, starts, real), y)`, and the weights."""
    x, *further = chunk.values
    return ((x, chunk.starts, chunk.real) if ragged else (x, chunk.starts), *further)


def _of_dataset(data, y, sample_weight, steps, rows):
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                f"{name}: expected None with a tf.data.Dataset, which has all in its elements, got {value!r:.80}"
            )
    if rows is None:
        raise ValueError("rows: expected how many streams run side by side, got None with a tf.data.Dataset")
    spec = data.element_spec
    if not (isinstance(spec, tuple) and len(spec) in (2, 3)):
        raise TypeError(f"x: expected a tf.data.Dataset of (x, y) or (x, y, sample_weight), got one of {spec}")

    def chunks():
        checked = ((_length(stream, i), stream)[1] for i, stream in enumerate(data.as_numpy_iterator()))
        for chunk in packed(checked, rows, steps):
            yield _element(chunk)

    values = tree.map_structure(lambda s: tf.TensorSpec((rows, steps, *s.shape[1:]), s.dtype), spec)
    starts, real = tf.TensorSpec((rows,), tf.int32), tf.TensorSpec((rows, steps), tf.int32)
    return tf.data.Dataset.from_generator(chunks, output_signature=_element(Chunk(values, starts, real)))


def _streams(name, value):
    """A list of streams, each a nest of arrays (length, ..)."""
    if isinstance(value, list):
        return [tree.map_structure(np.asarray, stream) for stream in value]
    arrays = tree.map_structure(np.asarray, value)
    flat = tree.flatten(arrays)
    if not flat or any(a.ndim < 2 for a in flat) or len({a.shape[:2] for a in flat}) != 1:
        shapes = [a.shape for a in flat]
        raise ValueError(f"{name}: expected arrays (b, T, ..), or a list of streams (T, ..), got shapes {shapes}")
    return [tree.map_structure(lambda a: a[i], arrays) for i in range(len(flat[0]))]  # noqa: B023


def _length(stream: Sequence[Any], number: int) -> int:
    """How many steps a stream has, which all that belongs to it must have."""
    lengths = {len(leaf) if np.ndim(leaf) else 0 for leaf in tree.flatten(stream)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"streams: expected x, y and weights of one length, at least 1, in each, got {sorted(lengths)} in number {number}"
        )
    return lengths.pop()

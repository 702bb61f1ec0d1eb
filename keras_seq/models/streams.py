"""Texts longer than memory: cut into chunks, and what a memory carries from one chunk to the next."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq.cells.arguments import positive_integer
from keras_seq.decoding.tokens import token
from keras_seq.layers import RNN, Stacked
from keras_seq.layers.parts import call_with_states, check_part, check_reads_no_constants


def stream_batches(documents: Sequence[Sequence[int]], rows: int, steps: int, pad: int = 0) -> tf.data.Dataset:
    """Token arrays in chunks, in order: the data of truncated backpropagation through time.

    Each row of the batches is a stream: its next chunk goes on where the last one ended. An array is cut into `rows` equal
    streams, each of which begins with the token that the one before it ends with, so that every token but the first of all
    is asked for once. A list is of documents that do not know of each other: each begins at the border of a chunk, in the
    row that is free first, and what is left of its last chunk is padding. Nothing is left out, nothing is shuffled.

    Args:
        documents: integers (n,), or a list of such arrays, each with two tokens or more.
        rows: positive integer, how many streams run side by side.
        steps: positive integer, the length of a chunk: how far a gradient reaches back.
        pad: the token for nothing.

    Returns:
        A `tf.data.Dataset` of `((tokens (rows, steps), starts (rows,)), targets (rows, steps))`, int32, as
        `keras_seq.models.LanguageModel` is trained on it. `starts` is 1 where a row begins a new stream with this chunk, or is
        empty, else 0 (no boolean: under a strategy Keras takes means of a batch).

    Raises:
        TypeError, ValueError: rows or steps that are no positive integers; an array that is not of integers (n,), has fewer
            than two tokens or holds padding; fewer tokens or documents than rows; chunks longer than the longest stream.

    Example:

    ```python
    import numpy as np
    from keras_seq.models import stream_batches
    for (tokens, starts), targets in stream_batches(np.arange(1, 14), rows=2, steps=3):
        print(tokens.numpy().tolist(), starts.numpy(), targets.numpy().tolist())
    # [[1, 2, 3], [7, 8, 9]] [1 1] [[2, 3, 4], [8, 9, 10]]
    # [[4, 5, 6], [10, 11, 12]] [0 0] [[5, 6, 7], [11, 12, 13]]
    ```
    """
    rows, steps, pad = positive_integer("rows", rows), positive_integer("steps", steps), token("pad", pad)
    if isinstance(documents, (list, tuple)) and documents and np.ndim(documents[0]) > 0:
        documents = [_checked(f"documents[{i}]", d, pad) for i, d in enumerate(documents)]
        if rows > len(documents):
            raise ValueError(f"rows: expected at most one for each of the {len(documents)} documents, got {rows}")
    else:
        whole = _checked("documents", documents, pad)
        if rows > len(whole) - 1:
            raise ValueError(f"rows: expected at most the {len(whole) - 1} tokens to predict, got {rows}")
        borders = np.linspace(0, len(whole) - 1, rows + 1).round().astype(int)
        documents = [whole[a : b + 1] for a, b in itertools.pairwise(borders)]
    longest = max(map(len, documents)) - 1
    if steps > longest:
        raise ValueError(f"steps: expected at most {longest}, the length of the longest stream, got {steps}")

    # for each row its chunks: (whether one begins, tokens)
    streams: list[list[Any]] = [[] for _ in range(rows)]
    for document in documents:
        free = min(streams, key=len)
        for at in range(0, len(document) - 1, steps):
            free.append((at == 0, document[at : at + steps + 1]))
    count = max(map(len, streams))
    starts = np.ones((count, rows), np.int32)
    tokens, targets = np.full((2, count, rows, steps), pad, np.int32)
    for row, chunks in enumerate(streams):
        for i, (begins, chunk) in enumerate(chunks):
            starts[i, row] = begins
            tokens[i, row, : len(chunk) - 1], targets[i, row, : len(chunk) - 1] = chunk[:-1], chunk[1:]
    return tf.data.Dataset.from_tensor_slices(((tokens, starts), targets))


def _checked(name, tokens, pad):
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers of shape (n,), got {tokens.dtype} {tokens.shape}")
    if len(tokens) < 2:
        raise ValueError(
            f"{name}: expected two tokens or more, the first to read and the last to predict, got {tokens}"
        )
    if (tokens == pad).any():
        raise ValueError(f"{name}: expected no padding ({pad}), got it at place {np.argmax(tokens == pad)}")
    return tokens


# -- what is carried ---------------------------------------------------------------------------------------------------


def check_memory(name, memory):
    """An error that names the argument unless this can read a text from left to right, chunk by chunk."""
    check_part(name, memory)
    check_reads_no_constants(name, memory)
    if not memory.return_sequences:
        raise ValueError(f"{name}: expected return_sequences=True, got {memory.name} without")
    if memory.not_stepwise:
        raise ValueError(
            f"{name}: expected a layer that reads forwards step by step, got {memory.name}; {memory.not_stepwise}"
        )
    if getattr(memory, "stateful", False):
        raise ValueError(
            f"{name}: expected stateful=False, as the model carries the states, got {memory.name} with True"
        )


def first_state(layer, rows):
    """What a built layer carries before its first chunk: a flat list of tensors, `rows` rows each.

    A recurrent layer carries its states; a layer that sees n steps carries the last n - 1 inputs and which of them there
    have been; a stack what its layers carry.
    """
    if isinstance(layer, Stacked):
        return [s for part in layer.layers for s in first_state(part, rows)]
    if isinstance(layer, RNN):
        return [ops.cast(s, layer.state_dtype) for s in layer.first_state(rows)]
    reach, width = layer.receptive_field - 1, layer.input_spec.axes[-1]
    if not reach:
        return []
    return [ops.zeros((rows, reach, width), dtype=layer.compute_dtype), ops.zeros((rows, reach), dtype="bool")]


def carried(layer, sequences, states, mask, training=False):
    """`(outputs, new states)` of one chunk: those of a longer sequence, from what was carried to its end."""
    if isinstance(layer, Stacked):
        sizes = [len(first_state(part, 1)) for part in layer.layers]
        apply = functools.partial(carried, training=training)
        sequences = ops.cast(sequences, layer.compute_dtype)
        return layer._through(sequences, list(states), mask, apply, sizes, training)
    if isinstance(layer, RNN):
        return call_with_states(layer, sequences, list(states), mask)
    if not states:
        return layer(sequences, mask=mask), []
    before, been = states
    reach = before.shape[1]
    joined = ops.concatenate([before, ops.cast(sequences, before.dtype)], axis=1)
    real = ops.concatenate([been, mask], axis=1)
    outputs = layer(joined, mask=real)[:, reach:]
    steps = ops.arange(ops.shape(real)[1], dtype="int32")
    order = ops.argsort(ops.where(real, steps + ops.shape(real)[1], steps), axis=1)  # the real ones last
    last = order[:, -reach:]
    return outputs, [
        ops.take_along_axis(joined, ops.expand_dims(last, -1), axis=1),
        ops.take_along_axis(real, last, axis=1),
    ]


def by_shape(make):
    """A function of an iterator that Keras trains or tests by: `make()` gives one for each shape of the data.

    Keras makes one for all, which forgets how many rows there are as soon as it has met two numbers of them: with them it
    would forget whose states they are.
    """
    made, making = {}, threading.Lock()

    def function(iterator):
        key = str(getattr(iterator, "element_spec", None))
        with making:
            if key not in made:
                made[key] = make()
        return made[key](iterator)

    return function


class Apart:
    """An object to those who read it; what they set is set here."""

    def __init__(self, whole):
        self.__dict__["_whole"] = whole

    def __getattr__(self, name):
        return getattr(self._whole, name)

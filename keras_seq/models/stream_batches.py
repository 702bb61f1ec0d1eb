"""Texts longer than memory, cut into chunks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from keras import tree

from keras_seq.arguments import positive_integer
from keras_seq.decoding.tokens import token
from keras_seq.training.stream_chunks import packed


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

    streams = [(document[:-1], document[1:]) for document in documents]
    (tokens, targets), starts, _ = tree.map_structure(lambda *each: np.stack(each), *packed(streams, rows, steps, pad))
    tokens, targets = (np.asarray(x, np.int32) for x in (tokens, targets))
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

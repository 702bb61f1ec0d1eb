"""Which steps of one long series train, validate and test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from keras_seq.arguments import finite_array, integer_or_none, positive_integer


def block_split(steps: int, shares: Sequence[float] = (0.7, 0.15, 0.15), warm_up: int = 0) -> list[np.ndarray]:
    """Split the steps of a series into contiguous blocks, one for each share: MATLAB's `divideblock`.

    Neighbouring steps are nearly alike, and a model with delays reads those before the step that it predicts. A test block at
    the end therefore says more of the future than steps drawn at random. With `warm_up` the first steps of each block belong
    to none, so that no target of a block is an input of the next.

    Args:
        steps: positive integer, the length of the series.
        shares: positive numbers; their sum counts as the whole.
        warm_up: integer of at least 0, how many steps to leave out at the beginning of each block: the longest delay. 0 to
            cut blocks out by `y[mask]`; a model then warms up on the first steps of each.

    Returns:
        A mask (steps,) of booleans for each share: `y[mask]`, or `sample_weight=mask[None, w:]` in `fit` over the whole series,
        for a model whose output leaves out the first w steps.

    Raises:
        TypeError, ValueError: shares that are not positive; a block that is no longer than the warm-up.

    Example:

    ```python
    from keras_seq.analysis import block_split
    train, validation, test = block_split(100, warm_up=3)
    print(train.sum(), validation.sum(), test.sum())  # 67 12 12
    ```
    """
    steps, warm_up, parts = _arguments(steps, shares, warm_up)
    ends = np.round(steps * np.cumsum(parts)).astype(int)
    return _masks(np.searchsorted(ends, np.arange(steps), side="right"), len(parts), warm_up)


def interleaved_split(
    steps: int, shares: Sequence[float] = (0.7, 0.15, 0.15), warm_up: int = 0, length: int = 1
) -> list[np.ndarray]:
    """Deal out the steps of a series in turn, each time a piece of `length`: MATLAB's `divideint`, by pieces.

    For a series whose level or season changes, so that one block at the end would be unlike the rest. Pieces of one step, as
    in MATLAB, are nearly the same as their neighbours: a validation error of such is little more than a training error.
    Longer pieces less a warm-up keep the parts apart.

    Args:
        steps, shares, warm_up: as in `block_split`; the warm-up is left out at the beginning of each run of pieces of one part.
        length: positive integer, how many steps a piece has, more than `warm_up`.

    Returns:
        A mask (steps,) of booleans for each share, for `sample_weight`, as in `block_split`, in open loop.

    Raises:
        TypeError, ValueError: as in `block_split`; fewer pieces than shares.

    Example:

    ```python
    from keras_seq.analysis import interleaved_split
    train, test = interleaved_split(12, shares=[2, 1], length=2)
    print(test.astype(int))  # [0 0 1 1 0 0 0 0 1 1 0 0]
    ```
    """
    steps, warm_up, parts = _arguments(steps, shares, warm_up)
    length = positive_integer("length", length)
    if length <= warm_up:
        raise ValueError(f"length: expected more than warm_up={warm_up}, got {length}")
    pieces = math.ceil(steps / length)
    given, turn = np.zeros(len(parts)), np.empty(pieces, int)
    for i in range(pieces):  # the part that is furthest behind its share of the pieces so far
        turn[i] = np.argmax((i + 1) * parts - given)
        given[turn[i]] += 1
    return _masks(np.repeat(turn, length)[:steps], len(parts), warm_up)


def _arguments(steps, shares, warm_up):
    steps = positive_integer("steps", steps)
    found = finite_array("shares", shares)
    if found.ndim != 1 or len(found) < 2 or not np.all(found > 0):
        raise ValueError(f"shares: expected at least two positive numbers, got {shares!r:.80}")
    known = integer_or_none("warm_up", warm_up)
    if known is None or known < 0:
        raise ValueError(f"warm_up: expected an integer of at least 0, got {warm_up!r}")
    return steps, known, found / found.sum()


def _masks(owner, count, warm_up):
    """A mask for each part, from the number of the part of each step."""
    begins = np.flatnonzero(np.diff(owner, prepend=-1))
    since = np.arange(len(owner)) - np.repeat(begins, np.diff(np.append(begins, len(owner))))
    found = [(owner == i) & (since >= warm_up) for i in range(count)]
    empty = [i for i, mask in enumerate(found) if not mask.any()]
    if empty:
        raise ValueError(f"shares: expected steps beyond the warm-up of {warm_up} in each part, got none in {empty}")
    return found

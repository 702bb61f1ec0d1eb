"""Series of numbers as arrays of one form, and tables of what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_seq.arguments import finite_array, float64_array


def series(name: str, value: Any, like: np.ndarray | None = None, of: str = "the other series") -> np.ndarray:
    """`value`, (t,), (t, k) or (b, t, k), as a float64 array (b, t, k), of as many rows and steps as `like`, the array `of`."""
    found = finite_array(name, value)
    if found.ndim not in (1, 2, 3) or 0 in found.shape:
        raise ValueError(f"{name}: expected shape (t,), (t, k) or (b, t, k), got {found.shape}")
    found = found.reshape(found.shape if found.ndim == 3 else (1, len(found), -1))
    if like is not None and found.shape[:2] != like.shape[:2]:
        rows, steps = like.shape[:2]
        raise ValueError(f"{name}: expected {rows} x {steps} steps, as {of} has, got {found.shape[:2]}")
    return found


def numbers(name: str, value: Any) -> np.ndarray:
    """`value` as a float64 array of its own, finite or not; a TypeError that names the argument unless it is of numbers."""
    return float64_array(name, value).copy()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns: the first to the left, all others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [f"{first:{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

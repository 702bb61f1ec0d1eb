"""A picture of what a memory does at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.extras import needed
from keras_seq.typing import Tensor

if TYPE_CHECKING:
    import matplotlib.figure

# those that lie between two bounds by their nature are drawn on this scale, all others on one symmetric about zero
_GATE = "_gate"


def plot_internals(
    internals: Mapping[str, Tensor],
    row: int = 0,
    names: Sequence[str] | None = None,
    steps: Sequence[Any] | None = None,
) -> matplotlib.figure.Figure:
    """Draw the internals of one sequence: a panel for each name, time to the right, a line of the picture for each unit.

    Gates are drawn from 0 (white) to 1 (black), all else from blue (negative) to red (positive), each panel on its own
    symmetric scale, which its colour bar gives.

    Args:
        internals: the dict that a layer with `return_internals=True` returns last, of (b, t, width).
        row: which sequence of the batch.
        names: which of them to draw, and in which order; None for all.
        steps: a label for each step, such as the words read; None for numbers.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        IndexError: no such row.
        TypeError: internals that are no such dict.
        ValueError: an unknown name; as many labels as there are not steps.

    Example:

    ```python
    import keras_seq
    from keras_seq.analysis import plot_internals
    from keras import ops
    _, internals = keras_seq.LSTM(8, return_internals=True)(ops.ones((2, 5, 3)))
    figure = plot_internals(internals, names=["forget_gate", "cell"])
    ```
    """
    if not isinstance(internals, dict) or not internals or any(np.ndim(value) != 3 for value in internals.values()):
        raise TypeError(f"internals: expected a dict of tensors (b, t, width), got {internals!r:.80}")
    names = list(internals) if names is None else list(names)
    unknown = [name for name in names if name not in internals]
    if unknown:
        raise ValueError(f"names: expected some of {list(internals)}, got {unknown[0]!r}")
    rows = len(next(iter(internals.values())))
    if not -rows <= row < rows:
        raise IndexError(f"row: expected one of the {rows} of the batch, got {row}")
    values = {name: np.asarray(internals[name], "float32")[row].T for name in names}
    length = next(iter(values.values())).shape[1] if values else 0
    if steps is not None and len(steps) != length:
        raise ValueError(f"steps: expected {length} labels, got {len(steps)}")
    width = min(4 + 0.25 * length, 16)
    figure = needed("matplotlib.figure", "plots").Figure(figsize=(width, 0.6 + 1.3 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, value) in zip(axes, values.items(), strict=True):
        if name.endswith(_GATE):
            scale = {"cmap": "Greys", "vmin": 0, "vmax": 1}
        else:
            reach = float(np.max(np.abs(value), initial=1e-6))
            scale = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
        image = axis.imshow(value, aspect="auto", interpolation="nearest", **scale)
        figure.colorbar(image, ax=axis, pad=0.01)
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        axis.set_yticks([])
    if names:
        if steps is not None:
            axes[-1].set_xticks(range(length), steps)
        else:
            axes[-1].set_xlabel("step")
    return figure

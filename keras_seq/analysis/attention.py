"""Pictures of what was attended to: source positions of a sequence, places of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.extras import needed
from keras_seq.typing import Tensor

if TYPE_CHECKING:
    import matplotlib.figure

CELL, MOST = 0.25, 14  # inches: a side of one weight in the picture, and of all of them at the most
DARKEST = 0.7  # how much of the light is taken from a place that is not attended to
PANEL, COLUMNS = 1.7, 6  # inches, and panels side by side


def plot_alignment(weights: Tensor, source: Any = None, target: Any = None) -> matplotlib.figure.Figure:
    """Draw which source positions each output of one sequence has read: a row for each output, from the top.

    A weight of 0 is white, the greatest of all black; the colour bar gives the scale. Long sequences get smaller cells
    and smaller labels, and where these would still overlap, every n-th label only, the first always.

    Args:
        weights: what attention gave, (t, s), of at least 0.
        source: a label for each of the s positions, such as words, or a string of s characters; None for numbers.
        target: a label for each of the t outputs, likewise.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: weights of another number of axes, without an element, negative or not finite; as many labels as there
            are not positions.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import plot_alignment
    weights = np.random.default_rng(0).dirichlet(np.ones(9), size=10)
    figure = plot_alignment(weights, "mar 3 '21", "2021-03-03")
    ```
    """
    weights = _checked(weights, "(t, s)")
    t, s = weights.shape
    sides = [min(max(CELL * n, 1.5), MOST) for n in (s, t)]
    figure = needed("matplotlib.figure", "plots").Figure(figsize=(sides[0] + 2, sides[1] + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Greys", vmin=0, vmax=max(weights.max(), 1e-6), aspect="auto")
    figure.colorbar(image, ax=axes, pad=0.01, shrink=min(1, 3 / sides[1]))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    _label(axes.xaxis, "source", source, s, sides[0])
    _label(axes.yaxis, "target", target, t, sides[1])
    return figure


def plot_attended(
    image: Tensor, words: Sequence[str], weights: Tensor, map_shape: Sequence[int]
) -> matplotlib.figure.Figure:
    """Draw what of a picture each word has read: the picture, then a panel for each word, dark where it did not look.

    The weights of a word are taken for those of equal rectangles that cover the picture, h' down and w' across, and are
    smoothed between their centres. Each panel has its own scale: the place of the greatest weight is as light as the
    picture, one of weight 0 has three tenths of its light.

    Args:
        image: a picture (h, w, 3), values 0 .. 255.
        words: the t words.
        weights: what attention gave, (t, h' * w'), rows of the feature map one after the other, of at least 0.
        map_shape: (h', w').

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a picture of another shape or with values outside 0 .. 255; weights of another shape, negative or not
            finite; as many words as there are not rows of weights; a map_shape that does not hold the weights.

    Example:

    ```python
    import numpy as np
    from keras_seq.analysis import plot_attended
    rng = np.random.default_rng(0)
    picture, weights = rng.integers(0, 256, (48, 48, 3)), rng.dirichlet(np.ones(36), size=4)
    figure = plot_attended(picture, "a small red square".split(), weights, map_shape=(6, 6))
    ```
    """
    image, words, weights = np.asarray(image), list(words), _checked(weights, "(t, h' * w')")
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected shape (h, w, 3), got {image.shape}")
    if not (image.min() >= 0 and image.max() <= 255):
        raise ValueError(f"image: expected values 0 .. 255, got {image.min()} .. {image.max()}")
    if len(words) != len(weights):
        raise ValueError(f"words: expected {len(weights)}, one for each row of weights, got {len(words)}")
    if (
        not isinstance(map_shape, (list, tuple))
        or len(map_shape) != 2
        or math.prod(map_shape) != weights.shape[1]
        or min(map_shape) < 1
    ):
        raise ValueError(f"map_shape: expected (h', w') of {weights.shape[1]} places, got {map_shape!r}")
    h, w, _ = image.shape
    shown = np.rint(image).astype("uint8")
    columns = min(COLUMNS, len(words) + 1)
    rows = math.ceil((len(words) + 1) / columns)
    figure = needed("matplotlib.figure", "plots").Figure(
        figsize=(PANEL * columns, (PANEL * h / w + 0.3) * rows), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    panels[0].imshow(shown)
    for axes, word, values in zip(panels[1:], words, weights.reshape(-1, *map_shape), strict=False):
        axes.imshow(shown)
        shade = np.zeros((*map_shape, 4))  # black, its opacity what matters
        shade[..., 3] = DARKEST * (1 - values / max(values.max(), 1e-12))
        axes.imshow(shade, extent=(-0.5, w - 0.5, h - 0.5, -0.5), interpolation="hanning")
        axes.set_title(word, fontsize=9)
    return figure


def _checked(weights, axes):
    try:
        weights = np.asarray(weights, "float64")
    except (TypeError, ValueError) as error:
        raise TypeError(f"weights: expected numbers of shape {axes}, got {weights!r:.80}") from error
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"weights: expected shape {axes} with at least one element, got {weights.shape}")
    if not (np.isfinite(weights).all() and weights.min() >= 0):
        raise ValueError(f"weights: expected finite numbers of at least 0, got {weights[~(weights >= 0)][:1]}")
    return weights


def _label(axis, name, labels, count, inches):
    """Labels as large as fit, and as many."""
    if labels is None:
        axis.set_label_text(f"{name} position")
        return
    labels = [str(label) for label in labels]
    if len(labels) != count:
        raise ValueError(f"{name}: expected {count} labels, got {len(labels)}")
    room = 72 * inches / count  # points for each
    size = min(9, max(6, 0.8 * room))
    every = math.ceil(1.25 * size / room)
    upright = axis.axis_name == "y" or max(map(len, labels)) <= 2
    axis.set_ticks(range(0, count, every), labels[::every], fontsize=size, rotation=0 if upright else 90)

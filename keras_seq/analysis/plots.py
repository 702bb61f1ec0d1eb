"""Pictures of stability, memory and gradients, one in each Axes; none needs colour to be read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_seq.analysis.jacobians import GradientFlow
from keras_seq.analysis.lyapunov import LyapunovSpectrum
from keras_seq.analysis.memory import MemoryCurves
from keras_seq.arguments import finite_array, integer_or_none, positive_number
from keras_seq.extras import needed
from keras_seq.typing import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colours that stay apart for all eyes and in grey, with a line and a marker of their own
STYLES = (
    {"color": "black", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#0072B2", "linestyle": "-.", "marker": "^"},
    {"color": "#009E73", "linestyle": ":", "marker": "D"},
    {"color": "#CC79A7", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "#555555", "linestyle": (0, (1, 1)), "marker": "P"},
    {"color": "#56B4E9", "linestyle": (0, (8, 2)), "marker": "X"},
)
MARKS = 6  # markers along a line


def plot_spectrum(eigenvalues: Any, ax: Axes | None = None) -> Axes:
    """Draw eigenvalues in the complex plane with the unit circle: open markers fade, filled ones, outside, grow.

    Args:
        eigenvalues: numbers, (n,), such as `step_spectrum` gives; or a dict of them by name, each with a marker of its own.
        ax: the `matplotlib.axes.Axes` to draw in; None for those of a new figure.

    Returns:
        The Axes; `ax.figure.savefig(path)` writes them.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: eigenvalues that are no numbers (n,), or not finite; an `ax` that is no Axes.

    Example:

    ```python
    import keras_seq
    from keras_seq.analysis import plot_spectrum, step_spectrum
    layer = keras_seq.SimpleRNN(16, recurrent_initializer="glorot_uniform")
    layer.build((None, None, 3))
    ax = plot_spectrum(step_spectrum(layer))
    ```
    """
    several = _by_name("eigenvalues", eigenvalues)
    found = {}
    for name, values in several.items():
        values = np.asarray(values)
        if values.ndim != 1 or values.dtype.kind not in "fciu" or not len(values):
            raise ValueError(f"eigenvalues: expected numbers (n,), got {values.dtype} of shape {values.shape}")
        if not np.all(np.isfinite(values)):
            raise ValueError("eigenvalues: expected finite numbers, got NaN or infinity")
        found[name] = values.astype(complex)
    ax = _axes(ax, 4.2, 4.2)
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    around = np.exp(2j * np.pi * np.linspace(0, 1, 400))
    ax.plot(around.real, around.imag, color="black", linewidth=1, zorder=1)
    for (name, values), style in zip(found.items(), _styles(len(found)), strict=True):
        outside = np.abs(values) > 1 + 1e-6
        for chosen, fill in ((~outside, "none"), (outside, style["color"])):
            ax.scatter(
                values[chosen].real,
                values[chosen].imag,
                s=28,
                marker=style["marker"],
                facecolors=fill,
                edgecolors=style["color"],
                zorder=2,
            )
        if len(found) > 1:
            largest = np.abs(values).max()
            ax.scatter(
                [],
                [],
                marker=style["marker"],
                facecolors="none",
                edgecolors=style["color"],
                label=f"{name} ({largest:.3g})",
            )
    reach = 1.1 * max(1.0, *(np.abs(v).max() for v in found.values()))
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="real part", ylabel="imaginary part")
    if len(found) > 1:
        _legend_below(ax, title="in brackets the greatest modulus", title_fontsize=8)
    else:
        ax.set_title(f"greatest modulus {max(np.abs(v).max() for v in found.values()):.3g}", fontsize=10)
    return ax


def plot_memory_curves(curves: MemoryCurves, bias: int = 0, log: bool = False, ax: Axes | None = None) -> Axes:
    """Draw what a memory makes of one input: a style of line for each weight, the lines of all inputs.

    Lines of positive inputs, or of the first, bear filled markers, those of others open ones. Of vectors the length of the
    state is drawn, and matrices are numbered.

    Args:
        curves: what `memory_curves` gives.
        bias: which of the biases, by its number.
        log: draw the modulus on a logarithmic scale, for what blows up; zeros are left out.
        ax: as in `plot_spectrum`.

    Returns:
        The Axes.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: curves that are none; no such bias; an `ax` that is no Axes.

    Example:

    ```python
    from keras_seq.analysis import memory_curves, plot_memory_curves
    ax = plot_memory_curves(memory_curves("tanh", weights=[0.5, 1.0, 2.0], inputs=[1.0, -1.0], steps=20))
    ```
    """
    if not isinstance(curves, MemoryCurves):
        raise TypeError(f"curves: expected what memory_curves gives, got {curves!r:.80}")
    if integer_or_none("bias", bias) is None or not 0 <= bias < len(curves.biases):
        raise ValueError(f"bias: expected a number below {len(curves.biases)}, got {bias!r}")
    scalar = curves.weights.ndim == 1
    values = curves.values[:, bias] if scalar else np.linalg.norm(curves.values[:, bias], axis=-1)
    steps = np.arange(values.shape[-1])
    ax = _axes(ax, 5, 3.4)
    for i, style in enumerate(_styles(len(values))):
        for j, line in enumerate(values[i]):
            filled = curves.inputs[j] > 0 if scalar else j == 0
            shown = np.abs(line) if log else line
            shown = np.where(shown > 0, shown, np.nan) if log else shown
            name = f"w = {curves.weights[i]:g}" if scalar else f"W {i + 1}"
            _line(ax, steps, shown, style, label=name if j == 0 else None, filled=filled, place=i)
    if log:
        ax.set_yscale("log")
    what = ("|h|" if log else "h") if scalar else "length of h"
    ax.set(xlabel="steps after the input", ylabel=f"{what}  ({curves.activation})", xlim=(0, steps[-1]))
    _legend_below(ax)
    return ax


def plot_gradient_flow(flows: Any, ax: Axes | None = None) -> Axes:
    """Draw how much of a gradient comes back over how many steps, in powers of ten: the mean of the rows, and their range.

    Args:
        flows: what `gradient_flow` gives, or a dict of such by name.
        ax: as in `plot_spectrum`.

    Returns:
        The Axes. What is 0 is left out.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: flows that are none; an `ax` that is no Axes.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import gradient_flow, plot_gradient_flow
    x, flows = np.random.default_rng(0).normal(size=(2, 60, 3)).astype("float32"), {}
    for layer in (keras_seq.SimpleRNN(8), keras_seq.LSTM(8)):
        layer(x)
        flows[layer.name] = gradient_flow(layer, x)
    ax = plot_gradient_flow(flows)
    ```
    """
    several = _by_name("flows", flows)
    for flow in several.values():
        if not isinstance(flow, GradientFlow):
            raise TypeError(f"flows: expected what gradient_flow gives, or a dict of it, got {flow!r:.80}")
    ax = _axes(ax, 5, 3.4)
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for i, ((name, flow), style) in enumerate(zip(several.items(), _styles(len(several)), strict=True)):
        powers = np.where(np.isfinite(flow.log_norm), flow.log_norm, np.nan) / math.log(10)
        shown = ~np.all(np.isnan(powers), axis=0)
        powers, lags = powers[:, shown], flow.lags[shown]
        _line(ax, lags, np.nanmean(powers, axis=0), style, label=name, place=i)
        ax.fill_between(
            lags, np.nanmin(powers, axis=0), np.nanmax(powers, axis=0), color=style["color"], alpha=0.15, linewidth=0
        )
    ax.set(xlabel="lag: steps back from the last state", ylabel="gradient, power of 10", xlim=(0, None))
    if any(name is not None for name in several):
        _legend_below(ax)
    return ax


def plot_state_gradients(
    gradients: Any, row: int = 0, names: Sequence[str] | None = None, decades: float = 12, ax: Axes | None = None
) -> Axes:
    """Draw how a loss depends on each unit of a memory at each step: a heat map, time to the right, a line for each unit.

    It is dark where the gradient is large, by powers of ten; white is at least `decades` of them below the largest, or zero.

    Args:
        gradients: what `state_gradients` gives, a list of (b, t, n) for each state; or one of these.
        row: which sequence of the batch.
        names: a name for each state, such as ["h", "c"].
        decades: positive number, how many powers of ten the scale has.
        ax: as in `plot_spectrum`; a colour bar is drawn beside it.

    Returns:
        The Axes.

    Raises:
        ImportError: matplotlib is not installed.
        IndexError: no such row.
        TypeError, ValueError: gradients that are not (b, t, n), or not finite; as many names as there are not states; decades
            that are not positive; an `ax` that is no Axes.

    Example:

    ```python
    import keras_seq
    from keras import ops
    from keras_seq.analysis import plot_state_gradients, state_gradients
    layer = keras_seq.LSTM(8)
    gradients = state_gradients(layer, ops.ones((2, 30, 3)), output_gradients=ops.ones((2, 8)))
    ax = plot_state_gradients(gradients, names=["h", "c"])
    ```
    """
    decades = positive_number("decades", decades)
    parts = list(gradients) if isinstance(gradients, (list, tuple)) else [gradients]
    parts = [finite_array("gradients", part) for part in parts]
    if not parts or any(p.ndim != 3 or p.shape[:2] != parts[0].shape[:2] or 0 in p.shape for p in parts):
        raise ValueError(f"gradients: expected shapes (b, t, n), got {[p.shape for p in parts]}")
    rows = len(parts[0])
    if integer_or_none("row", row) is None or not -rows <= row < rows:
        raise IndexError(f"row: expected one of the {rows} of the batch, got {row}")
    if names is not None and len(names) != len(parts):
        raise ValueError(f"names: expected {len(parts)}, one for each state, got {len(names)}")
    sizes = np.abs(np.concatenate([p[row] for p in parts], axis=-1)).T  # (units, t)
    top = sizes.max()
    with np.errstate(divide="ignore"):
        powers = np.log10(sizes / (top or 1.0))
    ax = _axes(ax, 6, 3)
    image = ax.imshow(
        np.maximum(powers, -decades), cmap="Greys", vmin=-decades, vmax=0, aspect="auto", interpolation="nearest"
    )
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01)
    bar.set_label(f"power of 10, of {top:.2g}", fontsize=8)
    edges = np.cumsum([0, *(p.shape[2] for p in parts)])
    for edge in edges[1:-1]:
        ax.axhline(edge - 0.5, color="black", linewidth=1)
    if names is not None:
        ax.set_yticks((edges[:-1] + edges[1:] - 1) / 2, list(names))
    ax.set(xlabel="step", ylabel="unit" if names is None else "")
    return ax


def plot_lyapunov_spectrum(spectra: Any, ax: Axes | None = None) -> Axes:
    """Draw Lyapunov exponents, the greatest first: the mean of the rows with twice its error; above 0 differences grow.

    Args:
        spectra: what `lyapunov_spectrum` gives, or a dict of such by name.
        ax: as in `plot_spectrum`.

    Returns:
        The Axes. Exponents of -inf are left out. The error is that of the mean of rows, of one row the one that it has.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: spectra that are none; an `ax` that is no Axes.

    Example:

    ```python
    import numpy as np
    import keras_seq
    from keras_seq.analysis import lyapunov_spectrum, plot_lyapunov_spectrum
    layer, x = keras_seq.GRU(8), np.random.default_rng(0).normal(size=(4, 60, 3)).astype("float32")
    layer(x)
    ax = plot_lyapunov_spectrum(lyapunov_spectrum(layer, x))
    ```
    """
    several = _by_name("spectra", spectra)
    for spectrum in several.values():
        if not isinstance(spectrum, LyapunovSpectrum):
            raise TypeError(f"spectra: expected what lyapunov_spectrum gives, or a dict of it, got {spectrum!r:.80}")
    ax = _axes(ax, 5, 3.4)
    ax.axhline(0, color="black", linewidth=1, zorder=0)
    for (name, spectrum), style in zip(several.items(), _styles(len(several)), strict=True):
        finite = np.isfinite(spectrum.exponents).all(axis=0)
        exponents = spectrum.exponents[:, finite]
        error = (
            exponents.std(axis=0, ddof=1) / math.sqrt(len(exponents))
            if len(exponents) > 1
            else spectrum.standard_error[0, finite]
        )
        ax.errorbar(
            1 + np.flatnonzero(finite),
            exponents.mean(axis=0),
            yerr=2 * np.nan_to_num(error),
            **{**style, "linestyle": "none"},
            markersize=5,
            markerfacecolor="none",
            capsize=2,
            label=name,
        )
    ax.set(xlabel="number of the exponent", ylabel="nats a step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if any(name is not None for name in several):
        _legend_below(ax)
    return ax


def plot_gate(
    internals: Mapping[str, Tensor],
    name: str = "forget_gate",
    symbols: Sequence[Any] | None = None,
    row: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw how far one gate of a memory is open over a sequence, with its symbols below: white is shut, black is open.

    Args:
        internals: the dict that a layer with `return_internals=True` returns last, of (b, t, n).
        name: which of them, one that lies between 0 and 1.
        symbols: a label for each step, such as the words or the letters read, or a string of as many letters.
        row: which sequence of the batch.
        ax: as in `plot_spectrum`; a colour bar is drawn beside it.

    Returns:
        The Axes.

    Raises:
        ImportError: matplotlib is not installed.
        IndexError: no such row.
        TypeError, ValueError: internals that are no such dict, or lack the name; a value outside 0 .. 1; as many symbols as
            there are not steps; an `ax` that is no Axes.

    Example:

    ```python
    import keras_seq
    from keras import ops
    from keras_seq.analysis import plot_gate
    _, internals = keras_seq.LSTM(8, return_internals=True)(ops.ones((2, 5, 3)))
    ax = plot_gate(internals, "forget_gate", symbols="hello")
    ```
    """
    if not isinstance(internals, dict) or not internals:
        raise TypeError(f"internals: expected a dict of tensors (b, t, n), got {internals!r:.80}")
    if name not in internals:
        raise ValueError(f"name: expected one of {list(internals)}, got {name!r}")
    values = finite_array("internals", internals[name])
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"internals: expected shape (b, t, n), got {values.shape}")
    if integer_or_none("row", row) is None or not -len(values) <= row < len(values):
        raise IndexError(f"row: expected one of the {len(values)} of the batch, got {row}")
    shown = values[row].T
    if shown.min() < 0 or shown.max() > 1:
        raise ValueError(
            f"name: expected a gate, between 0 and 1, got {name!r} with {shown.min():.3g} .. {shown.max():.3g}"
        )
    steps = shown.shape[1]
    if symbols is not None and len(symbols) != steps:
        raise ValueError(f"symbols: expected {steps}, one for each step, got {len(symbols)}")
    ax = _axes(ax, min(3 + 0.2 * steps, 14), 3)
    image = ax.imshow(shown, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, pad=0.01, label=name.replace("_", " "))
    ax.set_ylabel("unit")
    ax.yaxis.get_major_locator().set_params(integer=True)
    if symbols is None:
        ax.set_xlabel("step")
    else:
        labels = [str(s) for s in symbols]
        upright = max(map(len, labels)) <= 2
        ax.set_xticks(range(steps), labels, fontsize=max(5, min(10, 400 / steps)), rotation=0 if upright else 90)
    return ax


def _axes(ax, width, height):
    """The Axes that are given, or those of a new figure of this size in inches."""
    if ax is None:
        figure = needed("matplotlib.figure", "plots").Figure(figsize=(width, height), layout="constrained")
        return figure.subplots()
    if not isinstance(ax, needed("matplotlib.axes", "plots").Axes):
        raise TypeError(f"ax: expected matplotlib Axes or None, got {ax!r:.80}")
    return ax


def _by_name(argument, given):
    """A dict as it is, anything else under no name."""
    if isinstance(given, dict) and not given:
        raise ValueError(f"{argument}: expected at least one to draw, got an empty dict")
    return given if isinstance(given, dict) else {None: given}


def _legend_below(ax, **further):
    """Where it hides nothing, in as many columns as are as wide as the Axes."""
    labels = ax.get_legend_handles_labels()[1]
    place = ax.get_subplotspec()
    share = 0.85 / place.get_gridspec().ncols if place else ax.get_position().width
    columns = int(ax.figure.get_figwidth() * share / (0.45 + 0.07 * max(map(len, labels))))
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=min(4, max(1, columns)),
        fontsize=8,
        handlelength=3,
        columnspacing=1,
        frameon=False,
        **further,
    )


def _styles(count):
    return [STYLES[i % len(STYLES)] for i in range(count)]


def _line(ax, x, y, style, label=None, filled=True, place=0):
    """A line with a few markers, which begin at another place for each line."""
    every = max(1, len(x) // MARKS)
    ax.plot(
        x,
        y,
        **style,
        linewidth=1.4,
        markersize=5,
        markevery=(place * max(1, every // 5) % every, every),
        markerfacecolor=style["color"] if filled else "white",
        label=label,
    )

"""Pieces of measured sequences, for a net that runs on its own outputs after some true ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_seq.analysis.series import series
from keras_seq.arguments import positive_integer


def free_run_pieces(
    inputs: Any, outputs: Any, warm_up: int, steps: int, stride: int | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut measured sequences into pieces of a warm-up and a free run, for a fit in stages: short runs first, then longer ones.

    A net in closed loop whose weights are far off soon leaves what was measured; over a few steps its run still says in which
    direction better weights lie, over a thousand it says nothing, or diverges.

    Args:
        inputs: of one sequence (t, d) or (t,), of several (b, t, d), or, where they differ in length, a list of arrays (t, d).
        outputs: what was measured with them, (t, k), (t,), (b, t, k), or a list likewise.
        warm_up: positive integer w, the steps with true outputs, at least the delays of the net.
        steps: positive integer n, the steps after them.
        stride: positive integer, from the beginning of one piece to that of the next; None for n, so that each step after the
            first warm-up is run freely once.

    Returns:
        `([x, known], later)`: inputs (m, w + n, d), the first outputs (m, w, k), and those that the net is to give, (m, n, k).

    Raises:
        TypeError, ValueError: arrays of other shapes, or that are not finite; sequences shorter than a piece.

    Example:

    ```python
    import keras
    import keras_seq
    import numpy as np
    from keras_seq.training import LevenbergMarquardt, free_run_pieces

    u, y = np.random.normal(size=(200, 1)), np.zeros((200, 1))
    for t in range(1, 200):
        y[t] = 0.8 * np.tanh(y[t - 1]) + u[t - 1]
    x, known = keras.Input((None, 1)), keras.Input((2, 1))
    narx = keras_seq.NARX(4, 1, input_delays=[1, 2], output_delays=2, return_sequences=True, closed=True)
    trainer = LevenbergMarquardt(keras.Model([x, known], narx(x, targets=known)[:, 2:]))
    for steps in (10, 50, 198):
        history = trainer.fit(*free_run_pieces(u, y, warm_up=2, steps=steps), epochs=5, verbose=0)
    ```
    """
    warm_up, steps = positive_integer("warm_up", warm_up), positive_integer("steps", steps)
    stride = steps if stride is None else positive_integer("stride", stride)
    pieces = [_cut(x, y, warm_up + steps, stride) for x, y in _sequences(inputs, outputs)]
    x, y = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return [x, y[:, :warm_up]], y[:, warm_up:]


def _sequences(inputs, outputs):
    """Pairs of arrays (b, t, d) and (b, t, k)."""
    several = [isinstance(v, (list, tuple)) and all(hasattr(one, "shape") for one in v) for v in (inputs, outputs)]
    if not any(several):
        x = series("inputs", inputs)
        return [(x, series("outputs", outputs, x, "inputs"))]
    if not all(several) or len(inputs) != len(outputs) or not inputs:
        found = [f"{len(v)} arrays" if listed else "one" for v, listed in zip((inputs, outputs), several, strict=True)]
        raise ValueError(f"outputs: expected a list of as many arrays as the inputs, {found[0]}, got {found[1]}")
    xs = [series(f"inputs[{i}]", one) for i, one in enumerate(inputs)]
    return [
        (x, series(f"outputs[{i}]", one, x, f"inputs[{i}]")) for i, (x, one) in enumerate(zip(xs, outputs, strict=True))
    ]


def _cut(x, y, length, stride):
    if x.shape[1] < length:
        raise ValueError(
            f"steps: expected pieces no longer than each sequence, got {length} with the warm-up, of {x.shape[1]} steps"
        )
    places = range(0, x.shape[1] - length + 1, stride)
    return [np.concatenate([v[:, i : i + length] for i in places]) for v in (x, y)]

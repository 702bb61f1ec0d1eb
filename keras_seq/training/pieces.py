"""Pieces of measured sequences, for a net that runs on its own outputs after some true ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_seq.arguments import finite_array, positive_integer


def free_run_pieces(
    inputs: Any, outputs: Any, warm_up: int, steps: int, stride: int | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut measured sequences into pieces of a warm-up and a free run, for a fit in stages: short runs first, then longer ones.

    A net in closed loop whose weights are far off soon leaves what was measured; over a few steps its run still says in which
    direction better weights lie, over a thousand it says nothing, or diverges.

    Args:
        inputs: (b, t, d), or (t, d) for one sequence.
        outputs: what was measured with them, (b, t, k), or (t, k).
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
    inputs, outputs = finite_array("inputs", inputs), finite_array("outputs", outputs)
    for name, value in (("inputs", inputs), ("outputs", outputs)):
        if value.ndim not in (2, 3) or value.ndim != inputs.ndim:
            raise ValueError(f"{name}: expected (b, t, d), or (t, d) of one sequence, as the other, got {value.shape}")
    if outputs.shape[:-1] != inputs.shape[:-1]:
        raise ValueError(
            f"outputs: expected as many steps as the inputs, {inputs.shape[:-1]}, got {outputs.shape[:-1]}"
        )
    if inputs.shape[-2] < warm_up + steps:
        raise ValueError(
            f"steps: expected pieces no longer than the sequences, {inputs.shape[-2]} steps, got {warm_up} + {steps}"
        )

    def cut(x):
        places = range(0, x.shape[-2] - warm_up - steps + 1, stride)
        pieces = [x[..., i : i + warm_up + steps, :] for i in places]
        return np.stack(pieces) if x.ndim == 2 else np.concatenate(pieces)

    x, y = cut(inputs), cut(outputs)
    return [x, y[:, :warm_up]], y[:, warm_up:]

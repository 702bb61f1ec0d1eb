"""Being told that nothing is learned."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

import keras

from keras_seq.arguments import positive_integer


class LossWatch(keras.callbacks.Callback):
    """Warns, once each, of a training loss that is no number and of one that does not fall.

    It stops nothing; for that there are `keras.callbacks.TerminateOnNaN` and `EarlyStopping`.

    Args:
        patience: positive integer p.
        least: share in (0, 1) by which the loss must have fallen within the last p epochs.

    Raises:
        TypeError, ValueError: a patience that is no positive integer; a share that is none.

    Warns:
        UserWarning: at the end of an epoch, what the loss is and what it was.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_seq.models import LossWatch
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = np.ones((8, 3)), np.ones((8, 1))
    model.fit(x, y, epochs=3, verbose=0, callbacks=[LossWatch(patience=2, least=1e-6)])
    ```
    """

    patience: int
    least: float

    def __init__(self, patience: int = 3, least: float = 0.01) -> None:
        super().__init__()
        self.patience = positive_integer("patience", patience)
        if isinstance(least, bool) or not isinstance(least, numbers.Real):
            raise TypeError(f"least: expected a number in (0, 1), got {least!r}")
        if not 0 < least < 1:
            raise ValueError(f"least: expected a number in (0, 1), got {least!r}")
        self.least = float(least)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.losses: list[float] = []
        self.said: set[str] = set()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.losses.append(float((logs or {}).get("loss", math.nan)))
        now, before = self.losses[-1], self.losses[: -self.patience]
        if not math.isfinite(now):
            self._say("number", f"the loss of epoch {epoch + 1} is {now}, no finite number")
        elif before and min(self.losses[-self.patience :]) > before[-1] - self.least * abs(before[-1]):
            self._say(
                "still",
                f"the loss has not fallen by {self.least:.2%} in {self.patience} epochs: {before[-1]:.6g} after epoch "
                f"{epoch + 1 - self.patience}, {now:.6g} after epoch {epoch + 1}",
            )

    def _say(self, what, text):
        if what not in self.said:
            self.said.add(what)
            warnings.warn(f"{self.model.name}: {text}", stacklevel=2)

"""A loss whose least is at quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_seq.arguments import finite_array, reduction_or_none, string_or_none
from keras_seq.shapes import static
from keras_seq.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class PinballLoss(keras.losses.Loss):
    """The loss that quantiles make least (Koenker and Bassett 1978): a model learns intervals by it.

        loss(y, z_q) = max(q (y - z_q), (q - 1) (y - z_q)),   the mean over quantiles q and outputs

    A model forecasts q numbers for each output, by rising quantile: `keras.layers.Dense(outputs * q)` at its end. For q =
    0.5 it is half the absolute error. `keras_seq.analysis.quantile_interval` makes intervals of what it forecasts.

    Args:
        quantiles: q rising numbers in (0, 1).
        reduction, name, dtype: as in `keras.losses.Loss`.

    Call arguments:
        y_true: (..., k).
        y_pred: (..., k q), all quantiles of the first output, then all of the second, ...
        sample_weight: as in `keras.losses.Loss`; a Keras mask of the predictions counts likewise.

    Raises:
        TypeError, ValueError: quantiles that are not rising or not in (0, 1); predictions that are not q times as wide.

    Example:

    ```python
    import keras
    import keras_seq
    from keras_seq.training import PinballLoss
    model = keras.Sequential([
        keras.Input((None, 2)), keras_seq.GRU(8, return_sequences=True), keras.layers.Dense(3)
    ])
    model.compile("adam", PinballLoss([0.05, 0.5, 0.95]))
    history = model.fit(keras.random.normal((4, 20, 2)), keras.random.normal((4, 20, 1)), verbose=0)
    ```
    """

    def __init__(
        self,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        reduction: str = "sum_over_batch_size",
        name: str | None = "pinball",
        dtype: DType = None,
    ) -> None:
        super().__init__(name=string_or_none("name", name), reduction=reduction_or_none(reduction), dtype=dtype)
        found = finite_array("quantiles", quantiles)
        if found.ndim != 1 or not len(found) or not np.all(np.diff(found, prepend=0.0, append=1.0) > 0):
            raise ValueError(f"quantiles: expected rising numbers in (0, 1), at least one, got {quantiles!r:.80}")
        self.quantiles = found.tolist()

    def call(self, y_true: Tensor, y_pred: Tensor) -> Any:
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        count, k = len(self.quantiles), static(y_true.shape[-1])
        if len(y_true.shape) != len(y_pred.shape) or (k is not None and y_pred.shape[-1] != k * count):
            raise ValueError(
                f"y_pred: expected {count} quantiles for each of the outputs {tuple(y_true.shape)}, "
                f"got {tuple(y_pred.shape)}"
            )
        q = ops.convert_to_tensor(self.quantiles, dtype=y_pred.dtype)
        over = ops.expand_dims(y_true, -1) - ops.reshape(y_pred, (*ops.shape(y_true), count))
        return ops.mean(ops.maximum(q * over, (q - 1) * over), axis=(-2, -1))

    def get_config(self) -> Config:
        return {**super().get_config(), "quantiles": self.quantiles, "dtype": self.dtype}

"""What the losses that sum up over all ways share: they are taken in 32 bits at least."""

from __future__ import annotations

import keras

from keras_seq.arguments import reduction_or_none, string_or_none
from keras_seq.cells.floats import long_type
from keras_seq.typing import Config, DType


class LongLoss(keras.losses.Loss):
    """A loss in float32 or float64, that of `keras.config.floatx()` or float32 if none is named."""

    def __init__(self, reduction: str | None, name: str | None, dtype: DType) -> None:
        super().__init__(
            name=string_or_none("name", name),
            reduction=reduction_or_none(reduction),
            dtype=dtype or long_type(keras.config.floatx()),
        )
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected float32 or float64, got {self.dtype}")

    def get_config(self) -> Config:
        return {**super().get_config(), "dtype": self.dtype}

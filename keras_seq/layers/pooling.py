"""From many steps to one: the last, the mean or the largest of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from keras_seq.cells.floats import long_type, lowest
from keras_seq.layers.streamable import Streamable
from keras_seq.masking import last_real, where_rows
from keras_seq.shapes import check_sequences, spec_of
from keras_seq.typing import SequenceArguments, Shape, Tensor


class _Pooling(Streamable, keras.layers.Layer):
    """What the three share. Their step form gives at each step what the sequence would if it ended there."""

    return_sequences = False
    state_size = ()

    def __init__(self, **kwargs: Unpack[SequenceArguments]) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, sequences_shape: Shape) -> None:
        self.input_spec = spec_of(sequences_shape)
        self.output_width = sequences_shape[-1]

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        return None

    def compute_output_shape(self, sequences_shape: Shape) -> Any:
        return (sequences_shape[0], sequences_shape[-1])

    def initial_state(self, batch_size: int | Tensor) -> list[Tensor]:
        self._check_stepwise()
        return self.first_state(batch_size)

    def first_state(self, batch_size: int | Tensor) -> list[Tensor]:
        return [ops.zeros((batch_size, self.output_width), dtype=self.compute_dtype)]

    def unchecked_step(
        self, inputs: Tensor, state: Sequence[Tensor], mask: Tensor | None, zeros: bool = True
    ) -> tuple[Tensor, Sequence[Tensor]]:
        state = where_rows(mask, self.update(ops.cast(inputs, self.compute_dtype), state), state)
        return self.result(state), state


def _real(sequences, mask):
    """`(the sequences, zero where the mask hides them, the mask (b, t, 1) as a number, how many real steps (b, 1))`."""
    if mask is None:
        mask = ops.ones_like(sequences[:, :, 0], dtype="bool")
    mask = ops.expand_dims(ops.cast(mask, "bool"), -1)
    return ops.where(mask, sequences, ops.zeros_like(sequences)), mask, ops.sum(ops.cast(mask, sequences.dtype), axis=1)


@keras.saving.register_keras_serializable(package="keras_seq")
class LastStep(_Pooling):
    """The last real step of each row: y = x_l, l the last step that the mask shows; zeros for a row without one.

    Args:
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        sequences: tensor (b, t, d).
        mask: boolean tensor (b, t), True for real steps.

    Raises:
        ValueError: sequences that are not (b, t, d), a mask that is not (b, t).

    Example:

    ```python
    import keras_seq
    import numpy as np
    x = np.arange(6.0).reshape(1, 3, 2)
    y = keras_seq.LastStep()(x, mask=np.array([[True, True, False]]))     # [[2, 3]]
    ```
    """

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        check_sequences(sequences, mask)
        return last_real(sequences, mask)

    def update(self, inputs: Tensor, state: Any) -> Any:
        return [inputs]

    def result(self, state: Any) -> Any:
        return state[0]


@keras.saving.register_keras_serializable(package="keras_seq")
class MaskedMean(_Pooling):
    """The mean of the real steps of each row: y = sum_t m_t x_t / sum_t m_t; zeros for a row without one.

    `keras.layers.GlobalAveragePooling1D` gives NaN for such a row, and wherever a hidden step holds one. Nothing behind the
    mask reaches a value or a gradient here. Sixteen bits are summed in float32.

    Args:
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        sequences: tensor (b, t, d).
        mask: boolean tensor (b, t), True for real steps.

    Raises:
        ValueError: sequences that are not (b, t, d), a mask that is not (b, t).

    Example:

    ```python
    import keras_seq
    import numpy as np
    x = np.arange(6.0).reshape(1, 3, 2)
    y = keras_seq.MaskedMean()(x, mask=np.array([[True, True, False]]))     # [[1, 2]]
    ```
    """

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        check_sequences(sequences, mask)
        shown, _, count = _real(ops.cast(sequences, long_type(self.variable_dtype)), mask)
        return ops.cast(ops.sum(shown, axis=1) / ops.maximum(count, 1), self.compute_dtype)

    def first_state(self, batch_size: int | Tensor) -> list[Tensor]:
        widths = (self.output_width, 1)
        return [ops.zeros((batch_size, width), dtype=long_type(self.variable_dtype)) for width in widths]

    def update(self, inputs: Tensor, state: Any) -> Any:
        mean, count = state
        count = count + 1
        return [mean + (ops.cast(inputs, mean.dtype) - mean) / count, count]

    def result(self, state: Any) -> Any:
        return ops.cast(state[0], self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_seq")
class MaskedMax(_Pooling):
    """The largest of the real steps of each row, feature by feature: y = max_{t: m_t} x_t; zeros for a row without one.

    `keras.layers.GlobalMaxPooling1D` takes no notice of a mask.

    Args:
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        sequences: tensor (b, t, d).
        mask: boolean tensor (b, t), True for real steps.

    Raises:
        ValueError: sequences that are not (b, t, d), a mask that is not (b, t).

    Example:

    ```python
    import keras_seq
    import numpy as np
    x = -np.arange(6.0).reshape(1, 3, 2)
    y = keras_seq.MaskedMax()(x, mask=np.array([[False, True, True]]))     # [[-2, -3]]
    ```
    """

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        check_sequences(sequences, mask)
        shown, mask, count = _real(sequences, mask)
        least = lowest(keras.backend.standardize_dtype(shown.dtype))
        found = ops.max(ops.where(mask, shown, ops.full_like(shown, least)), axis=1, initial=least)  # also of no rows
        return ops.where(count > 0, found, ops.zeros_like(found))

    def first_state(self, batch_size: int | Tensor) -> list[Tensor]:
        return [*super().first_state(batch_size), ops.zeros((batch_size, 1), dtype="bool")]

    def update(self, inputs: Tensor, state: Any) -> Any:
        largest, any_before = state
        return [ops.where(any_before, ops.maximum(largest, inputs), inputs), ops.ones_like(any_before)]

    def result(self, state: Any) -> Any:
        return state[0]

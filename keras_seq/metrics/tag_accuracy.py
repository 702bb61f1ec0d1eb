"""How many tags are right, and which tags an output stands for."""

from __future__ import annotations

import keras
from keras import ops

from keras_seq._keras import carried_mask
from keras_seq.arguments import check_not_negative, string_or_none, tensor
from keras_seq.cells.floats import long_type
from keras_seq.decoding.crf_chain import as_labels, outside_tags
from keras_seq.decoding.viterbi import viterbi
from keras_seq.shapes import fits, static
from keras_seq.typing import DType, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class TagAccuracy(keras.metrics.Metric):
    """Which part of the tags is right, over all real steps.

        accuracy = sum_i a_i [y_i = tag_i] / sum_i a_i,   i over the real steps of all rows, a_i the weight of a step

    Keras's own "accuracy" does not read the potentials of `keras_seq.CRF`, and counts padding where a CRF hides it. Where most
    tags are "O" an accuracy says little: `SpanScores` counts whole spans. Steps are counted over all batches until the metric
    is reset; it does not matter how they are divided. Before the first step the accuracy is 0.

    It is computed by operations of the backend, inside `fit`, under XLA too.

    Args:
        name, dtype: as in Keras; of the counts, None for `keras.config.floatx()`, float32 at least.

    Call arguments (`update_state`):
        y_true: tags (b, t), integers; at steps that are not real, anything.
        y_pred: potentials (b, t, k, k) of `keras_seq.CRF`, whose best tags (`viterbi`) count; scores (b, t, k), of which
            the largest one counts, real where their Keras mask is; or tags (b, t), -1 at steps that are not real.
        sample_weight: (b,) or (b, t), how much a row or a step counts; None for 1 each.

    Returns (`result`):
        A number from 0 to 1.

    Raises:
        TypeError, ValueError: a name that is no string, inputs of other shapes; weights below 0, and labels that are none of
            the k tags, at real steps. In a graph such labels make the accuracy NaN.

    Example:

    ```python
    import numpy as np
    from keras_seq.metrics import TagAccuracy
    metric = TagAccuracy()
    metric.update_state(np.array([[1, 2, 0, 1]]), np.array([[1, 2, 1, -1]]))    # the last step is padding
    print(round(float(metric.result()), 2))                                     # 0.67
    ```
    """

    def __init__(self, name: str | None = "tag_accuracy", dtype: DType = None) -> None:
        super().__init__(name=string_or_none("name", name), dtype=dtype or long_type(keras.config.floatx()))
        self.right, self.count = (
            self.add_variable(shape=(), initializer="zeros", dtype=self.dtype, name=name) for name in ("right", "count")
        )

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        tags, real, size = predicted_tags(y_pred)
        y_true = as_labels("y_true", y_true)
        if not fits(y_true.shape, tags.shape):
            raise ValueError(f"y_true: expected shape {tuple(tags.shape)}, got {tuple(y_true.shape)}")
        weights = ops.cast(real, self.dtype)
        if size is not None:
            weights = ops.where(outside_tags("y_true", y_true, size, real), float("nan"), weights)
        if sample_weight is not None:
            given = ops.cast(sample_weight, self.dtype)
            if not any(fits(given.shape, shape) for shape in (tags.shape[:1], (tags.shape[0], 1), tags.shape)):
                raise ValueError(
                    f"sample_weight: expected one for each row or step, (b,) or (b, t), got shape {tuple(given.shape)}"
                )
            check_not_negative("sample_weight", given)
            weights = weights * (given[:, None] if len(given.shape) == 1 else given)
        right = ops.cast(ops.cast(y_true, self.dtype) == ops.cast(tags, self.dtype), self.dtype)
        self.right.assign_add(ops.sum(right * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.right.value, self.count.value)


def predicted_tags(y_pred, size=None):
    """`(tags (b, t), which steps are real (b, t), k)` of potentials, of scores, or of tags, whose k is not known (None)."""
    mask, y_pred = carried_mask(y_pred), tensor("y_pred", y_pred, "numbers")
    if fits(y_pred.shape, (None, None, size, size)) and fits(y_pred.shape[2:3], y_pred.shape[3:]):
        tags = viterbi(y_pred)[0]
    elif fits(y_pred.shape, (None, None, size)):
        tags = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
    elif len(y_pred.shape) == 2:
        tags = y_pred
    else:
        k = "k" if size is None else size
        raise ValueError(
            f"y_pred: expected potentials (b, t, {k}, {k}), scores (b, t, {k}) or tags (b, t), got shape "
            f"{tuple(y_pred.shape)}"
        )
    real = tags >= 0
    real = real if mask is None else ops.logical_and(real, ops.cast(mask, "bool"))
    return tags, real, static(y_pred.shape[-1]) if len(y_pred.shape) > 2 else None

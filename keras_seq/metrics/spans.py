"""How many spans of a sequence are found: precision, recall and F1 of entities."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_seq.arguments import check_not_negative, one_of, string_or_none
from keras_seq.cells.floats import long_type
from keras_seq.decoding.crf_chain import as_labels, outside_tags
from keras_seq.decoding.ctc_lattice import to_front
from keras_seq.layers.spans import PREFIXES, check_names, parts_of_tag
from keras_seq.metrics.tag_accuracy import predicted_tags
from keras_seq.shapes import fits
from keras_seq.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class SpanScores(keras.metrics.Metric):
    """Precision, recall and F1 of the spans that tags name: a span counts where start, stop and type are all right.

        precision = right / found,   recall = right / there,   F1 = 2 right / (found + there)

    Tags are read as `keras_seq.tags_to_spans` reads them, that is as conlleval and seqeval (by default) do, so that sequences
    that break the scheme, as those of a model without a CRF may, have spans too. Spans are counted over all batches until the
    metric is reset; it does not matter how they are divided. Where there is nothing to divide by, the score is 0.

    It is computed by operations of the backend, inside `fit`, under XLA too.

    Args:
        tags: the names of the k tags, in order: "O", or "B-", "I-", "E-", "S-" before a type.
        average: "micro" for scores of all spans; "macro" for the mean of the scores of the types that are there or are found.
        name, dtype: as in Keras; of the counts, None for `keras.config.floatx()`, float32 at least.

    Call arguments (`update_state`):
        y_true: tags (b, t), integers; at steps that are not real, anything.
        y_pred: potentials (b, t, k, k) of `keras_seq.CRF`, whose best tags (`viterbi`) count; scores (b, t, k), of which
            the largest one counts, real where their Keras mask is; or tags (b, t), -1 at steps that are not real.
        sample_weight: (b,), how much a row counts; None for 1 each.

    Returns (`result`):
        A dict of "precision", "recall" and "f1", so that callbacks can watch "val_f1".

    Raises:
        TypeError, ValueError: tags that are no such names, an unknown average, inputs of other shapes; weights below 0, and
            labels or tags that are none of the k, at real steps. In a graph such labels make the scores NaN.

    Example:

    ```python
    import numpy as np
    from keras_seq.metrics import SpanScores
    metric = SpanScores(["O", "B-day", "I-day"])
    metric.update_state(np.array([[1, 2, 0, 1]]), np.array([[1, 2, 0, 0]]))
    print({name: round(float(x), 2) for name, x in metric.result().items()})
    # {'precision': 1.0, 'recall': 0.5, 'f1': 0.67}
    ```

    Source of what counts: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 shared task", 2003.
    """

    def __init__(
        self, tags: Sequence[str], average: str = "micro", name: str | None = "span_scores", dtype: DType = None
    ) -> None:
        super().__init__(name=string_or_none("name", name), dtype=dtype or long_type(keras.config.floatx()))
        self.tags = check_names(tags)
        self.average = one_of("average", average, ("micro", "macro"))
        parts = [parts_of_tag(tag) for tag in self.tags]
        types = sorted({kind for prefix, kind in parts if prefix != "O"})
        if not types:
            raise ValueError(f"tags: expected a tag of a span, got {self.tags}")
        self.types = len(types)
        # of each tag: its prefix, and its type from 1; 0 for none
        self._prefix = np.array([PREFIXES.index(prefix) for prefix, _ in parts], "int32")
        self._type = np.array([types.index(kind) + 1 if kind else 0 for _, kind in parts], "int32")
        self.right, self.found, self.there = (
            self.add_variable(shape=(self.types,), initializer="zeros", dtype=self.dtype, name=name)
            for name in ("right", "found", "there")
        )

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        found, real, _ = predicted_tags(y_pred, len(self.tags))
        y_true = as_labels("y_true", y_true)
        if not fits(y_true.shape, found.shape):
            raise ValueError(f"y_true: expected shape {tuple(found.shape)}, got {tuple(y_true.shape)}")
        wrong = [outside_tags(name, y, len(self.tags), real) for name, y in (("y_true", y_true), ("y_pred", found))]
        wrong = ops.any(ops.logical_or(*wrong), axis=1)
        real = ops.logical_and(real, ops.logical_not(wrong)[:, None])
        tags = [ops.where(real, ops.cast(y, "int32"), 0) for y in (y_true, found)]
        tags = [to_front(y, real, -1)[0] for y in tags]  # a hidden step parts no span
        there, found = (self._spans(y) for y in tags)
        right = ops.logical_and(*(x == y for x, y in zip(there, found, strict=True)))
        weight = ops.where(wrong[:, None, None], float("nan"), self._weights(sample_weight, y_true))
        for count, (kind, _), counted in (
            (self.right, there, right),
            (self.there, there, ops.ones_like(right)),
            (self.found, found, ops.ones_like(right)),
        ):
            kind = ops.where(counted, kind, ops.zeros_like(kind))
            by_type = ops.cast(kind[..., None] == ops.arange(1, self.types + 1, dtype="int32"), self.dtype)
            count.assign_add(ops.sum(by_type * weight, axis=(0, 1)))

    def result(self) -> dict[str, Tensor]:
        counts = [x.value for x in (self.right, self.found, self.there)]
        if self.average == "micro":
            return dict(zip(("precision", "recall", "f1"), _scores(*map(ops.sum, counts)), strict=True))
        seen = ops.cast(counts[1] + counts[2] > 0, self.dtype)
        means = [_ratio(ops.sum(x * seen), ops.sum(seen)) for x in _scores(*counts)]
        return dict(zip(("precision", "recall", "f1"), means, strict=True))

    def get_config(self) -> Config:
        return {**super().get_config(), "tags": self.tags, "average": self.average}

    def _spans(self, tags):
        """`(types (b, t), starts (b, t))` of the spans that end at each step, types 0 where none does."""
        tags = ops.pad(tags, ((0, 0), (0, 1)), constant_values=-1)
        outside = tags < 0
        tags = ops.maximum(tags, 0)
        prefix = ops.where(outside, 0, ops.take(self._prefix, tags))
        kind = ops.where(outside, 0, ops.take(self._type, tags))
        before, now = prefix[:, :-1], prefix[:, 1:]
        opened = _any_of(before, "BI")
        goes_on = ops.logical_and(ops.logical_and(opened, _any_of(now, "IE")), kind[:, :-1] == kind[:, 1:])
        ends = ops.logical_and(before != 0, ops.logical_not(goes_on))
        starts = ops.logical_and(before != 0, ops.logical_not(ops.pad(goes_on[:, :-1], ((0, 0), (1, 0)))))
        places = ops.broadcast_to(ops.arange(ops.shape(starts)[1], dtype="int32"), ops.shape(starts))
        ordered = to_front(places, starts, 0)[0]  # where the n-th span starts
        number = ops.cumsum(ops.cast(starts, "int32"), axis=1)
        start = ops.take_along_axis(ordered, ops.maximum(number - 1, 0), axis=1)
        return ops.where(ends, kind[:, :-1], 0), start

    def _weights(self, sample_weight, y_true):
        """How much each row counts, (b, 1, 1) or (1, 1, 1)."""
        if sample_weight is None:
            return ops.ones((1, 1, 1), dtype=self.dtype)
        weight = ops.cast(sample_weight, self.dtype)
        if not any(fits(weight.shape, shape) for shape in ((y_true.shape[0],), (y_true.shape[0], 1))):
            raise ValueError(f"sample_weight: expected one for each row, (b,), got shape {tuple(weight.shape)}")
        check_not_negative("sample_weight", weight)
        return ops.reshape(weight, (-1, 1, 1))


def _any_of(prefix, which):
    """Where the prefix is one of these."""
    return ops.any(prefix[..., None] == ops.convert_to_tensor([PREFIXES.index(x) for x in which]), axis=-1)


def _scores(right, found, there):
    return _ratio(right, found), _ratio(right, there), _ratio(2 * right, found + there)


def _ratio(x, y):
    """x / y, 0 where y is 0."""
    return ops.where(y == 0, ops.zeros_like(y), x / ops.where(y == 0, ops.ones_like(y), y))

"""How likely a model finds a text: perplexity, and bits per character."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_seq.arguments import check_not_negative, string_or_none
from keras_seq.cells.floats import long_type
from keras_seq.decoding.tokens import checked
from keras_seq.shapes import fits
from keras_seq.typing import Config, DType, Tensor


class _Likelihood(keras.metrics.Metric):
    """The mean of -ln P over all tokens of all batches, weighted: one sum and one count, whatever the batches are."""

    def __init__(self, pad: int = 0, name: str | None = None, dtype: DType = None) -> None:
        super().__init__(
            name=string_or_none("name", name) or self.title, dtype=dtype or long_type(keras.config.floatx())
        )
        if pad is not None and (isinstance(pad, bool) or not isinstance(pad, int)):
            raise TypeError(f"pad: expected an integer or None, got {pad!r}")
        self.pad = pad
        self.nats = self.add_variable(shape=(), initializer="zeros", dtype=self.dtype, name="nats")
        self.count = self.add_variable(shape=(), initializer="zeros", dtype=self.dtype, name="count")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        targets, logits = ops.convert_to_tensor(y_true), ops.cast(y_pred, self.dtype)
        if not fits(logits.shape[:-1], targets.shape) or logits.shape[-1] is None:
            raise ValueError(
                f"y_pred: expected logits (.., v), v known, for targets of shape {tuple(targets.shape)}, got "
                f"{tuple(logits.shape)}"
            )
        weights = ops.ones(ops.shape(targets), dtype=self.dtype)
        if sample_weight is not None:
            given = ops.cast(sample_weight, self.dtype)
            if not any(fits(given.shape, targets.shape[:n]) for n in (1, len(targets.shape))):
                raise ValueError(
                    f"sample_weight: expected one per row, or of shape {tuple(targets.shape)}, got {tuple(given.shape)}"
                )
            check_not_negative("sample_weight", given)
            weights = weights * ops.reshape(given, (*ops.shape(given), *[1] * (len(targets.shape) - len(given.shape))))
        if self.pad is not None:
            weights = ops.where(ops.equal(targets, self.pad), ops.zeros_like(weights), weights)
        real = weights > 0
        targets, wrong = checked("y_true", ops.where(real, targets, ops.zeros_like(targets)), logits.shape[-1])
        chosen = ops.take_along_axis(logits, ops.expand_dims(targets, -1), axis=-1)[..., 0]
        nats = ops.logsumexp(logits, axis=-1) - chosen
        nats = nats if wrong is None else ops.where(wrong, float("nan"), nats)
        self.nats.assign_add(ops.sum(ops.where(real, nats, ops.zeros_like(nats)) * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        return self.scaled(self.nats / self.count)

    def get_config(self) -> Config:
        return {**super().get_config(), "pad": self.pad}


@keras.saving.register_keras_serializable(package="keras_seq")
class Perplexity(_Likelihood):
    """exp of the mean negative log-likelihood of the targets: how many equally likely tokens there are to choose from.

        exp(- sum_i a_i ln softmax(z_i)_{w_i} / sum_i a_i),   a_i the weight of a target, 0 for padding

    Sums run over all batches until the metric is reset, so that batches of any length count by their tokens.

    Args:
        pad: the target that is left out; None for none.
        name: as in Keras.
        dtype: of the sums; None for `keras.config.floatx()`, float32 at least.

    Call arguments (`update_state`):
        y_true: integer targets (b, t), 0 .. v - 1 or `pad`; what has no weight may be anything.
        y_pred: logits (b, t, v).
        sample_weight: weights (b, t), or one per row (b,), or None.

    Returns (`result`):
        A number of 1 or more; NaN before the first target.

    Raises:
        TypeError, ValueError: a pad that is no integer; logits or weights of another shape than the targets; targets that are
            none of the v, in a graph of TensorFlow an `InvalidArgumentError` when it runs. Under XLA the result is NaN.

    Example:

    ```python
    import numpy as np
    from keras_seq.metrics import Perplexity
    metric = Perplexity()
    metric.update_state(np.array([[1, 2, 0]]), np.zeros((1, 3, 4)))      # any of four, and padding
    print(float(metric.result()))                                        # 4.0
    ```
    """

    title = "perplexity"

    def scaled(self, nats: Tensor) -> Tensor:
        return ops.exp(nats)


@keras.saving.register_keras_serializable(package="keras_seq")
class BitsPerCharacter(_Likelihood):
    """The mean negative log-likelihood of the targets in bits, where a token is a character.

        - sum_i a_i log2 softmax(z_i)_{w_i} / sum_i a_i,   a_i the weight of a target, 0 for padding

    As many bits per character an arithmetic coder would need with this model. In nats it is ln 2 = 0.693 times as much.

    Args:
        pad: the target that is left out; None for none.
        name: as in Keras.
        dtype: of the sums; None for `keras.config.floatx()`, float32 at least.

    Call arguments (`update_state`):
        y_true: integer targets (b, t), 0 .. v - 1 or `pad`; what has no weight may be anything.
        y_pred: logits (b, t, v).
        sample_weight: weights (b, t), or one per row (b,), or None.

    Returns (`result`):
        A number of 0 or more; NaN before the first target.

    Raises:
        TypeError, ValueError: a pad that is no integer; logits or weights of another shape than the targets; targets that are
            none of the v, in a graph of TensorFlow an `InvalidArgumentError` when it runs. Under XLA the result is NaN.

    Example:

    ```python
    import numpy as np
    from keras_seq.metrics import BitsPerCharacter
    metric = BitsPerCharacter()
    metric.update_state(np.array([[1, 2, 0]]), np.zeros((1, 3, 4)))      # any of four, and padding
    print(float(metric.result()))                                        # 2.0
    ```
    """

    title = "bits_per_character"

    def scaled(self, nats: Tensor) -> Tensor:
        return nats / math.log(2)

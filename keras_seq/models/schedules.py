"""How the share of true tokens falls while a decoder is trained."""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
from keras import ops

from keras_seq.typing import Config, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class InverseSigmoidDecay(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule of scheduled sampling that falls slowly, then fast, then slowly (Bengio et al. 2015).

        e(i) = k / (k + exp(i / k)),   i the training step

    It is a half at step k ln k. The others of the paper are Keras's own, in `keras.optimizers.schedules`: exponential,
    e(i) = k^i, is `ExponentialDecay(1.0, 1, k)`; linear, e(i) = max(e, k - c i), is `PolynomialDecay(k, (k - e) / c, e)`.

    Args:
        k: number of at least 1.

    Raises:
        TypeError, ValueError: a k that is none.

    Example:

    ```python
    from keras_seq.models import InverseSigmoidDecay
    share = InverseSigmoidDecay(100.0)
    print(float(share(0)), float(share(461)), float(share(2000)))     # 0.99, 0.5, 0.0
    ```
    """

    def __init__(self, k: float) -> None:
        if isinstance(k, bool) or not isinstance(k, numbers.Real):
            raise TypeError(f"k: expected a number of at least 1, got {k!r}")
        if not 1 <= k < math.inf:
            raise ValueError(f"k: expected a number of at least 1, got {k!r}")
        self.k: float = float(k)

    def __call__(self, step: Any) -> Tensor:
        # k / (k + e^x) as a logistic function, which does not overflow
        return ops.sigmoid(math.log(self.k) - ops.cast(step, "float32") / self.k)

    def get_config(self) -> Config:
        return {"k": self.k}

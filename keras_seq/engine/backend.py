"""What the engine has for the Keras backend in use; on TensorFlow all, on others what Keras has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

scan: Callable[..., Any] | None = None
"""The loop over time, or None where Keras's own has to serve."""
scan_levels: Callable[..., Any] | None = None
"""The loop over the levels of trees, or None where there is none."""


def uniform(shape: Any, generator: Any) -> Any:
    """Random numbers of [0, 1) from a `keras.random.SeedGenerator`."""
    return keras.random.uniform(shape, dtype="float32", seed=generator)


if keras.config.backend() == "tensorflow":
    from keras_seq.engine.tensorflow import scan, scan_levels, uniform  # noqa: F401

"""The names that signatures use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypedDict

import keras

Tensor: TypeAlias = Any
"""A tensor of the backend or of Keras, or what becomes one: an array, a number, a nested list of them."""
Shape: TypeAlias = Sequence[Any]
"""Of a tensor, its sizes, None where any is meant; of several, a shape each."""
Config: TypeAlias = dict[str, Any]
"""What `get_config` says and `from_config` takes."""
DType: TypeAlias = str | keras.DTypePolicy | Config | None
"""A type, such as "float32", or a policy, such as "mixed_bfloat16"; None for that of Keras."""
Activation: TypeAlias = str | Callable[[Any], Any] | Config | None
"""As in Keras: a name, a function, or what a config says of one; None for none."""
Initializer: TypeAlias = str | Callable[..., Any] | Config | None
"""Likewise."""
Regularizer: TypeAlias = str | Callable[[Any], Any] | Config | None
"""Likewise."""
Constraint: TypeAlias = str | Callable[[Any], Any] | Config | None
"""Likewise."""
Step: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
"""What a decoder asks: (tokens (n,), state) to (logits (n, v), new state)."""


class LayerArguments(TypedDict, total=False):
    """The arguments that every layer of Keras takes by name."""

    name: str | None
    dtype: DType
    trainable: bool
    autocast: bool
    activity_regularizer: Regularizer
    input_shape: Shape | None
    input_dim: int | None


class SequenceArguments(LayerArguments, total=False):
    """Those that a layer over a sequence takes."""

    input_length: int | None

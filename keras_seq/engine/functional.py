"""Pure functions from functions that read variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras


def functional(function: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., Any]:
    """`function(*args)`, which reads the variables, as a function `(weights, *args)` of their values, a list of tensors."""

    def pure(weights: Sequence[Any], *args: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            return function(*args)

    return pure

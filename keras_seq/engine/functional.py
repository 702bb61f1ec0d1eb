"""Pure functions from functions that read variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras


def functional(function: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., Any]:
    """`function(*args)`, which reads the variables, as a function `(weights, *args)` of their values, a list of tensors.

    With None for the weights the variables are as they are, and what the function assigns to others is kept.
    """

    def pure(weights: Sequence[Any] | None, *args: Any) -> Any:
        if weights is None:
            return function(*args)
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            return function(*args)

    return pure

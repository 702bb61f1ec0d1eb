"""`dot` marks a product with the state inside a cell's step, so that an engine can take it over."""

import contextlib
import threading

from keras import ops

_local = threading.local()


def dot(x, kernel):
    """The product `x @ kernel` inside `Cell.step`, marked for the engine.

    Outside an engine it is `keras.ops.matmul`. Inside one, its result is kept for the backward pass and the gradient of
    `kernel` is left out of the loop over time and computed by one product over all steps. Three conditions:

    - `kernel` is a matrix made of weights and constants alone (a weight, a slice or a transpose of one, ...),
      never of a state or an input: the engine computes it once, before the loop.
    - A step calls `dot` equally often and in the same order each time.
    - Products with anything else than weights are plain `keras.ops`: always right, only not as fast.

    Args:
        x: tensor (..., n), a state or anything computed from states and inputs.
        kernel: matrix (n, m).

    Returns:
        Tensor (..., m).

    Example:

    ```python
    import numpy as np
    from keras_seq import dot
    y = dot(np.ones((2, 3), "float32"), np.ones((3, 4), "float32"))   # (2, 4)
    ```
    """
    handler = getattr(_local, "handler", None)
    return ops.matmul(x, kernel) if handler is None else handler(x, kernel)


@contextlib.contextmanager
def handling(handler):
    """While this context is entered, `dot(x, kernel)` is `handler(x, kernel)`."""
    outer = getattr(_local, "handler", None)
    _local.handler = handler
    try:
        yield
    finally:
        _local.handler = outer


@contextlib.contextmanager
def dropping(mask):
    """While this context is entered, every `dot` multiplies its `x` by `mask` first (recurrent dropout).

    `mask` is (b, n), or None for no dropout.
    """
    if mask is None:
        yield
        return
    outer = getattr(_local, "handler", None) or ops.matmul

    def masked(x, kernel):
        if x.shape[-1] != mask.shape[-1]:
            raise ValueError(
                f"recurrent_dropout: expected every `dot` of the step to read a tensor of the width of the first state, "
                f"{mask.shape[-1]}, got one of width {x.shape[-1]}"
            )
        return outer(x * mask, kernel)

    with handling(masked):
        yield

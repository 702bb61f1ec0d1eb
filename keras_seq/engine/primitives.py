"""What a step marks for those who run it: products with the state (`dot`), and values worth seeing (`expose`)."""

from __future__ import annotations

import contextlib
import threading

from keras import backend, ops

from keras_seq.typing import Tensor

_local = threading.local()


def dot(x: Tensor, kernel: Tensor, dropout: bool = True, short: bool = True) -> Tensor:
    """The product `x @ kernel` inside `Cell.step`, marked for the engine.

    Outside an engine it is `keras.ops.matmul`. Inside one, its result is kept for the backward pass and the gradient of
    `kernel` is left out of the loop over time and computed by one product over all steps. Three conditions:

    - `kernel` is a matrix made of weights and constants alone (a weight, a slice or a transpose of one, ...),
      never of a state or an input: the engine computes it once, before the loop.
    - A step calls `dot` equally often and in the same order each time.
    - Products with anything else than weights are plain `keras.ops`: always right, only not as fast.

    Under a mixed policy the product is taken in the short type and given in that of `x`.

    Args:
        x: tensor (..., n), a state or anything computed from states and inputs.
        kernel: matrix (n, m).
        dropout: False for a product that recurrent dropout leaves alone, as its `x` is not the first state.
        short: False for a product that is taken in the long type all the same, as its result is what is added up.

    Returns:
        Tensor (..., m), of the type of `x`.

    Example:

    ```python
    import numpy as np
    from keras_seq import dot
    y = dot(np.ones((2, 3), "float32"), np.ones((3, 4), "float32"))   # (2, 4)
    ```
    """
    for name, value in (("x", x), ("kernel", kernel)):
        if not hasattr(value, "shape"):
            raise TypeError(f"{name} of dot: expected a tensor, got {value!r:.80}")
    if len(kernel.shape) != 2 or (None not in (x.shape[-1], kernel.shape[0]) and x.shape[-1] != kernel.shape[0]):
        raise ValueError(f"kernel of dot: expected a matrix ({x.shape[-1]}, m), got {tuple(kernel.shape)}")
    mask = getattr(_local, "dropped", None)
    if mask is not None and dropout:
        if x.shape[-1] != mask.shape[-1]:
            raise ValueError(
                f"recurrent_dropout: expected every `dot` of the step to read a tensor of the width of the first state, "
                f"{mask.shape[-1]}, or to say dropout=False, got one of width {x.shape[-1]}"
            )
        x = x * mask
    types = [backend.standardize_dtype(v.dtype) for v in (x, kernel)]
    if len({"complex" in t for t in types}) > 1:
        raise TypeError(f"kernel of dot: expected complex numbers where x has some, and only there, got {types}")
    dtype = getattr(_local, "dtype", None)
    if dtype is not None and short:
        kernel = ops.cast(kernel, dtype)
    return (getattr(_local, "handler", None) or _product)(x, kernel)


def _product(x, kernel):
    """x @ kernel in the type of the kernel, as one of the type of x."""
    if "complex" in backend.standardize_dtype(kernel.dtype):
        return x @ kernel  # Keras's would round complex128
    return ops.cast(ops.matmul(ops.cast(x, kernel.dtype), kernel), x.dtype)


def expose(**values: Tensor) -> None:
    """Name values of a step, tensors (b, width), for a layer with `return_internals=True`; else it does nothing.

    Names are the field's: `input_gate`, `forget_gate`, `candidate`, `cell`, `hidden`, ... A step names the same ones
    each time.

    Example:

    ```python
    import keras_seq
    from keras import ops

    class Leaky(keras_seq.Cell):
        state_names, state_size, output_size = ("h",), [3], 3

        def step(self, projected, states, constants=()):
            leak = ops.sigmoid(projected)
            h = leak * states[0] + (1 - leak) * projected
            keras_seq.expose(leak=leak, hidden=h)
            return h, (h,)

    y, internals = keras_seq.RNN(Leaky(), return_internals=True)(ops.ones((2, 5, 3)))
    internals["leak"]   # (2, 5, 3)
    ```
    """
    found = getattr(_local, "exposed", None)
    name, gathered = getattr(_local, "gathered", None) or (None, [])
    if name in values:
        gathered.append(values[name])
    if found is not None:
        twice = sorted(set(values) & set(found))
        if twice:
            raise ValueError(f"expose: expected each name once in a step, got {twice[0]!r} again")
        found.update(values)


def replace_exposed(old, new):
    """Expose the tensor `new` wherever a step exposed `old`: zoneout changes a state after the step has named it."""
    found = getattr(_local, "exposed", None) or {}
    found.update({name: new for name, value in found.items() if value is old})


@contextlib.contextmanager
def _local_value(name, value):
    before = getattr(_local, name, None)
    setattr(_local, name, value)
    try:
        yield value
    finally:
        setattr(_local, name, before)


def intercept_dot(handler):
    """While this context is entered, `dot(x, kernel)` is `handler(x, kernel)`."""
    return _local_value("handler", handler)


def recurrent_dropout_mask(mask):
    """While this context is entered, every `dot` multiplies its `x` by `mask` (b, n) first; None for no dropout."""
    return _local_value("dropped", mask)


def dot_dtype(dtype):
    """While this context is entered, every `dot` is taken in this type; None for that of its kernel."""
    return _local_value("dtype", dtype)


def perturb_states(watch):
    """While this context is entered, what `watch` gives is added to the new states of a loop; see `perturbations`."""
    return _local_value("watch", watch)


def perturbations(layer, states, sizes, mask):
    """What a layer that is called adds to its new states at each step, before they are read: None for nothing.

    Else a list of tensors (b, t, n), one for each of the states (b, n); `sizes` are b and t. Zeros change nothing, and their
    gradients are those of the states.
    """
    watch = getattr(_local, "watch", None)
    return None if watch is None else watch(layer, states, sizes, mask)


def capture_intermediates(wanted=True):
    """While this context is entered, its value is a dict of what `expose` names; None if not `wanted`."""
    return _local_value("exposed", {} if wanted else None)


@contextlib.contextmanager
def capture_every(name):
    """While this context is entered, its value is a list of all that is exposed under this name, by several steps too."""
    with _local_value("gathered", (name, [])) as (_, found):
        yield found


@contextlib.contextmanager
def capture_solutions():
    """While this context is entered, its value is a list of what solvers report, a dict for each of their runs."""
    with _local_value("solutions", []) as found:
        yield found


def report_solution(**values):
    """Say how a solver fared, to who listens."""
    listening = getattr(_local, "solutions", None)
    if listening is not None:
        listening.append(values)

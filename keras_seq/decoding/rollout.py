"""One to many: a step's output is the next step's input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops, tree

from keras_seq.arguments import positive_integer
from keras_seq.typing import Step, Tensor


def feed_back(
    step: Step,
    inputs: Tensor,
    state: Any,
    steps: int,
    feed: Callable[[Tensor], Tensor] | None = None,
    ended: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Run a step on its own outputs, from one first input.

        y_t, s_t = step(x_t, s_{t-1});   x_{t+1} = feed(y_t),   t = 1 .. steps

    One loop of `keras.ops`, so that it compiles under XLA and runs in a SavedModel. With `ended` it stops as soon as every
    row has ended; what follows in a row is zero.

    Args:
        step: function `(x (b, ..), state) -> (y (b, ..), state)`: the step of a layer, or of `keras_seq.streaming(model)`.
        inputs: x_1, rows along the first axis.
        state: its first state, any nest of tensors.
        steps: positive integer, how many steps to run at the most.
        feed: what makes the next input of an output, of the same shape and type as `inputs`; None to feed y itself. It may
            draw random numbers (`keras.random.categorical` with a `keras.random.SeedGenerator`).
        ended: function from x_{t+1} to a boolean (b,), whether it ends its row; None to run all steps.

    Returns:
        x_2 .. x_{steps+1}: tensor (b, steps, ..).

    Raises:
        TypeError, ValueError: steps that is no positive integer; an x_2 of another shape than x_1.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.SimpleRNN(3)
    layer.build((None, None, 3))
    y = keras_seq.decoding.feed_back(layer.step, ops.ones((2, 3)), layer.initial_state(2), steps=7)    # (2, 7, 3)
    ```
    """
    steps = positive_integer("steps", steps)
    inputs = ops.convert_to_tensor(inputs)

    def one(x, state):
        y, state = step(x, state)
        y = y if feed is None else feed(y)
        if len(y.shape) != len(x.shape) or tuple(y.shape[1:]) != tuple(x.shape[1:]):
            raise ValueError(f"feed: expected the next input, of shape {tuple(x.shape)}, got {tuple(y.shape)}")
        return ops.cast(y, x.dtype), state

    def unfinished(index, x, done, *_):
        return ops.logical_and(index < steps, ops.logical_not(ops.all(done)))

    def body(index, x, done, found, *flat):
        y, new = one(x, tree.pack_sequence_as(state, list(flat)))
        y = ops.where(ops.reshape(done, (-1, *[1] * (len(y.shape) - 1))), ops.zeros_like(y), y)
        found = ops.slice_update(found, [index, *[0] * len(y.shape)], ops.expand_dims(y, 0))
        done = done if ended is None else ops.logical_or(done, ended(y))
        return index + 1, y, done, found, *tree.flatten(new)

    rows = ops.shape(inputs)[:1]
    start = (
        ops.convert_to_tensor(0, dtype="int32"),
        inputs,
        ops.zeros(rows, dtype="bool"),
        ops.zeros((steps, *ops.shape(inputs)), dtype=inputs.dtype),
    )
    found = ops.while_loop(unfinished, body, (*start, *tree.flatten(state)))[3]
    return ops.swapaxes(found, 0, 1)

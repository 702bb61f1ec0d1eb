"""Real-time recurrent learning: gradients that are carried forward with the states, in memory that does not grow."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_seq.arguments import positive_integer
from keras_seq.cells.base import Cell
from keras_seq.engine.tensorflow.arrays import swap
from keras_seq.training.forward_gradient import ForwardGradient


class RTRL(ForwardGradient):
    """Exact gradients of a memory that are carried forward: real-time recurrent learning.

        M_t = J_t M_{t-1} + I_t,   J_t = ds_t / ds_{t-1},   I_t = ds_t / dw with s_{t-1} held
        dL_t / dw = (dL_t / ds_{t-1}) M_{t-1} + dL_t / dw with s_{t-1} held

    Over a sequence the sum of the gradients of all steps is that of backpropagation through time, for any cell; but
    nothing of the past is kept except M: the weights may be changed after each step of a stream that does not end (the
    gradient then is that of weights that moved slowly).

    With n the widths of all states together and p the number of weights, a row carries n p numbers and takes n^2 p
    multiplications a step: for a memory of u units of which each reads all, u^3 and u^4.

    Source: Williams and Zipser, "A learning algorithm for continually running fully recurrent neural networks", Neural
    Computation 1(2), 1989.

    Args:
        cell: a built `keras_seq.Cell`, without dropout and zoneout; constants with a row for each row of the batch.
        max_bytes: positive integer, how much may be carried.

    Raises:
        TypeError, ValueError: another cell; from `initial_state` a batch with which more would be carried.

    Notes:
        Through the states of a cell that blocks gradients M reaches nothing: the gradient is that of each step alone, as in
        its layer.

    Example:

    ```python
    import keras
    import keras_seq
    from keras import ops
    from keras_seq.training import RTRL

    cell = keras_seq.GRUCell(4)
    cell.build((None, 2))
    rule, optimizer = RTRL(cell), keras.optimizers.SGD(0.1)
    state = rule.initial_state(1)
    for x, target in [(0.5, 0.1), (-1.0, 0.4), (0.2, 0.0)]:
        loss, y, gradients, state = rule.step(
            ops.full((1, 2), x), state, lambda y: ops.mean((y - target) ** 2)
        )
        optimizer.apply(gradients, rule.weights)
    ```
    """

    def __init__(self, cell: Cell, max_bytes: int = 2**31) -> None:
        super().__init__(cell)
        self.max_bytes = positive_integer("max_bytes", max_bytes)

    def _begin(self, rows, learned):
        width = learned[0].shape[0]
        count = sum(math.prod(m.shape[1:]) for m in learned)
        size = rows * width * count * learned[0].dtype.size
        if size > self.max_bytes:
            raise ValueError(
                f"batch_size: expected what is carried to take at most {self.max_bytes} bytes, got {size}: "
                f"{rows} rows, {width} numbers of state, {count} weights"
            )
        return [tf.repeat(m[None], rows, axis=0) for m in learned]

    def _pull(self, dstates, carried):
        return [tf.tensordot(dstates, m, [[0, 1], [0, 1]]) for m in carried]

    def _advance(self, jacobian, carried, weight_vjp):
        rows, width = tf.shape(jacobian)[0], jacobian.shape[-1]
        each_unit = tf.tile(tf.eye(width, dtype=jacobian.dtype)[:, None], [1, rows, 1])
        found = []
        for m, immediate in zip(carried, weight_vjp(each_unit), strict=True):
            through = tf.matmul(jacobian, tf.reshape(m, (rows, width, -1)))
            found.append(tf.reshape(through, tf.shape(m)) + swap(immediate))
        return found

"""Gradients that are carried forward, of which only a part is kept: SnAp-1 and UORO."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_seq.arguments import integer_or_none
from keras_seq.cells.base import Cell
from keras_seq.engine.tensorflow.arrays import swap
from keras_seq.training.forward_gradient import ForwardGradient


class SnAp1(ForwardGradient):
    """Gradients of a memory, carried forward for those states alone that a weight reaches in one step: SnAp-1.

    As `RTRL`, but of M only the entries of those units are kept that I_t has entries of: a weight of a gate of unit j changes,
    within a step, the states of unit j. Exact where units do not read each other; else an approximation that leaves out what
    goes from unit to unit and back.

    With k states of u units each, n = k u, and p weights, a row carries k p numbers, and a step takes k^2 p
    multiplications, the Jacobian of the states (n backward steps) and k of the weights.

    Source: Menick et al., "A practical sparse approximation for real time recurrent learning", ICLR 2021.

    Args:
        cell: as in `RTRL`, without constants, with states of one width; each weight reaches at most one unit within a step.

    Raises:
        TypeError, ValueError: another cell.

    Example:

    ```python
    import keras_seq
    from keras import ops
    from keras_seq.training import SnAp1

    cell = keras_seq.GRUCell(4)
    cell.build((None, 2))
    rule = SnAp1(cell)
    state = rule.initial_state(3)
    loss, y, gradients, state = rule.step(ops.ones((3, 2)), state, lambda y: ops.mean(y**2))
    ```
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        if cell.constant_names:
            raise ValueError(f"cell: expected one that reads no constants, got {cell.name} (RTRL takes it)")
        self._units = cell.state_size[0]
        if set(cell.state_size) != {self._units}:
            raise ValueError(
                f"cell: expected one whose states have one width, got {cell.name} with {list(cell.state_size)}"
            )
        self._count = len(cell.state_size)
        self._reached = [self._places(pattern) for pattern in self._patterns()]

    def _patterns(self):
        """For each weight, (u, ...): whether it changes a state of each unit, in one step from random states."""
        random, dtype = np.random.default_rng(0), self.weights[0].dtype

        def numbers(width):
            return tf.constant(random.normal(size=(3, width)), dtype)

        n = self._count * self._units
        states, inputs = [numbers(self._units) for _ in range(self._count)], numbers(_input_width(self.cell))
        each = tf.tile(tf.eye(n, dtype=dtype)[:, None], [1, 3, 1])
        found = [np.any(g.numpy() != 0, axis=1) for g in self._weight_vjp(inputs, states, (), each)]
        return [np.any(f.reshape(self._count, self._units, *f.shape[1:]), axis=0) for f in found]

    def _places(self, pattern):
        """For each state, (k, ...): the place among all states of the unit that each entry of a weight reaches."""
        if (pattern.sum(axis=0) > 1).any():
            raise ValueError(
                f"cell: expected one whose weights reach one unit each within a step, got {self.cell.name}, of which one "
                "reaches several (RTRL takes any cell)"
            )
        unit = pattern.argmax(axis=0)
        return np.stack([unit + i * self._units for i in range(self._count)])

    def _begin(self, rows, learned):
        self._refuse_learned_states()
        return [tf.zeros((rows, self._count, *m.shape[1:]), m.dtype) for m in learned]

    def _pull(self, dstates, carried):
        each = zip(carried, self._reached, strict=True)
        return [tf.reduce_sum(tf.gather(dstates, places, axis=1) * m, axis=[0, 1]) for m, places in each]

    def _advance(self, jacobian, carried, weight_vjp):
        n = self._count * self._units
        # all units of a state together, as a weight reaches but one of them
        of_a_state = np.repeat(np.eye(self._count), self._units, axis=1)
        together = tf.tile(tf.constant(of_a_state, jacobian.dtype)[:, None], [1, tf.shape(jacobian)[0], 1])
        flat, found = tf.reshape(jacobian, (-1, n * n)), []
        for m, places, immediate in zip(carried, self._reached, weight_vjp(together), strict=True):
            between = tf.gather(flat, places[:, None] * n + places[None], axis=1)  # (b, k, k, ...)
            found.append(tf.einsum("bij...,bj...->bi...", between, m) + swap(immediate))
        return found


class UORO(ForwardGradient):
    """Unbiased gradients of a memory, carried forward as one product for each row: unbiased online recurrent optimization.

        s~_t = rho_0 J_t s~_{t-1} + rho_1 v,   w~_t = w~_{t-1} / rho_0 + v^T I_t / rho_1,   v of random signs
        dL_t / dw = (dL_t / ds_{t-1} s~_{t-1}) w~_{t-1} + dL_t / dw with s_{t-1} held

    with J and I as in `RTRL`: the mean of s~ w~ over v is M. rho_0 = sqrt(|w~_{t-1}| / |J s~_{t-1}|) and
    rho_1 = sqrt(|v^T I| / |v|) keep the variance low. A row carries n + p numbers.

    Source: Tallec and Ollivier, "Unbiased online recurrent optimization", ICLR 2018.

    Args:
        cell: as in `RTRL`.
        seed: integer for the random signs, None for one of Keras's own.

    Raises:
        TypeError, ValueError: another cell, or seed.

    Example:

    ```python
    import keras_seq
    from keras import ops
    from keras_seq.training import UORO

    cell = keras_seq.LSTMCell(4)
    cell.build((None, 2))
    rule = UORO(cell, seed=1)
    state = rule.initial_state(3)
    loss, y, gradients, state = rule.step(ops.ones((3, 2)), state, lambda y: ops.mean(y**2))
    ```
    """

    def __init__(self, cell: Cell, seed: int | None = None) -> None:
        super().__init__(cell)
        self.seed = integer_or_none("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def _begin(self, rows, learned):
        self._refuse_learned_states()
        zeros = [tf.zeros((rows, *m.shape[1:]), m.dtype) for m in learned]
        return [tf.zeros((rows, learned[0].shape[0]), learned[0].dtype), *zeros]

    def _pull(self, dstates, carried):
        along, *carried = carried
        share = tf.reduce_sum(dstates * along, axis=-1)
        return [tf.tensordot(share, w, [[0], [0]]) for w in carried]

    def _advance(self, jacobian, carried, weight_vjp):
        along, *carried = carried
        rows = tf.shape(along)[0]
        signs = tf.cast(keras.random.randint(tf.shape(along), 0, 2, seed=self.seed_generator) * 2 - 1, along.dtype)
        now = [g[0] for g in weight_vjp(signs[None])]
        moved = tf.linalg.matvec(jacobian, along)

        def norm(tensors):
            return tf.sqrt(sum(tf.reduce_sum(tf.reshape(x, (rows, -1)) ** 2, axis=-1) for x in tensors))

        tiny = 1e-7
        rho_0 = tf.sqrt(norm(carried) / (norm([moved]) + tiny)) + tiny
        rho_1 = tf.sqrt(norm(now) / norm([signs])) + tiny

        def scaled(x, by):
            return x * tf.reshape(by, (-1, *[1] * (len(x.shape) - 1)))

        kept = [scaled(w, 1 / rho_0) + scaled(n, 1 / rho_1) for w, n in zip(carried, now, strict=True)]
        return [scaled(moved, rho_0) + scaled(signs, rho_1), *kept]


def _input_width(cell):
    """The width of the inputs that a built cell was built for."""
    return cell.get_build_config()["input_shape"][-1]

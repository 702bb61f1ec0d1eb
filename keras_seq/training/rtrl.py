"""Real-time recurrent learning: gradients that are carried forward with the states, in memory that does not grow."""

from __future__ import annotations

import abc
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_seq.arguments import integer_or_none, needs_tensorflow, positive_integer
from keras_seq.cells.base import Cell
from keras_seq.cells.functional import functions_of
from keras_seq.engine import functional
from keras_seq.engine.tensorflow import step_jacobian
from keras_seq.engine.tensorflow.arrays import swap
from keras_seq.engine.tensorflow.step import run_step
from keras_seq.typing import Tensor


class ForwardGradient(abc.ABC):
    """What rules share that carry gradients forward: the loss of a step, and how it reads states and weights.

    A subclass says what it carries of how the states depend on the weights (`_begin`), what of a cotangent of the states
    reaches the weights by it (`_pull`), and how a step moves it on (`_advance`).
    """

    def __init__(self, cell: Cell) -> None:
        needs_tensorflow(type(self).__name__)
        if not isinstance(cell, Cell):
            raise TypeError(f"cell: expected a keras_seq.Cell, got {cell!r:.80}")
        if not cell.built:
            raise ValueError(f"cell: expected a built cell, got {cell.name}; call a layer that has it first")
        random = [name for name in ("dropout", "recurrent_dropout") if getattr(cell, name)]
        random += ["zoneout"] if any(cell.zoneout_rates()) else []
        if random:
            raise ValueError(f"cell: expected one without {random[0]}, as a step is taken once, got {cell.name}")
        if cell.constant_names and not cell.batched_constants:
            raise ValueError(f"cell: expected constants with a row for each row of the batch, got those of {cell.name}")
        if cell.blocked:
            warnings.warn(
                f"cell: {cell.name} lets no gradient through its states: the gradient is that of each step alone, from the "
                "states as they are",
                stacklevel=3,
            )
        self.cell = cell
        self._functions = functions_of(cell)
        self._trained = [i for i, v in enumerate(self._functions.variables) if v.trainable]
        self._prepare = functional(cell.run_prepare, self._functions.variables)
        self._read = functional(cell.run_readout, self._functions.variables)

    @property
    def weights(self) -> list[Any]:
        """The weights that the gradients are of: the trainable ones of the cell."""
        return [self._functions.variables[i] for i in self._trained]

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """What is carried before the first step: the states of the cell, and what the rule carries; a flat list.

        Args:
            batch_size: positive integer, the rows.

        Raises:
            TypeError, ValueError: a batch size that is no positive integer, or with which what is carried would not fit.
        """
        batch_size = positive_integer("batch_size", batch_size)
        values, trained = self._values()
        one_row = functional(lambda: self.cell.get_initial_state(1), self._functions.variables)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(trained)
            states = [tf.identity(s) for s in one_row(values)]
            joined = tf.concat(states, axis=-1)[0]
        if self.cell.learn_initial_state:
            further = {"unconnected_gradients": "zero", "experimental_use_pfor": False}
            learned = [tape.jacobian(joined, w, **further) for w in trained]
        else:
            learned = [tf.zeros((*joined.shape, *w.shape), w.dtype) for w in trained]
        return [*(tf.repeat(s, batch_size, axis=0) for s in states), *self._begin(batch_size, learned)]

    def step(
        self,
        inputs: Tensor,
        state: Sequence[Tensor],
        loss: Callable[[Tensor], Tensor],
        constants: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """One step: predict, and say how the loss depends on the weights, through all steps before.

        Args:
            inputs: x_t, (b, d).
            state: what `initial_state` or the step before gave.
            loss: function from the output y_t, (b, u), to a scalar.
            constants: as in the cell's call, each (b, ...).

        Returns:
            `(loss, y_t, gradients, state)`: the gradients are of `weights`, in their order, for an optimizer of Keras.
        """
        count = len(self.cell.state_size)
        state = [tf.convert_to_tensor(s) for s in state]
        states, carried = state[:count], state[count:]
        values, trained = self._values()
        inputs = tf.cast(tf.convert_to_tensor(inputs), values[0].dtype)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch([*states, *trained])
            prepared = self._prepare(values, list(constants))
            projected = self._functions.project(values, {"inputs": inputs})
            output, new = run_step(self._functions.step, values, projected, states, prepared)
            reads = [prepared] if self.cell.readout_reads_constants else []
            output = self._read(values, output["output"], *reads)
            value = loss(output)
        zero = {"unconnected_gradients": "zero"}
        dstates = tf.concat([tape.gradient(value, s, **zero) for s in states], axis=-1)
        direct = [tape.gradient(value, w, **zero) for w in trained]
        through = self._pull(dstates, carried)
        jacobian = step_jacobian(self._functions.step, values, projected, states, prepared)
        moved = self._advance(jacobian, carried, lambda c: self._weight_vjp(inputs, states, constants, c))
        return value, output, [d + t for d, t in zip(direct, through, strict=True)], [*new, *moved]

    def _refuse_learned_states(self):
        """An error for a cell that learns its initial states, where what is carried has no place for their gradient."""
        if self.cell.learn_initial_state:
            raise ValueError(
                f"cell: expected learn_initial_state=False, got {self.cell.name} with True; RTRL learns initial states"
            )

    def _weight_vjp(self, inputs, states, constants, cotangents):
        """For each cotangent (r, b, n) of the new states, r of them for each row, that of the weights: each (r, b, ...)."""
        values, trained = self._values()
        repeats = cotangents.shape[0]

        def of_one_row(given):
            inputs, states, constants, cotangent = tf.nest.map_structure(lambda x: x[None], given)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(trained)
                prepared = self._prepare(values, constants)
                projected = self._functions.project(values, {"inputs": inputs})
                _, new = run_step(self._functions.step, values, projected, states, prepared)
                joined = tf.concat(new, axis=-1)
            return tape.gradient(joined, trained, output_gradients=cotangent, unconnected_gradients="zero")

        def repeated(x):
            return tf.tile(x, [repeats, *[1] * (len(x.shape) - 1)])

        rows = tf.nest.map_structure(repeated, (inputs, list(states), list(constants)))
        found = tf.vectorized_map(of_one_row, (*rows, tf.reshape(cotangents, (-1, cotangents.shape[-1]))))
        return [tf.reshape(g, (repeats, -1, *g.shape[1:])) for g in found]

    def _values(self):
        """The weights as tensors: all, and the trained ones of them."""
        values = [tf.convert_to_tensor(v) for v in self._functions.variables]
        return values, [values[i] for i in self._trained]

    @abc.abstractmethod
    def _begin(self, rows, learned):
        """What is carried before the first step, by so many rows; `learned` are the Jacobians of a row's initial states."""

    @abc.abstractmethod
    def _pull(self, dstates, carried):
        """What reaches each weight of the cotangent (b, n) of the states before a step."""

    @abc.abstractmethod
    def _advance(self, jacobian, carried, weight_vjp):
        """What is carried after a step with this Jacobian of the states, (b, n, n).

        `weight_vjp` pulls cotangents of the new states, (r, b, n), to the weights, each (r, b, ...).
        """


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
        of_a_state = np.repeat(
            np.eye(self._count), self._units, axis=1
        )  # all its units: a weight reaches but one of them
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

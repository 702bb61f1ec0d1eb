"""What rules share that carry the gradients of a memory forward with its states."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_seq.arguments import needs_tensorflow, positive_integer
from keras_seq.cells.base import Cell
from keras_seq.cells.functional import functions_of
from keras_seq.engine import functional
from keras_seq.engine.tensorflow import step_jacobian
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
        _, jacobian = step_jacobian(self._functions.step, values, projected, states, prepared)
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

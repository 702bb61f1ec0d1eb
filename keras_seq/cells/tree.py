"""One step of a memory over a tree: what a node makes of its input and of the states of its children.

A child that is not there has zeros for its states. Axes: k children, u units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import activations, ops

from keras_seq.arguments import boolean, named, positive_integer
from keras_seq.cells.gated import GatedCell
from keras_seq.engine import dot
from keras_seq.typing import Activation, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class RecursiveCell(GatedCell):
    """One step of `keras_seq.RecursiveNN`, whose equations it has; the states of the children are (..., k, u)."""

    def __init__(self, units: int, arity: int = 2, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.arity = positive_integer("arity", arity)

    @property
    def fed_back_size(self) -> int:
        return self.arity * self.units

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        h = self.activation(projected + dot(_side_by_side(states[0]), self.recurrent_kernel))
        return h, (h,)


@keras.saving.register_keras_serializable(package="keras_seq")
class TreeLSTMCell(GatedCell):
    """One step of `keras_seq.TreeLSTM`, whose equations it has; the states of the children are (..., k, u)."""

    gates = ("input", "forget", "candidate", "output")
    state_names = ("h", "c")

    def __init__(
        self,
        units: int,
        arity: int | None = None,
        recurrent_activation: Activation = "sigmoid",
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, **kwargs)
        self.arity = None if arity is None else positive_integer("arity", arity)
        self.recurrent_activation = named(activations, "recurrent_activation", recurrent_activation)
        self.unit_forget_bias = boolean("unit_forget_bias", unit_forget_bias)

    @property
    def fed_back_size(self) -> int:
        return (self.arity or 1) * self.units

    @property
    def recurrent_size(self) -> int:
        return (3 + (self.arity or 1)) * self.units

    def initial_bias(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        u = self.units
        if not self.unit_forget_bias:
            return super().initial_bias(shape, dtype)
        parts = [super(TreeLSTMCell, self).initial_bias((width,), dtype=dtype) for width in (u, 2 * u)]
        return ops.concatenate([parts[0], ops.ones((u,), dtype=dtype), parts[1]])

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        h, c = states
        x_i, x_f, x_g, x_o = self.split(projected)
        i, f, g, o = self._of_children(h)
        i, o = (self.recurrent_activation(x + r) for x, r in ((x_i, i), (x_o, o)))
        f = self.recurrent_activation(ops.expand_dims(x_f, -2) + f)
        c = i * self.activation(x_g + g) + ops.sum(f * c, axis=-2)
        h = o * self.activation(c)
        return h, (h, c)

    def _of_children(self, h):
        """What the children add to the sums of the gates, that of the forget gates for each of them, (..., k, u)."""
        u, kernel = self.units, self.recurrent_kernel
        if self.arity is None:
            shared = ops.concatenate([kernel[:, :u], kernel[:, 2 * u :]], axis=1)
            i, g, o = ops.split(dot(ops.sum(h, axis=-2), shared), 3, axis=-1)
            return i, dot(h, kernel[:, u : 2 * u]), g, o
        sums = dot(_side_by_side(h), kernel)
        forget = sums[..., u : (1 + self.arity) * u]
        i, g, o = sums[..., :u], sums[..., -2 * u : -u], sums[..., -u:]
        return i, ops.reshape(forget, ops.shape(h)), g, o


def _side_by_side(h):
    """(..., k, u) as (..., k u)."""
    return ops.reshape(h, (*ops.shape(h)[:-2], h.shape[-2] * h.shape[-1]))

"""A cell that sees one more vector, the same at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import initializers, ops

from keras_seq.arguments import named
from keras_seq.cells.gated import GatedCell
from keras_seq.cells.wrapper import CellWrapper, check_gated, check_projection
from keras_seq.typing import Initializer, LayerArguments, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class ConditionedCell(CellWrapper):
    """Any gated cell with an extra term at each step, made of a vector v that does not change in time.

        p_t = project(x_t) + v W_v;   y_t, s_t = step(p_t, s_{t-1})

    This is how the features of an image enter a captioner at every step (W_ih v in the textbook). The layer takes v as
    its only constant: `RNN(ConditionedCell(cell))(x, constants=[v])`, v of shape (b, n). The product with the weight
    `context_kernel` W_v (n, gates * units) is taken once, before the first step.

    Args:
        cell: a `keras_seq.GatedCell`. Its dropout and learned initial state are used as they are.
        context_initializer: of `context_kernel`, default Glorot's uniform one.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        TypeError: a cell that is no `keras_seq.GatedCell`, or whose `project` gives several tensors (NARX).
        ValueError: other than one constant, or one that is not (b, n).

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.RNN(keras_seq.ConditionedCell(keras_seq.GRUCell(4)))
    y = layer(ops.ones((2, 5, 3)), constants=[ops.ones((2, 7))])   # (2, 4)
    ```
    """

    constant_names = ("context",)

    def __init__(
        self, cell: GatedCell, context_initializer: Initializer = "glorot_uniform", **kwargs: Unpack[LayerArguments]
    ) -> None:
        check_gated(cell)
        super().__init__(cell, **kwargs)
        self.context_initializer = named(initializers, "context_initializer", context_initializer)

    def build(self, input_shape: Shape, constants_shape: Any = None) -> None:
        shapes = list(constants_shape or [])
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][-1] is None:
            raise ValueError(f"constants: expected one of shape (b, n), n known, for ConditionedCell, got {shapes}")
        super().build(input_shape)
        check_projection(self.cell, input_shape)
        self.context_kernel = self.add_weight(
            name="context_kernel",
            shape=(shapes[0][-1], self.cell.projected_size),
            initializer=self.context_initializer,
        )

    def prepare(self, constants: Sequence[Tensor]) -> Sequence[Any]:
        (context,) = constants
        if len(context.shape) != 2 or context.shape[-1] != self.context_kernel.shape[0]:
            raise ValueError(
                f"constants: expected shape (b, {self.context_kernel.shape[0]}) for ConditionedCell, got {tuple(context.shape)}"
            )
        return (ops.matmul(context, self.context_kernel),)

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = (), **targets: Any
    ) -> tuple[Any, Sequence[Tensor]]:
        (term,) = constants
        return self.cell.step(projected + term, states, **targets)

"""Cells whose next step sees this one's output, or in training the true one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_seq.arguments import positive_integer
from keras_seq.cells.gated import ReadoutCell
from keras_seq.typing import Tensor


class FeedbackCell(ReadoutCell):
    """A cell that feeds its output back: in closed loop its own, in open loop the true one (teacher forcing).

    A subclass says what the output is and what the states make of it,

        predict(p_t, s_{t-1}) -> y_t
        feed(p_t, s_{t-1}, y) -> s_t         y = y_t in closed loop, y = the true output of step t in open loop

    and, if it can, how the states before all steps follow from true outputs without a loop: `states_before`, which is asked
    with `forced=True` then. A layer of such a cell takes the true outputs as its call argument `targets`.

    Args:
        units: positive integer, the width u of the hidden layer.
        outputs: positive integer, the width k of the output.
        **kwargs: as in `keras_seq.ReadoutCell`.

    Example:

    ```python
    import keras_seq
    from keras import ops

    class Echo(keras_seq.FeedbackCell):
        # h_t = f(x_t W + y_{t-1} U + b);   y_t = h_t V + b_y

        state_names = ("y",)

        def predict(self, projected, states):
            h = self.activation(projected + keras_seq.dot(states[0], self.recurrent_kernel))
            return self.output(keras_seq.dot(h, self.output_kernel, dropout=False))

        def feed(self, projected, states, y):
            return (y,)

    layer = keras_seq.RNN(Echo(8, 2), return_sequences=True)
    y = layer(ops.ones((1, 5, 3)))                                   # (1, 5, 2), its own outputs fed back
    y = layer(ops.ones((1, 5, 3)), targets=ops.ones((1, 5, 2)))      # the true ones
    ```
    """

    supports_teacher_forcing = True
    outputs: int

    def __init__(self, units: int, outputs: int, **kwargs: Any) -> None:
        super().__init__(units, outputs=positive_integer("outputs", outputs), **kwargs)

    @property
    def state_size(self) -> list[int]:
        return [self.outputs] * len(self.state_names)

    @property
    def fed_back_size(self) -> int:
        return self.outputs

    def predict(self, projected: Any, states: Sequence[Tensor]) -> Tensor:
        """The output of a step."""
        raise TypeError(f"{type(self).__name__}: expected a method predict(projected, states), found none")

    def feed(self, projected: Any, states: Sequence[Tensor], output: Tensor) -> Sequence[Tensor]:
        """The states after a step with this output."""
        raise TypeError(f"{type(self).__name__}: expected a method feed(projected, states, output), found none")

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = (), targets: Tensor | None = None
    ) -> tuple[Any, Sequence[Tensor]]:
        output = self.predict(projected, states)
        return output, self.feed(projected, states, output if targets is None else targets)

    def readout(self, outputs: Tensor) -> Tensor:
        return outputs

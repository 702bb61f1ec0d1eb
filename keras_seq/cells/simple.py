"""The simple recurrent networks: fully recurrent, of Elman, of Jordan, and with a sum for a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_seq.arguments import boolean, rate
from keras_seq.cells.feedback import FeedbackCell
from keras_seq.cells.gated import GatedCell, ReadoutCell
from keras_seq.engine import dot, expose, linear_recurrence
from keras_seq.typing import Activation, Constraint, Initializer, Regularizer, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class SimpleRNNCell(ReadoutCell):
    """One step of the fully recurrent state-space model (Elman 1990, with gradients through the state).

        h_t = f(x_t W + h_{t-1} U + b);   y_t = h_t, or with `outputs` y_t = g(h_t V + b_y)

    Weights as in `keras.layers.SimpleRNN`: `kernel` W (d, u), `recurrent_kernel` U (u, u), `bias` b (u,); with `outputs`
    also `output_kernel` V (u, k), `output_bias` b_y (k,). State h (b, u). Internals: `hidden`.

    Args:
        units: positive integer, the width u of the state.
        activation: f, default tanh.
        use_bias: whether there are biases.
        outputs: positive integer, the width k of a readout, which a layer applies to all steps at once; None for none.
        output_activation: g, default none.
        **kwargs: as in `keras_seq.GatedCell`, and `output_initializer`, `output_regularizer`, `output_constraint`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.SimpleRNNCell(4)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 4))])   # (2, 4)
    ```
    """

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        (h,) = states
        h = self.activation(projected + dot(h, self.recurrent_kernel))
        expose(hidden=h)
        return h, (h,)


@keras.saving.register_keras_serializable(package="keras_seq")
class ElmanCell(SimpleRNNCell):
    """One step of Elman's network: context units hold a copy of the last hidden state (Elman 1990).

        c_t = h_{t-1};   h_t = f(x_t W + c_t U + b);   y_t = h_t, or with `outputs` y_t = g(h_t V + b_y)

    As published (`blocked=True`) the context is one more input: no gradient passes through it, training sees a net with
    one step of history at every step, and its backward pass is one call over all steps. With `blocked=False` this is
    `keras_seq.SimpleRNNCell`, trained by full backpropagation through time. Weights, state and internals are as there.
    The paper starts the context at 0.5, for logistic units; the state here starts at zero, or as given.

    Args:
        units: positive integer, the width u of the hidden layer and its context.
        blocked: whether the context passes no gradient.
        **kwargs: as in `keras_seq.SimpleRNNCell`: `activation`, `use_bias`, `outputs`, `output_activation`, ...

    Raises:
        ValueError: besides what `keras_seq.GatedCell` refuses, `learn_initial_state` of a blocked context.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.ElmanCell(4, outputs=2)
    y, [h] = cell(ops.ones((1, 3)), [ops.zeros((1, 4))])   # (1, 2)
    ```
    """

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        outputs: int | None = None,
        blocked: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, outputs=outputs, **kwargs)
        self.blocked = boolean("blocked", blocked)


@keras.saving.register_keras_serializable(package="keras_seq")
class JordanCell(FeedbackCell):
    """One step of Jordan's network: its memory is a running average of its outputs (Jordan 1986).

        m_t = mu m_{t-1} + (1 - mu) y_{t-1}
        h_t = f(x_t W + m_t U + b);   y_t = g(h_t V + b_y)

    As published (`blocked=True`) no gradient passes through the memory. A layer takes true outputs as `targets`: they
    stand for y_{t-1} then, and all steps run at once. Weights: `kernel` W (d, u), `recurrent_kernel` U (k, u), `bias`
    (u,), `output_kernel` V (u, k), `output_bias` (k,). State m (b, k): what the next step reads. Internals: `memory`,
    `hidden`, `output`. Jordan adds mu m and y without the factor 1 - mu: the same, with U scaled by it.

    Args:
        units: positive integer, the width u of the hidden layer.
        outputs: positive integer, the width k of the output and the memory.
        activation: f, default tanh.
        output_activation: g, default none.
        decay: mu in [0, 1), the share of the memory that stays.
        blocked: whether the memory passes no gradient.
        **kwargs: as in `keras_seq.GatedCell`, and `output_initializer`, `output_regularizer`, `output_constraint`.

    Raises:
        ValueError: besides what `keras_seq.GatedCell` refuses, a decay outside [0, 1); `learn_initial_state` of a blocked
            memory.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.JordanCell(4, outputs=2)
    y, [m] = cell(ops.ones((1, 3)), [ops.zeros((1, 2))])   # (1, 2)
    ```
    """

    state_names = ("m",)

    def __init__(self, units: int, outputs: int, decay: float = 0.5, blocked: bool = True, **kwargs: Any) -> None:
        super().__init__(units, outputs, **kwargs)
        self.decay = rate("decay", decay)
        self.blocked = boolean("blocked", blocked)

    def predict(self, projected: Any, states: Sequence[Tensor]) -> Tensor:
        (m,) = states
        h = self.activation(projected + dot(m, self.recurrent_kernel))
        y = self.output(dot(h, self.output_kernel, dropout=False))
        expose(memory=m, hidden=h, output=y)
        return y

    def feed(self, projected: Any, states: Sequence[Tensor], output: Tensor) -> Sequence[Tensor]:
        (m,) = states
        return (self.decay * m + (1 - self.decay) * output,)

    def states_before(self, forced: bool) -> Callable[..., Any] | None:
        if not forced:
            return None

        def averages(projected, states, targets):
            (m,) = states
            after = linear_recurrence(self.decay, (1 - self.decay) * targets, m)
            return (ops.concatenate([m[None], after[:-1]], axis=0),)

        return averages


@keras.saving.register_keras_serializable(package="keras_seq")
class ResidualRNNCell(GatedCell):
    """One step of a network whose state is a sum: each step adds to it.

        recurrent=True:    h_t = h_{t-1} + f(x_t W + h_{t-1} U + b)
        recurrent=False:   h_t = h_{t-1} + f(x_t W + b), which needs no loop: all steps run at once

    y_t = h_t. Weights: `kernel` W (d, u), `recurrent_kernel` U (u, u) if recurrent, `bias` (u,). State h (b, u).
    Internals: `candidate` (what is added), `hidden`.

    Args:
        units: positive integer, the width u.
        activation: f, default tanh.
        use_bias: whether there is a bias.
        recurrent: which of the two.
        **kwargs: as in `keras_seq.GatedCell`.

    Raises:
        ValueError: besides what `keras_seq.GatedCell` refuses, `recurrent_dropout` where no product reads the state.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.ResidualRNNCell(4, recurrent=False)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 4))])   # (2, 4)
    ```
    """

    def __init__(
        self, units: int, activation: Activation = "tanh", use_bias: bool = True, recurrent: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)
        self.recurrent = boolean("recurrent", recurrent)
        if self.recurrent_dropout and not recurrent:
            raise ValueError(f"recurrent_dropout: expected 0 with recurrent=False, got {self.recurrent_dropout}")

    @property
    def fed_back_size(self) -> int:
        return self.units if self.recurrent else 0

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        (h,) = states
        candidate = self.activation(projected + dot(h, self.recurrent_kernel) if self.recurrent else projected)
        h = h + candidate
        expose(candidate=candidate, hidden=h)
        return h, (h,)

    def states_before(self, forced: bool) -> Callable[..., Any] | None:
        if self.recurrent:
            return None

        def sums(projected, states, targets):
            (h,) = states
            after = linear_recurrence(1.0, self.activation(projected), h)
            return (ops.concatenate([h[None], after[:-1]], axis=0),)

        return sums

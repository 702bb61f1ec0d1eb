"""The gated recurrent unit, with the reset gate before or after the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import activations, ops

from keras_seq.arguments import IMPLEMENTATIONS, boolean, named, one_of
from keras_seq.cells.gated import GatedCell
from keras_seq.engine import dot, expose
from keras_seq.typing import Activation, Constraint, Initializer, Regularizer, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class GRUCell(GatedCell):
    """One step of the gated recurrent unit (Cho et al. 2014).

        z = sigma(x_t W_z + h_{t-1} U_z + b_z);   r = sigma(x_t W_r + h_{t-1} U_r + b_r)
        reset_after=False, the textbook's:   g = tanh(x_t W_h + (r * h_{t-1}) U_h + b_h)
        reset_after=True, cuDNN's:           g = tanh(x_t W_h + b_h + r * (h_{t-1} U_h + b'_h))
        h_t = z * h_{t-1} + (1 - z) * g;   y_t = h_t

    Weights as in `keras.layers.GRU`: `kernel` (d, 3u), `recurrent_kernel` (u, 3u), columns in the order z, r, h; `bias`
    (3u,), or with `reset_after` (2, 3u), its second row b' added to the products with the state. Internals:
    `update_gate`, `reset_gate`, `candidate`, `hidden`.

    Args:
        units: positive integer, the width u.
        activation: of the candidate g, default tanh.
        recurrent_activation: sigma, of the gates, default the logistic function.
        reset_after: where the reset gate acts; default True, as in Keras.
        implementation: 2, 1 or 0, as Keras has it; changes nothing here.
        **kwargs: as in `keras_seq.GatedCell`: bias, initializers, regularizers, constraints, dropout, `learn_initial_state`.

    Example:

    ```python
    import keras_seq
    from keras import ops
    cell = keras_seq.GRUCell(4, reset_after=False)
    y, [h] = cell(ops.ones((2, 3)), [ops.zeros((2, 4))])   # (2, 4)
    ```
    """

    gates = ("update", "reset", "candidate")
    state_names = ("h",)

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
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
        reset_after: bool = True,
        seed: int | None = None,
        *,
        implementation: int = 2,
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
        self.recurrent_activation = named(activations, "recurrent_activation", recurrent_activation)
        self.reset_after = boolean("reset_after", reset_after)
        self.implementation = one_of("implementation", implementation, IMPLEMENTATIONS)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        return (2, self.projected_size) if self.reset_after else (self.projected_size,)

    def project(self, inputs: Tensor) -> Any:
        projected = ops.matmul(inputs, self.kernel)
        if self.bias is None:
            return projected
        return projected + (self.bias[0] if self.reset_after else self.bias)

    def step(
        self, projected: Any, states: Sequence[Tensor], constants: Sequence[Tensor] = ()
    ) -> tuple[Any, Sequence[Tensor]]:
        (h,) = states
        x_z, x_r, x_h = self.split(projected)
        if self.reset_after:
            recurrent = dot(h, self.recurrent_kernel)
            h_z, h_r, h_h = self.split(recurrent if self.bias is None else recurrent + self.bias[1])
            z, r = self.recurrent_activation(x_z + h_z), self.recurrent_activation(x_r + h_r)
            g = self.activation(x_h + r * h_h)
        else:
            gates = dot(h, self.recurrent_kernel[:, : 2 * self.units])
            h_z, h_r = ops.split(gates, 2, axis=-1)
            z, r = self.recurrent_activation(x_z + h_z), self.recurrent_activation(x_r + h_r)
            g = self.activation(x_h + dot(r * h, self.recurrent_kernel[:, 2 * self.units :]))
        h = z * h + (1 - z) * g
        expose(update_gate=z, reset_gate=r, candidate=g, hidden=h)
        return h, (h,)

# Written by tests/stubs.py, from constructors that are made at run time.
from collections.abc import Sequence
from typing import Any, Literal, Self

import keras

from keras_seq.layers.cell_layer import CellLayer
from keras_seq.layers.newton import Newton
from keras_seq.typing import Activation, Config, Constraint, DType, Initializer, Regularizer, Shape, Tensor

class NARX(CellLayer):
    def __init__(
        self,
        units: int | None = None,
        outputs: int = 1,
        input_delays: int | Sequence[int] = 1,
        output_delays: int | Sequence[int] = 1,
        network: keras.layers.Layer | None = None,
        exogenous: bool = True,
        kernel_initializer: Initializer = None,
        recurrent_initializer: Initializer = None,
        *,
        activation: Activation = "tanh",
        use_bias: bool = True,
        output_activation: Activation = None,
        output_initializer: Initializer = "glorot_uniform",
        output_regularizer: Regularizer = None,
        output_constraint: Constraint = None,
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | Sequence[float] = 0.0,
        seed: int | None = None,
        learn_initial_state: bool = False,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        return_internals: bool = False,
        truncate: int | None = None,
        checkpoint: bool = False,
        solver: Newton | Literal["newton"] | Config | None = None,
        activity_regularizer: Regularizer = None,
        closed: bool = False,
        name: str | None = ...,
        dtype: DType = ...,
        trainable: bool = ...,
        autocast: bool = ...,
        input_shape: Shape | None = ...,
        input_dim: int | None = ...,
        input_length: int | None = ...,
    ) -> None: ...
    @property
    def delays(self) -> int: ...
    def close_loop(self, **flags: Any) -> Self: ...
    def open_loop(self, **flags: Any) -> Self: ...
    def needs_targets(self, width: int | None = None) -> bool: ...
    def forecast(self, targets: Tensor, sequences: Tensor | None = None, steps: int | None = None) -> Tensor: ...
    def step_states(
        self,
        inputs: Tensor,
        states: Sequence[Tensor],
        mask: Tensor | None = None,
        constants: Any = (),
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Any]: ...
    def get_config(self) -> Config: ...
    @classmethod
    def from_config(cls, config: Config) -> Self: ...

class AR(NARX):
    def __init__(
        self,
        units: int | None = None,
        outputs: int = 1,
        output_delays: int | Sequence[int] = 1,
        network: keras.layers.Layer | None = None,
        kernel_initializer: Initializer = None,
        recurrent_initializer: Initializer = None,
        *,
        activation: Activation = "tanh",
        use_bias: bool = True,
        output_activation: Activation = None,
        output_initializer: Initializer = "glorot_uniform",
        output_regularizer: Regularizer = None,
        output_constraint: Constraint = None,
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | Sequence[float] = 0.0,
        seed: int | None = None,
        learn_initial_state: bool = False,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        return_internals: bool = False,
        truncate: int | None = None,
        checkpoint: bool = False,
        solver: Newton | Literal["newton"] | Config | None = None,
        activity_regularizer: Regularizer = None,
        closed: bool = False,
        name: str | None = ...,
        dtype: DType = ...,
        trainable: bool = ...,
        autocast: bool = ...,
        input_shape: Shape | None = ...,
        input_dim: int | None = ...,
        input_length: int | None = ...,
    ) -> None: ...
    def needs_targets(self, width: int | None = None) -> bool: ...
    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool = False,
        constants: Sequence[Tensor] | None = None,
        targets: Tensor | None = None,
        sequences_mask: Tensor | None = None,
        return_state: bool | None = None,
    ) -> Any: ...
    def step_states(
        self,
        inputs: Tensor,
        states: Sequence[Tensor],
        mask: Tensor | None = None,
        constants: Any = (),
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Any]: ...

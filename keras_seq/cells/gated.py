"""Cells whose gates have columns in common kernels; and a readout for those that want one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import activations, constraints, initializers, ops, regularizers

from keras_seq.arguments import boolean, named, positive_integer
from keras_seq.cells.base import Cell
from keras_seq.typing import Activation, Constraint, Initializer, Regularizer, Shape, Tensor


class GatedCell(Cell):
    """A cell whose gates each have columns in one input kernel, one recurrent kernel and one bias.

    A subclass names its `gates`, in the order of the columns, and its `states`, and defines `step`. From them this class
    makes the weights, and the projection `project(x_t) = x_t kernel + bias`:

        kernel            (d, gates * units)
        recurrent_kernel  (units, gates * units)
        bias              (gates * units,)

    Args:
        units: positive integer, the width of the output and of each state.
        activation: activation of the candidate and the output.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: initializers of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: their regularizers.
        kernel_constraint, recurrent_constraint, bias_constraint: their constraints.
        **kwargs: as in `keras_seq.Cell`: `dropout`, `recurrent_dropout`, `zoneout`, `seed`,
            `learn_initial_state`, `name`, `dtype`.

    Raises:
        TypeError: an argument that is unknown or of the wrong type.
        ValueError: units below 1, a dropout outside [0, 1) or NaN, an unknown activation.

    Example:

    ```python
    import keras_seq
    from keras import ops

    class LeakyCell(keras_seq.GatedCell):
        # h_t = h_{t-1} / 2 + tanh(x_t W + b + h_{t-1} U) / 2

        def step(self, projected, states, constants=()):
            (h,) = states
            h = h / 2 + self.activation(projected + keras_seq.dot(h, self.recurrent_kernel)) / 2
            return h, (h,)

    y = keras_seq.RNN(LeakyCell(8), return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 8)
    ```
    """

    gates: tuple[str, ...] = ("candidate",)

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        self.activation = named(activations, "activation", activation)
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)
        self.recurrent_initializer = named(initializers, "recurrent_initializer", recurrent_initializer)
        self.bias_initializer = named(initializers, "bias_initializer", bias_initializer)
        self.kernel_regularizer = named(regularizers, "kernel_regularizer", kernel_regularizer)
        self.recurrent_regularizer = named(regularizers, "recurrent_regularizer", recurrent_regularizer)
        self.bias_regularizer = named(regularizers, "bias_regularizer", bias_regularizer)
        self.kernel_constraint = named(constraints, "kernel_constraint", kernel_constraint)
        self.recurrent_constraint = named(constraints, "recurrent_constraint", recurrent_constraint)
        self.bias_constraint = named(constraints, "bias_constraint", bias_constraint)

    @property
    def state_size(self) -> list[int]:
        return [self.units] * len(self.state_names)

    @property
    def output_size(self) -> int:
        return self.units

    @property
    def projected_size(self) -> int:
        """Width of what `project` makes of an input."""
        return len(self.gates) * self.units

    @property
    def input_size(self) -> int:
        """Width of what `kernel` multiplies; 0 if there is none. `features` is that of the inputs."""
        return self.features

    @property
    def fed_back_size(self) -> int:
        """Width of what `recurrent_kernel` multiplies; 0 if there is none."""
        return self.units

    @property
    def recurrent_size(self) -> int:
        """Width of what it makes of that."""
        return self.projected_size

    @property
    def bias_shape(self) -> tuple[int, ...]:
        return (self.projected_size,)

    def initial_bias(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        initializer = self.bias_initializer or initializers.get("glorot_uniform")  # as Keras has it for None
        return initializer(shape, dtype=dtype)

    def build(self, input_shape: Shape) -> None:
        self.features = input_shape[-1]
        if self.input_size:
            self.kernel = self.add_weight(
                name="kernel",
                shape=(self.input_size, self.projected_size),
                initializer=self.kernel_initializer,
                regularizer=self.kernel_regularizer,
                constraint=self.kernel_constraint,
            )
        if self.fed_back_size:
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel",
                shape=(self.fed_back_size, self.recurrent_size),
                initializer=self.recurrent_initializer,
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self.bias_shape,
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        super().build(input_shape)

    def project(self, inputs: Tensor) -> Any:
        projected = ops.matmul(inputs, self.kernel)
        return projected if self.bias is None else projected + self.bias

    def split(self, tensor: Tensor) -> list[Tensor]:
        """The columns of each gate."""
        return ops.split(tensor, len(self.gates), axis=-1)


class ReadoutCell(GatedCell):
    """A gated cell with an optional readout, y_t = g(h_t V + b_y), of what its step returns.

    The next step does not need it: a layer applies it to all steps in one product.

    Args:
        units: positive integer, the width u of the state.
        activation: f, of the step.
        use_bias: whether the step and the readout have a bias.
        outputs: positive integer, the width k of the readout; None for none.
        output_activation: g, default none.
        output_initializer: of `output_kernel` V (u, k); the bias `output_bias` (k,) starts at zero.
        output_regularizer, output_constraint: of `output_kernel`.
        **kwargs: as in `keras_seq.GatedCell`.

    Raises:
        TypeError, ValueError: as `keras_seq.GatedCell`, and outputs that are no positive integer.

    Example:

    ```python
    import keras_seq
    from keras import ops

    class Integrator(keras_seq.ReadoutCell):
        # h_t = h_{t-1} + f(x_t W + b);   y_t = g(h_t V + b_y)

        def step(self, projected, states, constants=()):
            h = states[0] + self.activation(projected)
            return h, (h,)

    y = keras_seq.RNN(Integrator(8, outputs=2), return_sequences=True)(ops.ones((2, 5, 3)))   # (2, 5, 2)
    ```
    """

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        use_bias: bool = True,
        outputs: int | None = None,
        output_activation: Activation = None,
        output_initializer: Initializer = "glorot_uniform",
        output_regularizer: Regularizer = None,
        output_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)
        self.outputs = None if outputs is None else positive_integer("outputs", outputs)
        self.output_activation = named(activations, "output_activation", output_activation)
        self.output_initializer = named(initializers, "output_initializer", output_initializer)
        self.output_regularizer = named(regularizers, "output_regularizer", output_regularizer)
        self.output_constraint = named(constraints, "output_constraint", output_constraint)

    @property
    def output_size(self) -> int:
        return self.units if self.outputs is None else self.outputs

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.output_bias = None
        if not self.has_readout:
            return
        self.output_kernel = self.add_weight(
            name="output_kernel",
            shape=(self.units, self.outputs),
            initializer=self.output_initializer,
            regularizer=self.output_regularizer,
            constraint=self.output_constraint,
        )
        if self.use_bias:
            self.output_bias = self.add_weight(name="output_bias", shape=(self.outputs,), initializer="zeros")

    @property
    def has_readout(self) -> bool:
        """Whether there is an `output_kernel`."""
        return self.outputs is not None

    def readout(self, outputs: Tensor) -> Tensor:
        return outputs if self.outputs is None else self.output(ops.matmul(outputs, self.output_kernel))

    def output(self, product: Tensor) -> Tensor:
        """g(h V + b_y) from h V."""
        return self.output_activation(product if self.output_bias is None else product + self.output_bias)

"""Time-delay networks: a step that sees the inputs of steps at fixed distances."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import activations, constraints, initializers, ops, regularizers

from keras_seq._keras import AutocastScope
from keras_seq.arguments import boolean, described, named, positive_integer
from keras_seq.cells.floats import drawn_long, long_type
from keras_seq.layers import ring
from keras_seq.layers.streamable import Streamable
from keras_seq.masking import over_real_steps, skipped_mask
from keras_seq.shapes import check_sequences, spec_of, static
from keras_seq.typing import Activation, Config, Constraint, Initializer, Regularizer, SequenceArguments, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class TDNN(Streamable, keras.layers.Layer):
    """A layer of a time-delay neural network (Waibel et al. 1989; with splices, Peddinti et al. 2015).

        y_t = f(sum_k x_{t + c_k} W_k + b),   c the context;  delays=p is the context -(p-1) .. 0

    A finite response: an input is seen by as many steps as there are distances in the context, and by no other. Before the
    first step and after the last there are zeros. Stacked (`keras_seq.Stacked`, or one after the other), layers see further
    and further; with distances that grow, as [-2..2], [-1, 2], [-3, 3], that costs few weights. A step of the whole stack
    sees `receptive_field` steps.

    Weights: `kernel` (len(context), d, units), `bias` (units,); with weight normalisation `scale` (units,) too, the length g
    of each unit's weights, W = g V / |V|, V the kernel (Salimans and Kingma 2016; g starts as |V|). They interchange with
    `keras.layers.Conv1D(padding="causal", dilation_rate=n)` by `set_weights` where the context is [.., -2n, -n, 0].

    Hidden steps (`mask`) are taken out before, so that a row is treated as it would be alone; in their places the last
    output is repeated, or zeros given with `zero_output_for_mask`. With `subsampling=n` only every n-th step, from the
    first, is computed and given: (b, ceil(t / n), units), the outputs of a masked row at its start.

    Args:
        units: positive integer, the width of the output.
        delays: positive integer p: the step sees x_t .. x_{t-p+1}.
        context: in place of delays, a list of distinct integers c_k; those above 0 look ahead.
        subsampling: positive integer n.
        activation: f, default tanh.
        use_bias: whether there is b.
        weight_normalization: whether to learn length and direction of each unit's weights apart.
        zero_output_for_mask: whether hidden steps give zeros.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Dense`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        sequences: tensor (b, t, d).
        mask: boolean tensor (b, t), True for real steps.

    Raises:
        TypeError, ValueError: units, delays or subsampling that are no positive integer; both delays and a context, or
            neither; a context without a distance or with the same one twice; sequences that are not (b, t, d); a mask that
            is not (b, t). In step form: a context that looks ahead, subsampling.

    Warns:
        UserWarning: sequences known to be shorter than the receptive field: the rest of it sees only zeros.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.TDNN(8, delays=3)(ops.ones((2, 10, 5)))                  # (2, 10, 8)
    y = keras_seq.TDNN(8, context=[-2, 0, 2])(ops.ones((2, 10, 5)))        # (2, 10, 8)
    ```
    """

    return_sequences = True
    state_size = ()

    def __init__(
        self,
        units: int,
        delays: int | None = None,
        context: Sequence[int] | None = None,
        subsampling: int = 1,
        activation: Activation = "tanh",
        use_bias: bool = True,
        weight_normalization: bool = False,
        zero_output_for_mask: bool = False,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Unpack[SequenceArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = positive_integer("units", units)
        if (delays is None) == (context is None):
            raise ValueError(f"delays: expected either delays or a context, got delays={delays!r}, context={context!r}")
        self.delays = None if delays is None else positive_integer("delays", delays)
        self.context = None if context is None else _distances(context)
        self.distances: list[int] = list(range(1 - self.delays, 1)) if context is None else self.context  # type: ignore
        self.subsampling = positive_integer("subsampling", subsampling)
        self.use_bias = boolean("use_bias", use_bias)
        self.weight_normalization = boolean("weight_normalization", weight_normalization)
        self.zero_output_for_mask = boolean("zero_output_for_mask", zero_output_for_mask)
        self.activation = named(activations, "activation", activation)
        # drawn twice under weight normalisation, so that None, Keras's own choice, has to be an object too
        kernel_initializer = "glorot_uniform" if kernel_initializer is None else kernel_initializer
        self.kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)
        self.bias_initializer = named(initializers, "bias_initializer", bias_initializer)
        self.kernel_regularizer = named(regularizers, "kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = named(regularizers, "bias_regularizer", bias_regularizer)
        self.kernel_constraint = named(constraints, "kernel_constraint", kernel_constraint)
        self.bias_constraint = named(constraints, "bias_constraint", bias_constraint)

    @property
    def output_width(self) -> int:
        return self.units

    @property
    def receptive_field(self) -> int:
        """How many steps lie between the first and the last that a step sees, both counted, and itself."""
        return max(0, *self.distances) - min(0, *self.distances) + 1

    def build(self, sequences_shape: Shape) -> None:
        self.input_spec = spec_of(sequences_shape)
        shape = (len(self.distances), sequences_shape[-1], self.units)
        self.kernel = self.add_weight(
            name="kernel",
            shape=shape,
            initializer=drawn_long(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.scale = self.bias = None
        if self.weight_normalization:

            def lengths(_, dtype):  # of the same draw: a weight made while a function is traced cannot read another
                return ops.cast(_lengths(self.kernel_initializer(shape, dtype=long_type(dtype))), dtype)

            self.scale = self.add_weight(name="scale", shape=(self.units,), initializer=lengths)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Any:
        check_sequences(sequences, mask)
        warn_if_short(self, sequences)
        sequences = ops.cast(sequences, self.compute_dtype)
        return over_real_steps(self.every_step, sequences, mask, self.zero_output_for_mask, self.subsampling)

    def every_step(self, sequences: Tensor) -> Tensor:
        """The outputs of whole sequences, none of whose steps is hidden."""
        steps, weights = ops.shape(sequences)[1], self._weights()
        before, after, every = max(0, -self.distances[0]), max(0, self.distances[-1]), self.subsampling
        sequences = ops.pad(sequences, [[0, 0], [before, after], [0, 0]])
        gaps = {b - a for a, b in zip(self.distances, self.distances[1:], strict=False)} or {1}
        if len(gaps) == 1 and every == 1:
            (apart,) = gaps
            if before + after > self.distances[-1] - self.distances[0]:  # the context leaves its own step out
                span = apart * (len(self.distances) - 1)
                first = before + self.distances[0]
                sequences = sequences[:, first : first + steps + span]
            return self._finished(
                ops.conv(sequences, weights, 1, "valid", data_format="channels_last", dilation_rate=apart)
            )
        seen = [sequences[:, before + c : before + c + steps : every] for c in self.distances]
        return self._finished(ops.matmul(ops.concatenate(seen, axis=-1), ops.reshape(weights, (-1, self.units))))

    def _weights(self):
        if self.scale is None:
            return ops.convert_to_tensor(self.kernel)
        with AutocastScope(self.variable_dtype):  # squares of sixteen bits may be too small for them, or too large
            kernel, scale = (ops.cast(w, long_type(w.dtype)) for w in (self.kernel, self.scale))
        return ops.cast(kernel * (scale / _lengths(kernel)), self.compute_dtype)

    def _finished(self, total):
        return self.activation(total if self.bias is None else total + self.bias)

    # -- step by step ------------------------------------------------------------------------------------------------

    @property
    def not_stepwise(self) -> str | None:
        if self.distances[-1] > 0:
            return f"its context looks {self.distances[-1]} steps ahead"
        return f"it gives one step of {self.subsampling} only (subsampling)" if self.subsampling > 1 else None

    def first_state(self, batch_size: int | Tensor) -> list[Tensor]:
        reach = -self.distances[0]
        return ring.empty(batch_size, reach, self.kernel.shape[1], self.compute_dtype) if reach else []

    def step_states(self, inputs: Tensor, states: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, Any]:
        inputs = ops.cast(inputs, self.compute_dtype)
        seen = ops.expand_dims(inputs, 1) if self.distances[-1] == 0 else None
        past = [-c for c in self.distances if c < 0]
        if past:
            delayed = ring.read(states, past)
            seen = delayed if seen is None else ops.concatenate([delayed, seen], axis=1)
            states = ring.write(states, inputs, mask)
        return self._finished(ops.einsum("bkd,kdu->bu", seen, self._weights())), states

    # -- shapes, masks, configuration --------------------------------------------------------------------------------

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        return mask if mask is None or self.subsampling == 1 else skipped_mask(mask, self.subsampling)

    def compute_output_shape(self, sequences_shape: Shape) -> Any:
        steps = sequences_shape[1]
        return (sequences_shape[0], steps and -(-steps // self.subsampling), self.units)

    def get_config(self) -> Config:
        return {**super().get_config(), **described(self)}


def _lengths(kernel):
    """The length of each unit's weights."""
    return ops.sqrt(ops.sum(ops.square(kernel), axis=(0, 1)))


def _distances(context):
    """A context, rising."""
    given = list(context) if isinstance(context, (list, tuple, range)) else []
    if not given or any(isinstance(c, bool) or not isinstance(c, numbers.Integral) for c in given):
        raise TypeError(f"context: expected a list of at least one integer, got {context!r}")
    if len(set(given)) != len(given):
        raise ValueError(f"context: expected distinct integers, got {context!r}")
    return sorted(int(c) for c in given)


def warn_if_short(layer, sequences):
    """A warning where a sequence is known to be shorter than what a step could see."""
    steps = static(sequences.shape[1])
    if steps is not None and steps < layer.receptive_field:
        warnings.warn(
            f"{layer.name}: sequences of {steps} steps are shorter than the receptive field of {layer.receptive_field}; "
            "the rest of it sees only zeros",
            stacklevel=4,
        )

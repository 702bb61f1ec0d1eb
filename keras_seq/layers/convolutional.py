"""Convolutions in time: the TCN and WaveNet, stacks of time-delay layers whose distances grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import activations, initializers, ops

from keras_seq.cells.arguments import boolean, copied, described, integer_or_none, named, positive_integer, rate, tensor
from keras_seq.cells.floats import drawn_long, long_type
from keras_seq.engine import dropped
from keras_seq.layers.stepwise import Stepwise, check_sequences, over_real_steps, spec_of
from keras_seq.layers.tdnn import TDNN, warn_if_short
from keras_seq.typing import Activation, Config, Initializer, SequenceArguments, Shape, Tensor


class _Dilated(Stepwise, keras.layers.Layer):
    """A stack of causal layers whose parts keep their own states: what TCN and WaveNet share.

    A subclass has `parts`, its time-delay layers in order, and `_through(inputs, apply, training)`, which makes the outputs,
    calling `apply(part, x)` for each part in that order.
    """

    state_size = ()

    def _convolution(self, width, dilation, **kwargs):
        """A part, not yet built."""
        context = [-k * dilation for k in range(self.kernel_size)]
        return TDNN(width, context=context, dtype=self.dtype_policy, **self._starts(), **kwargs)

    def _product(self, width, **kwargs):
        """A dense layer likewise."""
        starts = {name: drawn_long(start) for name, start in self._starts().items()}
        return keras.layers.Dense(width, dtype=self.dtype_policy, **starts, **kwargs)

    def _starts(self):
        return {name: copied(getattr(self, name)) for name in ("kernel_initializer", "bias_initializer")}

    @property
    def receptive_field(self) -> int:
        """How many steps an output sees, its own counted."""
        return 1 + sum(part.receptive_field - 1 for part in self.parts)

    def call(self, sequences: Tensor, mask: Tensor | None = None, training: bool = False) -> Any:
        check_sequences(sequences, mask)
        warn_if_short(self, sequences)
        sequences = ops.cast(sequences, self.compute_dtype)

        def every_step(sequences):
            return self._through(sequences, lambda part, x: part.every_step(x), training)

        # no step sees a later one, so that what stands after the real steps need not be hidden again
        zeros = self.zero_output_for_mask and self.return_sequences
        outputs = over_real_steps(every_step, sequences, mask, zeros)
        return outputs if self.return_sequences else outputs[:, -1]

    def first_state(self, batch_size: int | Tensor) -> list[Tensor]:
        return [s for part in self.parts for s in part.first_state(batch_size)]

    def advance(self, inputs: Tensor, states: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, Any]:
        left, found = list(states), []

        def one_step(part, x):
            count = len(part.first_state(1))
            y, new = part.advance(x, [left.pop(0) for _ in range(count)], mask)
            found.extend(new)
            return y

        outputs = self._through(ops.cast(inputs, self.compute_dtype), one_step, False)
        return outputs, found

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        return mask if self.return_sequences else None

    def compute_output_shape(self, sequences_shape: Shape) -> Any:
        steps = (sequences_shape[1],) if self.return_sequences else ()
        return (sequences_shape[0], *steps, self.output_width)


@keras.saving.register_keras_serializable(package="keras_seq")
class TCN(_Dilated):
    """A temporal convolutional network (Bai, Kolter and Koltun 2018): residual blocks of causal dilated convolutions.

        block i:  z = f(conv_i(x));  z = f(conv'_i(z));  y = f(z + x),   f = relu

    conv and conv' are two `keras_seq.TDNN` with the context 0, -d_i, .., -(k-1) d_i, weight-normalised, each with dropout of
    whole channels after it (`keras.layers.SpatialDropout1D`). Where x is not as wide as y, a 1x1 convolution makes it so.
    An output sees `receptive_field` = 1 + 2 (k-1) sum_i d_i steps and no later one. Hidden steps (`mask`) are treated as by
    `keras_seq.TDNN`. Step by step each convolution keeps its last (k-1) d_i inputs in a ring: a step costs the same
    whatever came before.

    Args:
        filters: positive integer, the width of every block, or a list of one for each.
        kernel_size: positive integer k.
        dilations: positive integers d_i, one for each block.
        dropout: share in [0, 1) of the channels to drop in training.
        activation: f.
        weight_normalization: whether the convolutions are weight-normalised.
        return_sequences: return all outputs (b, t, filters) rather than that of the last real step (b, filters).
        zero_output_for_mask: whether hidden steps of returned sequences are zeros.
        kernel_initializer: of all kernels; None for uniform numbers up to 1 / sqrt(k d) in size, k d the inputs of a sum. The
            sums of the blocks then stay as large as the inputs: six blocks on standard normal inputs give a deviation of
            0.4, ten 0.5, where He's start, for layers one after the other, gives 10 and 120; Silverbox, the same recipe, is
            learned to 8 mV in place of 15. (The paper's N(0, 0.01) needs the normalisation to grow.)
        seed: integer for the random numbers of dropout.
        bias_initializer: of all biases.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        sequences: tensor (b, t, d).
        mask: boolean tensor (b, t), True for real steps.
        training: whether dropout acts.

    Raises:
        TypeError, ValueError: filters, kernel_size or dilations that are no positive integers, or not as many of the one as
            of the other; a rate outside [0, 1); sequences that are not (b, t, d); a mask that is not (b, t).

    Warns:
        UserWarning: sequences known to be shorter than the receptive field.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.TCN(8, kernel_size=3, dilations=[1, 2, 4])
    y = layer(ops.ones((2, 40, 5)))      # (2, 8)
    print(layer.receptive_field)         # 29
    ```
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 32),
        dropout: float = 0.0,
        activation: Activation = "relu",
        weight_normalization: bool = True,
        return_sequences: bool = False,
        zero_output_for_mask: bool = False,
        kernel_initializer: Initializer = None,
        seed: int | None = None,
        bias_initializer: Initializer = "zeros",
        **kwargs: Unpack[SequenceArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.dilations = positive_integers("dilations", dilations)
        several = isinstance(filters, (list, tuple))
        self.filters = positive_integers("filters", filters) if several else positive_integer("filters", filters)
        widths = self.filters if several else [self.filters] * len(self.dilations)
        if len(widths) != len(self.dilations):
            raise ValueError(f"filters: expected one for each of the {len(self.dilations)} dilations, got {filters!r}")
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        self.dropout = rate("dropout", dropout)
        self.activation = named(activations, "activation", activation)
        self.weight_normalization = boolean("weight_normalization", weight_normalization)
        self.return_sequences = boolean("return_sequences", return_sequences)
        self.zero_output_for_mask = boolean("zero_output_for_mask", zero_output_for_mask)
        if kernel_initializer is None:
            kernel_initializer = initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        self.kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)
        self.bias_initializer = named(initializers, "bias_initializer", bias_initializer)
        self.seed = integer_or_none("seed", seed)
        self.parts = [
            self._convolution(
                width,
                d,
                activation=self.activation,
                weight_normalization=self.weight_normalization,
                name=f"convolution_{i}_{part}",
            )
            for i, (width, d) in enumerate(zip(widths, self.dilations, strict=True))
            for part in (1, 2)
        ]
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    @property
    def output_width(self) -> int:
        return self.parts[-1].units

    def build(self, sequences_shape: Shape) -> None:
        self.input_spec = spec_of(sequences_shape)
        width, self.shortcuts = sequences_shape[-1], []
        for first, second in zip(self.parts[::2], self.parts[1::2], strict=True):
            first.build((None, None, width))
            second.build((None, None, first.units))
            shortcut = None
            if width != second.units:
                shortcut = self._product(second.units)
                shortcut.build((None, None, width))
            self.shortcuts.append(shortcut)
            width = second.units

    def _through(self, x, apply, training):
        for first, second, shortcut in zip(self.parts[::2], self.parts[1::2], self.shortcuts, strict=True):
            z = self._dropped(apply(first, x), training)
            z = self._dropped(apply(second, z), training)
            x = self.activation(z + (x if shortcut is None else shortcut(x)))
        return x

    def _dropped(self, x, training):
        if not (training and self.dropout):
            return x
        batch, _, width = ops.shape(x)
        return dropped(x, self.dropout, self.seed_generator, (batch, 1, width))

    def get_config(self) -> Config:
        return {**super().get_config(), **described(self)}


@keras.saving.register_keras_serializable(package="keras_seq")
class WaveNet(_Dilated):
    """WaveNet (van den Oord et al. 2016): gated causal dilated convolutions, whose skip outputs are summed.

        x_1 = conv(x)
        z_i = tanh(W_i * x_i) . sigmoid(V_i * x_i);   s_i = z_i S_i;   x_{i+1} = x_i + z_i R_i
        y = relu(relu(sum_i s_i) A) B                 without `outputs`: y = relu(sum_i s_i)

    * is a causal convolution of `kernel_size` with the dilation d_i, conv one with dilation 1; biases are left out here. An
    output sees `receptive_field` = 1 + (k-1) (1 + sum_i d_i) steps: its own and those before. To predict x_{t+1} from them,
    train on targets one step later, or generate with `keras_seq.decoding.feed_back`. Hidden steps (`mask`) are treated as by
    `keras_seq.TDNN`; step by step, rings as in `keras_seq.TCN`. `x_{i+1}` of the last layer is not needed and not made.
    For sound `keras_seq.mu_law_encode` gives classes, an `Embedding` before the layer vectors.

    Args:
        filters: positive integer, the width of x_i and z_i.
        kernel_size: positive integer k.
        dilations: positive integers d_i, one for each layer. The paper repeats 1, 2, 4 .. 512.
        skip_filters: width of the sum of s_i; None for that of `filters`.
        outputs: width of y after the two products A and B, without an activation; None for none of the two.
        zero_output_for_mask: whether hidden steps give zeros.
        kernel_initializer, bias_initializer: of all kernels, and of all biases.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        sequences: tensor (b, t, d).
        mask: boolean tensor (b, t), True for real steps.

    Raises:
        TypeError, ValueError: widths, kernel_size or dilations that are no positive integers; sequences that are not
            (b, t, d); a mask that is not (b, t).

    Warns:
        UserWarning: sequences known to be shorter than the receptive field.

    Example:

    ```python
    import keras_seq
    from keras import ops
    layer = keras_seq.WaveNet(16, dilations=[1, 2, 4, 8], outputs=256)
    logits = layer(ops.ones((2, 40, 5)))     # (2, 40, 256)
    print(layer.receptive_field)             # 17
    ```
    """

    return_sequences = True

    def __init__(
        self,
        filters: int,
        kernel_size: int = 2,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        skip_filters: int | None = None,
        outputs: int | None = None,
        zero_output_for_mask: bool = False,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        **kwargs: Unpack[SequenceArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.filters = positive_integer("filters", filters)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        self.dilations = positive_integers("dilations", dilations)
        self.skip_filters = None if skip_filters is None else positive_integer("skip_filters", skip_filters)
        self.outputs = None if outputs is None else positive_integer("outputs", outputs)
        self.zero_output_for_mask = boolean("zero_output_for_mask", zero_output_for_mask)

        self.kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)
        self.bias_initializer = named(initializers, "bias_initializer", bias_initializer)

        def delayed(width, dilation, name):
            return self._convolution(width, dilation, activation=None, name=name)

        def product(width, name):
            return self._product(width, name=name)

        first = delayed(self.filters, 1, "convolution")
        gated = [delayed(2 * self.filters, d, f"gates_{i}") for i, d in enumerate(self.dilations)]
        self.parts = [first, *gated]
        self.skips = [product(self.skip_filters or self.filters, f"skip_{i}") for i in range(len(gated))]
        self.residuals = [product(self.filters, f"residual_{i}") for i in range(len(gated) - 1)]
        self.last = (
            [product(self.skip_filters or self.filters, "last_1"), product(self.outputs, "last_2")] if outputs else []
        )

    @property
    def output_width(self) -> int:
        return self.outputs or self.skip_filters or self.filters

    def build(self, sequences_shape: Shape) -> None:
        self.input_spec = spec_of(sequences_shape)
        self.parts[0].build((None, None, sequences_shape[-1]))
        for layer in (*self.parts[1:], *self.skips, *self.residuals):
            layer.build((None, None, self.filters))
        for layer in self.last:
            layer.build((None, None, self.skip_filters or self.filters))

    def _through(self, x, apply, training):
        x, total = apply(self.parts[0], x), 0
        for i, (part, skip) in enumerate(zip(self.parts[1:], self.skips, strict=True)):
            signal, gate = ops.split(apply(part, x), 2, axis=-1)
            z = ops.tanh(signal) * ops.sigmoid(gate)
            total = total + skip(z)
            if i < len(self.residuals):
                x = x + self.residuals[i](z)
        y = ops.relu(total)
        if self.last:
            first, second = self.last
            y = second(ops.relu(first(y)))
        return y

    def get_config(self) -> Config:
        return {**super().get_config(), **described(self)}


def mu_law_encode(signal: Tensor, mu: int = 255) -> Tensor:
    """Companding by the mu law (ITU-T G.711) to mu + 1 classes, as WaveNet's.

        n = round((sign(x) ln(1 + mu |x|) / ln(1 + mu) + 1) mu / 2),   x in [-1, 1]

    Small values get more classes than large ones.

    Args:
        signal: floating tensor, values in [-1, 1]; those outside are an error that only the caller can see: they give
            classes below 0 or above mu.
        mu: positive integer.

    Returns:
        int32 tensor of classes 0 .. mu.

    Raises:
        TypeError, ValueError: a signal that is no tensor of numbers; a mu that is no positive integer.

    Example:

    ```python
    import keras_seq
    classes = keras_seq.mu_law_encode([-1.0, 0.0, 0.01, 1.0])      # 0, 128, 157, 255
    signal = keras_seq.mu_law_decode(classes)                      # near -1, 0, 0.01, 1
    ```
    """
    mu = positive_integer("mu", mu)
    signal = tensor("signal", signal, "numbers")
    signal = ops.cast(signal, long_type(signal.dtype))  # sixteen bits do not tell all classes apart
    companded = ops.sign(signal) * ops.log1p(mu * ops.abs(signal)) / ops.log1p(ops.cast(mu, signal.dtype))
    return ops.cast(ops.round((companded + 1) * mu / 2), "int32")


def mu_law_decode(classes: Tensor, mu: int = 255) -> Tensor:
    """The signal that `keras_seq.mu_law_encode` made classes of, up to its rounding.

        y = 2 n / mu - 1;   x = sign(y) ((1 + mu)^|y| - 1) / mu

    Args:
        classes: integer tensor of classes 0 .. mu.
        mu: positive integer.

    Returns:
        float32 tensor, values in [-1, 1].

    Raises:
        TypeError, ValueError: classes that are no integers; a mu that is no positive integer.

    Example:

    ```python
    import keras_seq
    signal = keras_seq.mu_law_decode([0, 128, 255])      # -1, 0.00009, 1
    ```
    """
    mu = positive_integer("mu", mu)
    companded = 2 * ops.cast(tensor("classes", classes, "integers"), "float32") / mu - 1
    return ops.sign(companded) * (ops.power(1.0 + mu, ops.abs(companded)) - 1) / mu


def positive_integers(name, value):
    """A list of positive integers, at least one."""
    if not isinstance(value, (list, tuple, range)) or not value:
        raise TypeError(f"{name}: expected a list of at least one positive integer, got {value!r}")
    return [positive_integer(name, v) for v in value]

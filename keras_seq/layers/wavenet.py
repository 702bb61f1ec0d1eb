"""WaveNet, and the companding of signals that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import keras
from keras import initializers, ops

from keras_seq.arguments import boolean, described, named, positive_integer, tensor
from keras_seq.cells.floats import long_type
from keras_seq.layers.dilated import DilatedStack, positive_integers
from keras_seq.shapes import spec_of
from keras_seq.typing import Config, Initializer, SequenceArguments, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_seq")
class WaveNet(DilatedStack):
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

    def _apply_layers(self, x, apply, training):
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

"""The temporal convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import keras
from keras import activations, initializers, ops

from keras_seq.arguments import boolean, described, integer_or_none, named, positive_integer, rate
from keras_seq.engine import dropped
from keras_seq.layers.dilated import DilatedStack, positive_integers
from keras_seq.shapes import spec_of
from keras_seq.typing import Activation, Config, Initializer, SequenceArguments, Shape


@keras.saving.register_keras_serializable(package="keras_seq")
class TCN(DilatedStack):
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

    def _apply_layers(self, x, apply, training):
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

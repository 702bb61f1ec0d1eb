"""Depth: memories one above the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self, Unpack

import keras
from keras import ops

from keras_seq.arguments import boolean, integer_or_none, one_of, rate
from keras_seq.engine import dropped
from keras_seq.layers.streamable import PreparedConstants, Streamable
from keras_seq.layers.sublayers import (
    build_part,
    call_with_states,
    check_part,
    checked_states,
    from_widths,
    mask_after,
    reads_constants,
    shapes_of,
    state_specs,
)
from keras_seq.masking import last_real
from keras_seq.shapes import check_sequences, spec_of
from keras_seq.typing import Config, SequenceArguments, Shape, Tensor

SKIPS = (None, "residual", "dense")


@keras.saving.register_keras_serializable(package="keras_seq")
class Stacked(Streamable, keras.layers.Layer):
    """Several sequence layers, each reading what the one below it says.

        h^(l) = layer_l(x^(l)),   x^(1) = x

        skips=None         x^(l+1) = h^(l)                               y = h^(L)
        skips="residual"   x^(l+1) = x^(l) + h^(l), from l = 2 on        y = x^(L+1)
        skips="dense"      x^(l+1) = [x, h^(1), .., h^(l)]               y = [h^(1), .., h^(L)]

    A residual stack begins with a layer that brings x to the common width (x^(2) = h^(1)); in a dense one (Graves 2013,
    whose hidden layers see the input and whose output sees all of them; here each also sees all below it) each layer and
    the output see all there is. Each layer runs over the whole sequence before the next one does, so that a stack costs
    what its layers cost.

    States, given and returned, are one flat list: those of the first layer, in its order, then those of the second, and so
    on: for two LSTMs h^(1), c^(1), h^(2), c^(2).

    Each layer computes by its own dtype policy, and its states are of the type that it gives them. What goes from layer to
    layer and comes out in the end is in the compute type of this one's.

    Args:
        layers: a list of sequence layers of keras_seq (memories, `TDNN`, `TCN`, `WaveNet`, `Bidirectional`, `Stacked`), all
            but the last with return_sequences=True; or, with `widths`, a class of cells or layers, or any function from a
            width to a cell.
        widths: a list of positive integers, the units of each layer; only with such a class or function.
        skips: None, "residual" or "dense".
        dropout: share in [0, 1) of each layer's outputs to drop in training before the next layer reads them.
        return_sequences: with `widths`, whether the last layer returns all outputs. With a list of layers leave it None:
            the last layer decides.
        return_state: return the final states too, after the output.
        seed: integer for the random numbers of dropout.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        sequences: tensor (b, t, d).
        initial_state: a flat list of tensors, as above, or None.
        mask: boolean tensor (b, t), True for real steps; every layer gets it.
        training: whether dropout acts.
        constants: for the layers whose cells read some, the same for all of them; None where no layer does.
        sequences_mask: Keras fills it with the mask that it carries with the sequences; `mask` goes first.
        return_state: whether this call returns the final states; None for what the constructor says.

    Raises:
        TypeError, ValueError: no layer; one that is no sequence layer of keras_seq, reads backwards, returns internals or
            pairs, needs targets, is built for another width, or, below the last, returns no sequences; an unknown kind of
            skips; widths or a subsampling that a skip cannot join; other initial states than the layers have; return_state
            where no layer has a state.

    Example:

    ```python
    import keras_seq
    from keras import ops
    deep = keras_seq.Stacked(keras_seq.LSTM, [16, 16, 16], skips="residual", dropout=0.1, return_sequences=True)
    y = deep(ops.ones((2, 10, 5)))                                      # (2, 10, 16)
    mixed = keras_seq.Stacked([keras_seq.TDNN(8, delays=3), keras_seq.GRU(4)], return_state=False)
    y = mixed(ops.ones((2, 10, 5)))                                     # (2, 4)
    ```
    """

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer] | Callable[..., Any],
        widths: Sequence[int] | None = None,
        skips: str | None = None,
        dropout: float = 0.0,
        return_sequences: bool | None = None,
        return_state: bool = False,
        seed: int | None = None,
        **kwargs: Unpack[SequenceArguments],
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.supports_masking = True
        if return_sequences is not None:
            return_sequences = boolean("return_sequences", return_sequences)
        if widths is not None:
            layers = from_widths(layers, widths, bool(return_sequences), self.dtype_policy)
        if not isinstance(layers, (list, tuple)) or not layers:
            raise ValueError(f"layers: expected a list of at least one sequence layer, got {layers!r}")
        for i, layer in enumerate(layers):
            check_part(f"layers[{i}]", layer)
            if getattr(layer, "go_backwards", False):
                raise ValueError(
                    f"layers[{i}]: expected a layer that reads forwards, got {layer.name}; see Bidirectional"
                )
            if i < len(layers) - 1 and not layer.return_sequences:
                raise ValueError(
                    f"layers[{i}]: expected return_sequences=True below the last layer, got {layer.name} without"
                )
        if return_sequences not in (None, layers[-1].return_sequences):
            raise ValueError(
                f"return_sequences: expected None or that of the last layer, {layers[-1].return_sequences}, got "
                f"{return_sequences!r}"
            )
        self.layers = list(layers)
        self.skips = one_of("skips", skips, SKIPS)
        self.dropout = rate("dropout", dropout)
        self.return_state = boolean("return_state", return_state)
        self.seed = integer_or_none("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        if skips and self.subsampling > 1:
            raise ValueError(f"skips: expected None over a layer that subsamples, got {skips!r}")

    @property
    def sublayers_with_states(self) -> list[keras.layers.Layer]:
        return self.layers

    @property
    def return_sequences(self) -> bool:
        return self.layers[-1].return_sequences

    @property
    def state_size(self) -> list[int]:
        """The widths of all states, in the order in which they are given and returned."""
        return [size for layer in self.layers for size in layer.state_size]

    @property
    def stateful(self) -> bool:
        return any(getattr(layer, "stateful", False) for layer in self.layers)

    @property
    def subsampling(self) -> int:
        """One output for so many inputs."""
        return math.prod(getattr(layer, "subsampling", 1) for layer in self.layers)

    @property
    def output_width(self) -> int:
        if self.skips == "dense":
            return sum(layer.output_width for layer in self.layers)
        return self.layers[-1].output_width

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None, constants_shape: Any = None) -> None:
        if self.return_state and not self.state_size:
            raise ValueError("return_state: expected False where no layer has a state, got True")
        self.input_spec = spec_of(sequences_shape)
        batch, steps, width = sequences_shape
        for i, layer in enumerate(self.layers):
            build_part(f"layers[{i}]", layer, (batch, steps, width), constants_shape)
            if self.skips == "residual" and i > 0 and layer.output_width != width:
                raise ValueError(
                    f"layers[{i}]: expected an output of width {width}, as a residual adds it to its input, got "
                    f"{layer.output_width} of {layer.name}"
                )
            steps = steps and -(-steps // getattr(layer, "subsampling", 1))
            width = layer.output_width + (width if self.skips == "dense" else 0)

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool = False,
        constants: Sequence[Tensor] | None = None,
        sequences_mask: Tensor | None = None,
        return_state: bool | None = None,
    ) -> Any:
        mask = sequences_mask if mask is None else mask
        check_sequences(sequences, mask)
        self._check_constants(constants)
        initial_state = checked_states(self, initial_state, sequences.shape[0])

        def apply(layer, x, states, mask):
            return call_with_states(layer, x, states, mask, constants)

        sequences = ops.cast(sequences, self.compute_dtype)
        sizes = [len(layer.state_size) for layer in self.layers]
        outputs, states = self._apply_layers(sequences, initial_state, mask, apply, sizes, training)
        return (outputs, *states) if self._returns_states(return_state) else outputs

    def _apply_layers(self, x, states, mask, apply, sizes, training=False):
        """`(outputs, new states)`: `apply(layer, x, states, mask)` for each layer, with the skips and dropout between."""
        left, found, outputs = states, [], []
        for i, (layer, size) in enumerate(zip(self.layers, sizes, strict=True)):
            given, left = (None, None) if left is None else (left[:size], left[size:])
            seen = dropped(x, self.dropout, self.seed_generator) if i and training and self.dropout else x
            h, new = apply(layer, seen, given, mask)
            h = ops.cast(h, self.compute_dtype)
            found.extend(new)
            if len(h.shape) < len(x.shape):  # the last layer gives its last output alone
                x, outputs = last_real(x, mask), [last_real(below, mask) for below in outputs]
            outputs.append(h)
            if self.skips == "dense":
                x = ops.concatenate([x, h], axis=-1)
            elif self.skips == "residual" and i:
                x = x + h
            else:
                x = h
            if len(h.shape) == 3:
                mask = mask_after(layer, seen, mask)
        return ops.concatenate(outputs, axis=-1) if self.skips == "dense" else x, found

    def reset_state(self) -> None:
        """Put the kept states of the stateful layers back to the initial ones."""
        for layer in self.layers:
            if getattr(layer, "stateful", False):
                layer.reset_state()

    def reset_states(self) -> None:
        """`reset_state`, by the other name that Keras has for it."""
        self.reset_state()

    # -- step by step ------------------------------------------------------------------------------------------------

    @property
    def not_stepwise(self) -> str | None:
        return next((f"of {layer.name}, {layer.not_stepwise}" for layer in self.layers if layer.not_stepwise), None)

    def initial_state(self, batch_size: int | Tensor, states: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The state before the first step: those of the layers, one after the other."""
        self._check_stepwise()
        left, found = checked_states(self, states, None, "states"), []
        for layer in self.layers:
            count = len(layer.state_size)
            if left is None or not count:
                found.extend(layer.initial_state(batch_size))
            else:
                found.extend(layer.initial_state(batch_size, left[:count]))
                left = left[count:]
        return found

    def prepare_constants(self, constants: Sequence[Tensor]) -> PreparedConstants:
        """What `step` makes of its constants, for each layer; given in their place, it is not made anew at every step."""
        self._check_constants(constants)
        return PreparedConstants(
            tuple(layer.prepare_constants(constants) if reads_constants(layer) else () for layer in self.layers)
        )

    def unchecked_step(
        self, inputs: Tensor, state: Sequence[Tensor], mask: Tensor | None, zeros: bool = True, constants: Any = None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        if not isinstance(constants, PreparedConstants):
            constants = self.prepare_constants(constants or ())
        zeros = zeros and self.return_sequences  # else what is joined at a hidden step is what was at the last real one
        prepared = {id(layer): c for layer, c in zip(self.layers, constants.tensors, strict=True)}

        def apply(layer, x, states, mask):
            further = {"constants": prepared[id(layer)]} if reads_constants(layer) else {}
            return layer.step(x, states, mask, zeros=zeros, **further)

        sizes = [len(layer.initial_state(1)) for layer in self.layers]
        return self._apply_layers(ops.cast(inputs, self.compute_dtype), state, mask, apply, sizes)

    def _check_constants(self, constants):
        if bool(constants) != reads_constants(self):
            expected = "some, as a layer reads them" if not constants else "none, as no layer reads any"
            raise ValueError(f"constants: expected {expected}, got {len(constants or ())}")

    # -- shapes, masks, configuration --------------------------------------------------------------------------------

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        mask = mask if self.return_sequences else None
        for layer in self.layers:
            mask = mask_after(layer, sequences, mask)
        return [mask, *[None for _ in self.state_size]] if self.return_state else mask

    def compute_output_spec(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        return_state: bool | None = None,
        **further: Any,
    ) -> Any:
        check_sequences(sequences, mask)
        checked_states(self, initial_state, sequences.shape[0])
        batch, steps = sequences.shape[:2]
        shape = (batch, steps and -(-steps // self.subsampling)) if self.return_sequences else (batch,)
        outputs = keras.KerasTensor((*shape, self.output_width), self.compute_dtype)
        return (outputs, *state_specs(self, batch)) if self._returns_states(return_state) else outputs

    def compute_output_shape(
        self, sequences_shape: Shape, initial_state_shape: Any = None, constants_shape: Any = None
    ) -> Any:
        return shapes_of(self, sequences_shape)

    def get_config(self) -> Config:
        config = {name: getattr(self, name) for name in ("skips", "dropout", "return_state", "seed")}
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers, **config}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "layers": [keras.saving.deserialize_keras_object(c) for c in config["layers"]]})

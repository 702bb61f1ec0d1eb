"""Both directions: one memory reads forwards, one backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, Unpack

import keras
from keras import ops

from keras_seq.layers.streamable import Streamable
from keras_seq.layers.sublayers import (
    build_part,
    call_with_states,
    check_part,
    check_reads_no_constants,
    checked_states,
    shapes_of,
    state_specs,
)
from keras_seq.shapes import check_sequences, spec_of
from keras_seq.typing import Config, SequenceArguments, Shape, Tensor

MERGES = {
    "concat": lambda y, z: ops.concatenate([y, z], axis=-1),
    "sum": lambda y, z: y + z,
    "mul": lambda y, z: y * z,
    "ave": lambda y, z: (y + z) / 2,
    None: lambda y, z: (y, z),
}


@keras.saving.register_keras_serializable(package="keras_seq")
class Bidirectional(Streamable, keras.layers.Layer):
    """A sequence read in both directions (Schuster and Paliwal 1997).

        y_t = merge(forward(x_1 .. x_t), backward(x_T .. x_t))

    Over any sequence layer of keras_seq, stacks and convolutions too. The backward half reads each row's real steps in
    reverse, wherever its mask has holes; its outputs are put back in the order of the inputs. Without return_sequences both
    halves give their output after the last step that they read. Hidden steps are as each half gives them: a memory repeats
    the last output of its own direction, or in returned sequences gives zeros with `zero_output_for_mask` (Keras forces that).

    States, given and returned, are one flat list, those of the forward half and then those of the backward one. A stateful
    layer carries its states forwards only: the backward half is not stateful and starts anew with each batch, as the end of
    the sequence is not known before it is there. (Keras starts it at the end of the batch before.) Weights are those of
    the two halves in this order, as in `keras.layers.Bidirectional`, with which they interchange; they have the same
    paths, as the half given as `layer`, if it is not built yet, is named anew: an `lstm` becomes `forward_lstm`. Each
    half computes by its own dtype policy, and its states are of the type that it gives them; outputs are in the compute type
    of this layer's.

    Args:
        layer: the forward half; it says what is returned.
        merge_mode: "concat", "sum", "mul", "ave", None for a pair of outputs, or a function of both that can be saved: one
            registered by `keras.saving.register_keras_serializable`, or a Keras merging layer.
        weights: a list of arrays, the first values of the weights, in the order of `get_weights`; None for those that the
            initializers draw. As in Keras they are no part of the config: a saved model has its weights apart.
        backward_layer: the backward half, with or without go_backwards; None for one made like `layer`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        sequences: tensor (b, t, d).
        initial_state: a flat list of tensors, as above, or None.
        mask: boolean tensor (b, t), True for real steps.
        sequences_mask: Keras fills it with the mask that it carries with the sequences; `mask` goes first.
        return_state: whether this call returns the final states; None for what the layer says.

    Raises:
        TypeError, ValueError: halves that are no sequence layers of keras_seq, return internals or pairs, subsample, read
            constants, need targets, or return different things; a forward half that reads backwards; a backward half that
            is stateful; an unknown merge_mode, or a function that cannot be saved; other initial states than the halves
            have; its step form, as the backward half begins at the end.

    Example:

    ```python
    import keras_seq
    from keras import ops
    y = keras_seq.Bidirectional(keras_seq.GRU(4, return_sequences=True))(ops.ones((2, 10, 5)))     # (2, 10, 8)
    ```
    """

    not_stepwise = "its backward half begins at the end"

    def __init__(
        self,
        layer: keras.layers.Layer,
        merge_mode: str | Callable[[Tensor, Tensor], Any] | None = "concat",
        weights: Sequence[Any] | None = None,
        backward_layer: keras.layers.Layer | None = None,
        **kwargs: Unpack[SequenceArguments],
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.supports_masking = True
        if isinstance(weights, keras.layers.Layer) and backward_layer is None:  # which stood in this place before
            weights, backward_layer = None, weights
        check_part("layer", layer)
        if getattr(layer, "go_backwards", False):
            raise ValueError(f"layer: expected one that reads forwards, got {layer.name} with go_backwards=True")
        if backward_layer is None:
            backward_layer = _like(layer)
        check_part("backward_layer", backward_layer)
        if getattr(backward_layer, "stateful", False):
            raise ValueError(f"backward_layer: expected one that is not stateful, got {backward_layer.name}")
        for flag in ("return_sequences", "return_state"):
            wanted, got = (getattr(half, flag, False) for half in (layer, backward_layer))
            if wanted != got:
                raise ValueError(f"backward_layer: expected {flag}={wanted} like the layer's, got {got}")
        for name, half in (("layer", layer), ("backward_layer", backward_layer)):
            if getattr(half, "subsampling", 1) > 1:
                raise ValueError(f"{name}: expected one without subsampling, got {half.name}")
            check_reads_no_constants(name, half)
        if not (weights is None or isinstance(weights, (list, tuple))):
            raise TypeError(f"weights: expected a list of arrays or None, got {weights!r}")
        self.merge_mode = merge_mode
        self._merge = _merging(merge_mode)
        if not layer.built:
            layer.name = _prefixed("forward_", layer.name)
        self.forward_layer, self.backward_layer = layer, backward_layer
        self._first_weights = weights

    @property
    def sublayers_with_states(self) -> list[keras.layers.Layer]:
        return [self.forward_layer, self.backward_layer]

    @property
    def return_sequences(self) -> bool:
        return self.forward_layer.return_sequences

    @property
    def return_state(self) -> bool:
        return getattr(self.forward_layer, "return_state", False)

    @property
    def stateful(self) -> bool:
        return getattr(self.forward_layer, "stateful", False)

    @property
    def state_size(self) -> list[int]:
        """The widths of all states, in the order in which they are given and returned."""
        return [size for half in self.sublayers_with_states for size in half.state_size]

    @property
    def output_width(self) -> int:
        return self._merged_spec((1,)).shape[-1]

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None) -> None:
        self.input_spec = spec_of(sequences_shape)
        for name, half in zip(("layer", "backward_layer"), self.sublayers_with_states, strict=True):
            build_part(name, half, tuple(sequences_shape))
        if isinstance(self.merge_mode, str):
            self._merged_spec((1,))
        if self._first_weights is not None:
            self.set_weights(self._first_weights)
            self._first_weights = None

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        sequences_mask: Tensor | None = None,
        return_state: bool | None = None,
    ) -> Any:
        mask = sequences_mask if mask is None else mask
        check_sequences(sequences, mask)
        forward, backward = None, None
        if initial_state is not None:
            given, count = checked_states(self, initial_state, sequences.shape[0]), len(self.forward_layer.state_size)
            forward, backward = given[:count], given[count:]
        sequences = ops.cast(sequences, self.compute_dtype)
        y, states = call_with_states(self.forward_layer, sequences, forward, mask)
        z, further = self._read_backwards(sequences, backward, mask)
        merged = self._merge(*(ops.cast(half, self.compute_dtype) for half in (y, z)))
        merged = keras.tree.map_structure(lambda x: ops.cast(x, self.compute_dtype), merged)
        if not self._returns_states(return_state):
            return merged
        return (*(merged if self.merge_mode is None else (merged,)), *states, *further)

    def _read_backwards(self, sequences, states, mask):
        half = self.backward_layer
        if not getattr(half, "go_backwards", False):
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        z, states = call_with_states(half, sequences, states, mask)
        return ops.flip(z, axis=1) if half.return_sequences else z, states

    def reset_state(self) -> None:
        """Put the kept states of the forward half back to the initial ones."""
        if self.stateful:
            self.forward_layer.reset_state()

    def reset_states(self) -> None:
        """`reset_state`, by the other name that Keras has for it."""
        self.reset_state()

    @property
    def states(self) -> Sequence[Tensor] | None:
        """The kept states, those of the forward half; None if there are none."""
        return getattr(self.forward_layer, "states", None)

    # -- shapes, masks, configuration --------------------------------------------------------------------------------

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        mask = mask if self.return_sequences else None
        states = [None for _ in self.state_size] if self.return_state else []
        outputs = [mask, mask] if self.merge_mode is None else [mask]
        return [*outputs, *states] if len(outputs) + len(states) > 1 else mask

    def _merged_spec(self, leading):
        y, z = (
            keras.KerasTensor((*leading, half.output_width), self.compute_dtype) for half in self.sublayers_with_states
        )
        if self.merge_mode is None:
            return y, z
        if self.merge_mode == "concat":
            return keras.KerasTensor((*leading, y.shape[-1] + z.shape[-1]), self.compute_dtype)
        if y.shape != z.shape and isinstance(self.merge_mode, str):
            raise ValueError(
                f"merge_mode: expected 'concat' or None for halves of widths {y.shape[-1]} and {z.shape[-1]}, got "
                f"{self.merge_mode!r}"
            )
        merged = y if isinstance(self.merge_mode, str) else self._merge(y, z)
        return keras.KerasTensor(merged.shape, self.compute_dtype)

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
        merged = self._merged_spec(sequences.shape[: 2 if self.return_sequences else 1])
        if not self._returns_states(return_state):
            return merged
        return (*(merged if self.merge_mode is None else (merged,)), *state_specs(self, sequences.shape[0]))

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Any = None) -> Any:
        return shapes_of(self, sequences_shape)

    def get_config(self) -> Config:
        merge = self.merge_mode
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.forward_layer),
            "merge_mode": keras.saving.serialize_keras_object(merge) if callable(merge) else merge,
            "backward_layer": keras.saving.serialize_keras_object(self.backward_layer),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        objects = {
            name: keras.saving.deserialize_keras_object(config[name])
            if isinstance(config[name], dict)
            else config[name]
            for name in ("layer", "merge_mode", "backward_layer")
        }
        return cls(**{**config, **objects})


def _like(layer):
    """A layer of the same configuration, with weights of its own, not stateful."""

    def carries_nothing(config):
        if isinstance(config, dict):
            return {k: False if k == "stateful" else carries_nothing(v) for k, v in config.items()}
        return [carries_nothing(v) for v in config] if isinstance(config, list) else config

    described = carries_nothing(keras.saving.serialize_keras_object(layer))
    described["config"]["name"] = _prefixed("backward_", layer.name)
    return keras.saving.deserialize_keras_object(described)


def _prefixed(prefix, name):
    """The name with the prefix, once."""
    return prefix + name.removeprefix(prefix)


def _merging(merge_mode):
    if not callable(merge_mode):
        if not isinstance(merge_mode, (str, type(None))) or merge_mode not in MERGES:
            raise ValueError(f"merge_mode: expected one of {list(MERGES)} or a function, got {merge_mode!r}")
        return MERGES[merge_mode]
    if isinstance(merge_mode, keras.layers.Layer):
        return lambda y, z: merge_mode([y, z])
    registered = keras.saving.get_registered_name(merge_mode)
    if keras.saving.get_registered_object(registered) is not merge_mode:
        raise ValueError(
            f"merge_mode: expected a function that can be saved, registered by "
            f"keras.saving.register_keras_serializable, got {merge_mode!r}"
        )
    return merge_mode

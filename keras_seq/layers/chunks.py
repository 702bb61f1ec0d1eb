"""Sequences longer than memory, chunk by chunk: what layers and models carry from one chunk to the next."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_seq.layers.rewriting import Rewriting
from keras_seq.layers.rnn import RNN
from keras_seq.layers.stacked import Stacked
from keras_seq.layers.sublayers import call_with_states, check_part, check_reads_no_constants
from keras_seq.typing import Tensor


def check_runs_in_chunks(name: str, layer: Any) -> None:
    """An error that names the argument unless this can read a sequence from left to right, chunk by chunk."""
    check_part(name, layer)
    check_reads_no_constants(name, layer)
    if not layer.return_sequences:
        raise ValueError(f"{name}: expected return_sequences=True, got {layer.name} without")
    if layer.not_stepwise:
        raise ValueError(
            f"{name}: expected a layer that reads forwards step by step, got {layer.name}; {layer.not_stepwise}"
        )
    if getattr(layer, "stateful", False):
        raise ValueError(
            f"{name}: expected stateful=False, as the model carries the states, got {layer.name} with True"
        )


def first_state(layer: Any, rows: int | Tensor) -> list[Tensor]:
    """What a built layer carries before its first chunk: a flat list of tensors, `rows` rows each.

    A recurrent layer carries its states; a layer that sees n steps carries the last n - 1 inputs and which of them there
    have been; a stack what its layers carry.
    """
    if isinstance(layer, Stacked):
        return [s for part in layer.layers for s in first_state(part, rows)]
    if isinstance(layer, RNN):
        return [ops.cast(s, layer.state_dtype) for s in layer.first_state(rows)]
    reach, width = layer.receptive_field - 1, layer.input_spec.axes[-1]
    if not reach:
        return []
    return [ops.zeros((rows, reach, width), dtype=layer.compute_dtype), ops.zeros((rows, reach), dtype="bool")]


def run_chunk(
    layer: Any,
    sequences: Tensor,
    states: Sequence[Tensor],
    mask: Tensor | None,
    training: bool = False,
    targets: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """`(outputs, new states)` of one chunk: those of a longer sequence, from what was carried to its end."""
    if isinstance(layer, Stacked):
        sizes = [len(first_state(part, 1)) for part in layer.layers]
        apply = functools.partial(run_chunk, training=training)
        sequences = ops.cast(sequences, layer.compute_dtype)
        return layer._apply_layers(sequences, list(states), mask, apply, sizes, training)
    if isinstance(layer, RNN):
        return call_with_states(layer, sequences, list(states), mask, targets=targets)
    if not states:
        return layer(sequences, mask=mask), []
    before, been = states
    reach = before.shape[1]
    if mask is None:
        mask = ops.ones_like(sequences[:, :, 0], dtype="bool")
    joined = ops.concatenate([before, ops.cast(sequences, before.dtype)], axis=1)
    real = ops.concatenate([been, mask], axis=1)
    outputs = layer(joined, mask=real)[:, reach:]
    steps = ops.arange(ops.shape(real)[1], dtype="int32")
    order = ops.argsort(ops.where(real, steps + ops.shape(real)[1], steps), axis=1)  # the real ones last
    last = order[:, -reach:]
    return outputs, [
        ops.take_along_axis(joined, ops.expand_dims(last, -1), axis=1),
        ops.take_along_axis(real, last, axis=1),
    ]


class ChunkForm(keras.layers.Layer):
    """A sequence layer as a layer of a chunk: `[x (b, k, d), *state] -> [y, *new state]`; the weights are its own.

    Args:
        layer: a built sequence layer of keras_seq that can be run step by step.
        ragged: between x and the state stands which steps are real, (b, k), of those that the mask shows.
    """

    def __init__(self, layer: Any, ragged: bool) -> None:
        super().__init__(autocast=False, name=f"{layer.name}_chunk", dtype=layer.dtype_policy)
        self.supports_masking = True
        self.layer, self.ragged = layer, ragged

    def call(
        self, inputs: Sequence[Tensor], mask: Any = None, training: bool = False, targets: Tensor | None = None
    ) -> list[Tensor]:
        sequences, *state = inputs
        real = ops.cast(state.pop(0), "bool") if self.ragged else None
        outputs, state = run_chunk(self.layer, sequences, state, _both(mask, real), bool(training), targets)
        return [outputs, *state]

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        sequences, *state = inputs
        leading = sequences.shape[:2] if self.layer.return_sequences else sequences.shape[:1]
        outputs = keras.KerasTensor((*leading, self.layer.output_width), self.layer.compute_dtype)
        return [outputs, *[keras.KerasTensor(s.shape, s.dtype) for s in state[self.ragged :]]]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        real = ops.cast(inputs[1], "bool") if self.ragged else None
        mask = _both(mask, real) if self.layer.return_sequences else None
        return [mask, *[None for _ in inputs[1 + self.ragged :]]]


class _Ragged(keras.layers.Layer):
    """`[y (b, k, ..), which steps are real (b, k)] -> y`, with a mask that hides the others from the loss and metrics."""

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.supports_masking = True

    def call(self, inputs: Sequence[Tensor], mask: Any = None) -> Tensor:
        return ops.reshape(inputs[0], ops.shape(inputs[0]))  # a tensor of its own, which has no mask yet

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return _both(mask, ops.cast(inputs[1], "bool"))


class Chunks(Rewriting):
    """A functional model in chunks: `[*inputs (b, k, ..), *states] -> [*outputs, *states]`.

    Args:
        trusted: as in `Rewriting`.
        ragged: after the inputs comes which of the steps are real, (b, k): no other moves a state or reaches the loss.
    """

    way, suffix, steps = "in chunks", "chunk", None

    def __init__(self, trusted: set[Any], ragged: bool = False) -> None:
        self.ragged = ragged
        super().__init__(trusted)

    def new_inputs(self) -> list[Any]:
        return [keras.Input((None,), dtype="int32")] if self.ragged else []

    def like(self) -> Rewriting:
        return Chunks(self.trusted, self.ragged)

    def form(self, layer: Any) -> keras.layers.Layer:
        return ChunkForm(layer, self.ragged)

    def first_state(self, layer: Any) -> list[Tensor]:
        return first_state(layer, 1)

    def output(self, outputs: Tensor) -> Tensor:
        return _Ragged()([outputs, *self.further]) if self.ragged else outputs


def _both(mask, real):
    """The steps that a mask shows, the first of a list where each input has one, and that are real."""
    mask = mask[0] if isinstance(mask, (list, tuple)) else mask
    if mask is None or real is None:
        return real if mask is None else mask
    return ops.logical_and(mask, real)

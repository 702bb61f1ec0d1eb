"""What a memory carries from one chunk of a long text to the next."""

from __future__ import annotations

import functools
import threading

from keras import ops

from keras_seq.layers import RNN, Stacked
from keras_seq.layers.sublayers import call_with_states, check_part, check_reads_no_constants


def check_memory(name, memory):
    """An error that names the argument unless this can read a text from left to right, chunk by chunk."""
    check_part(name, memory)
    check_reads_no_constants(name, memory)
    if not memory.return_sequences:
        raise ValueError(f"{name}: expected return_sequences=True, got {memory.name} without")
    if memory.not_stepwise:
        raise ValueError(
            f"{name}: expected a layer that reads forwards step by step, got {memory.name}; {memory.not_stepwise}"
        )
    if getattr(memory, "stateful", False):
        raise ValueError(
            f"{name}: expected stateful=False, as the model carries the states, got {memory.name} with True"
        )


def first_state(layer, rows):
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


def carried(layer, sequences, states, mask, training=False):
    """`(outputs, new states)` of one chunk: those of a longer sequence, from what was carried to its end."""
    if isinstance(layer, Stacked):
        sizes = [len(first_state(part, 1)) for part in layer.layers]
        apply = functools.partial(carried, training=training)
        sequences = ops.cast(sequences, layer.compute_dtype)
        return layer._apply_layers(sequences, list(states), mask, apply, sizes, training)
    if isinstance(layer, RNN):
        return call_with_states(layer, sequences, list(states), mask)
    if not states:
        return layer(sequences, mask=mask), []
    before, been = states
    reach = before.shape[1]
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


def by_shape(make):
    """A function of an iterator that Keras trains or tests by: `make()` gives one for each shape of the data.

    Keras makes one for all, which forgets how many rows there are as soon as it has met two numbers of them: with them it
    would forget whose states they are.
    """
    made, making = {}, threading.Lock()

    def function(iterator):
        key = str(getattr(iterator, "element_spec", None))
        with making:
            if key not in made:
                made[key] = make()
        return made[key](iterator)

    return function


class Apart:
    """An object to those who read it; what they set is set here."""

    def __init__(self, whole):
        self.__dict__["_whole"] = whole

    def __getattr__(self, name):
        return getattr(self._whole, name)

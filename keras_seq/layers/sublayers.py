"""What layers made of sequence layers share: checking the parts, calling them, and their states as one flat list."""

import keras

from keras_seq.arguments import positive_integer
from keras_seq.cells.base import Cell
from keras_seq.layers.rnn import RNN
from keras_seq.layers.streamable import Streamable
from keras_seq.shapes import fits, shapes_of_states


def check_part(name, layer):
    """An error that names the argument unless this is a layer that can be a part."""
    if not (isinstance(layer, Streamable) and isinstance(layer, keras.layers.Layer)):
        place = ", which stands before or behind one" if type(layer).__module__.startswith("keras_seq.") else ""
        raise TypeError(f"{name}: expected a sequence layer of keras_seq, got {layer!r}{place}")
    if getattr(layer, "return_internals", False):
        raise ValueError(f"{name}: expected a layer with return_internals=False, got {layer.name}")
    if getattr(layer, "merge_mode", "") is None:
        raise ValueError(f"{name}: expected a layer with one output, got {layer.name} with merge_mode=None")
    _check_alone(name, layer)


def build_part(name, layer, shape, constants_shape=None):
    """Build a part, unless it is built; an error that names the argument if it is made for other sequences."""
    if not layer.built:
        further = {"constants_shape": constants_shape} if constants_shape and reads_constants(layer) else {}
        layer.build(shape, **further)
    width = layer.input_spec.axes[-1]
    if width != shape[-1]:
        raise ValueError(
            f"{name}: expected a layer for inputs of width {shape[-1]}, got {layer.name}, built for {width}"
        )
    _check_alone(name, layer, width)


def _check_alone(name, layer, width=None):
    if layer.needs_targets(width):
        inputs = "its inputs" if width is None else f"inputs of width {width}"
        raise ValueError(
            f"{name}: expected a layer that reads {inputs} alone, got {layer.name}, which needs targets (its close_loop() "
            "gives one that does not)"
        )


def has_flag(layer, name):
    """Whether the layer has this flag, or a part of it."""
    return getattr(layer, name, False) or any(
        has_flag(part, name) for part in getattr(layer, "sublayers_with_states", ())
    )


def check_reads_no_constants(name, layer):
    """An error that names the argument if the layer reads constants, where there are none."""
    if reads_constants(layer):
        raise ValueError(f"{name}: expected a layer that reads no constants, got {layer.name}")


def state_names(layer):
    """What each state of a layer is, in the order of the flat list."""
    if hasattr(layer, "sublayers_with_states"):
        return [name for part in layer.sublayers_with_states for name in state_names(part)]
    names = getattr(getattr(layer, "cell", None), "state_names", None) or range(len(layer.state_size))
    return [f"{layer.name} {name}" for name in names][: len(layer.state_size)]


def checked_states(layer, initial_state, batch, name="initial_state"):
    """The initial states as a list, or None; a ValueError says how many there have to be, and in which order."""
    if initial_state is None:
        return None
    given = list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
    expected = [(batch, size) for size in layer.state_size]
    shapes = shapes_of_states(given, name)
    if len(shapes) != len(expected) or not all(map(fits, shapes, expected)):
        wanted = ", ".join(f"{n} {s}" for n, s in zip(state_names(layer), expected, strict=True))
        raise ValueError(f"{name}: expected {len(expected)} tensors in this order: {wanted}; got {shapes}")
    return given


def reads_constants(layer):
    """Whether the layer takes constants: its cell does, or one of its parts."""
    return bool(
        getattr(getattr(layer, "cell", None), "constant_names", ())
        or any(map(reads_constants, getattr(layer, "sublayers_with_states", ())))
    )


def call_with_states(layer, sequences, initial_state=None, mask=None, constants=None, targets=None):
    """`(outputs, final states)` of a layer, whether it returns its states or not; constants go where they are read."""
    if not layer.state_size:
        return layer(sequences, mask=mask), []
    further = {} if initial_state is None else {"initial_state": initial_state}
    further |= {} if targets is None else {"targets": targets}
    if constants and reads_constants(layer):
        further["constants"] = constants
    outputs, *states = layer(sequences, mask=mask, return_state=True, **further)
    return outputs, states


def mask_after(layer, sequences, mask):
    """The mask of a layer's outputs, without those of the states that it may return."""
    found = None if mask is None else layer.compute_mask(sequences, mask)
    return found[0] if isinstance(found, (list, tuple)) else found


def state_specs(layer, batch):
    """What the states of a layer are, each of the type that the part has which it is of."""
    parts = getattr(layer, "sublayers_with_states", None)
    if parts is not None:
        return [spec for part in parts for spec in state_specs(part, batch)]
    return [keras.KerasTensor((batch, size), layer.state_dtype) for size in layer.state_size]


def shapes_of(layer, sequences_shape):
    """The shapes of what a layer returns; one not built is asked through a copy of it."""
    if not layer.built:
        layer = type(layer).from_config(layer.get_config())
        layer.build(sequences_shape)
    found = layer.compute_output_spec(keras.KerasTensor(sequences_shape, layer.compute_dtype))
    return keras.tree.map_structure(lambda x: x.shape, found)


def from_widths(make, widths, return_sequences, dtype):
    """A layer for each width, by a class of cells or layers, or a function from a width to a cell."""
    if not isinstance(widths, (list, tuple)) or not widths:
        raise TypeError(f"widths: expected a list of at least one positive integer, got {widths!r}")
    if not callable(make):
        raise TypeError(f"layers: expected a class, or a function from a width to a cell, with widths, got {make!r}")
    layers = []
    for i, width in enumerate(widths):
        width = positive_integer(f"widths[{i}]", width)
        flags = {"return_sequences": i < len(widths) - 1 or return_sequences, "dtype": dtype}
        if isinstance(make, type) and issubclass(make, RNN):
            layers.append(make(width, **flags))
            continue
        made = make(width, dtype=dtype) if isinstance(make, type) else make(width)
        layers.append(RNN(made, **flags) if isinstance(made, Cell) else made)
    return layers

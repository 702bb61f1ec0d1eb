"""A cell under test: it is never touched itself, but made anew from its config, as often and as one likes."""

import functools
import json

import keras
import tensorflow as tf

from keras_seq.arguments import positive_integer
from keras_seq.cells.base import Cell
from keras_seq.layers import RNN
from keras_seq.testing.runs import MASK, random_data, randomised

B, T = MASK.shape
PLAIN = {"dropout": 0.0, "recurrent_dropout": 0.0, "zoneout": 0.0, "learn_initial_state": False, "seed": 5}
"""What each check has out of its way unless it is about that."""


class CellUnderTest:
    """A cell, the width of its inputs, and its constants; makes cells and layers like it, and data for them."""

    def __init__(self, cell, features=None, constants=()):
        if not isinstance(cell, Cell):
            raise TypeError(f"cell: expected a keras_seq.Cell, got {cell!r}")
        self.original = cell
        self.features = features_of(cell) if features is None else positive_integer("features", features)
        self.constants = [_specified(c) for c in constants]
        if len(self.constants) != len(cell.constant_names):
            raise ValueError(
                f"constants: expected a shape for each of {tuple(cell.constant_names)}, which {type(cell).__name__} reads, "
                f"got {len(self.constants)}"
            )

    @property
    def name(self):
        return type(self.original).__name__

    @functools.cached_property
    def config(self):
        return json.loads(json.dumps(keras.saving.serialize_keras_object(self.original)))

    @property
    def loops(self):
        """How it may be run: closed, and open (on true outputs) if it can."""
        return (False, True) if self.original.supports_teacher_forcing else (False,)

    def has(self, argument):
        """Whether it, or a cell in it, takes this argument of `keras_seq.Cell`."""
        return _changed(self.config, {argument: None}) != _changed(self.config, {argument: 0})

    def cell(self, dtype="float64", **changes):
        """A cell like it, unbuilt."""
        return keras.saving.deserialize_keras_object(_changed(self.config, {**PLAIN, **changes}, dtype))

    def layer(self, dtype="float64", changes=None, b=None, **flags):
        """A built layer over such a cell, with random weights."""
        cell = self.cell(dtype, **(changes or {}))
        flags = {"return_sequences": True, "return_state": True, **flags}
        layer = RNN(cell, dtype=dtype, name="checked", **flags)
        shapes = {"constants_shape": [s.shape for s in self.constants]} if self.constants else {}
        layer.build((b, None, self.features), **shapes)
        return randomised(layer)

    def data(self, layer, b=B, t=T, mask=True, open_loop=False, states=True, seed=0):
        """Random data for a layer. The mask is `MASK`, or as much of it as fits; None for `mask=False`."""
        return random_data(layer, self.features, self.constants, b, t, mask, open_loop, states, seed)

    def one_step(self, dtype="float64", b=B, seed=0):
        """A built cell with random weights, and what its step is called with: inputs, states, constants, all of one step."""
        layer = self.layer(dtype)
        given = self.data(layer, b=b, t=1, mask=False, seed=seed)
        return layer.cell, given.x[:, 0], given.states, given.constants


def features_of(cell):
    """The width of the inputs that a cell was built for; 3 if it is not built."""
    shapes = cell.get_build_config() if cell.built else None
    shape = (shapes or {}).get("input_shape") or (shapes or {}).get("shapes_dict", {}).get("input_shape")
    return int(shape[-1]) if shape else 3


def take_step(cell, x, states, constants=()):
    """`(output after the readout, new states)` of one step on inputs (b, d)."""
    constants = cell.run_prepare(constants)
    output, new = cell.run_step(cell.run_project(x), tuple(states), constants)
    return cell.run_readout(output, constants), new


def _specified(constant):
    """A shape, or anything with a shape and a type, as a `tf.TensorSpec`."""
    if isinstance(constant, (list, tuple)):
        return tf.TensorSpec(constant, "float64")
    if not (hasattr(constant, "shape") and hasattr(constant, "dtype")):
        raise TypeError(f"constants: expected shapes, or a keras.Input for another type, got {constant!r}")
    return tf.TensorSpec(constant.shape, constant.dtype)


def _changed(config, changes, dtype=None):
    """A serialised layer with some arguments changed wherever it, or a layer in it, has them; unbuilt."""
    if isinstance(config, (list, tuple)):
        return [_changed(c, changes, dtype) for c in config]
    if not isinstance(config, dict):
        return config
    new = {k: _changed(v, changes, dtype) for k, v in config.items() if k != "build_config"}
    if {"name", "trainable", "dtype"} <= set(new):  # the config of a layer
        new.update({k: v for k, v in changes.items() if k in new})
        policy = isinstance(new["dtype"], dict)
        if dtype is not None and (policy or new["dtype"] is None):
            new["dtype"] = dtype
    long = ("float32", "float64")
    if "batch_shape" in new and new.get("dtype") in long and dtype in long:  # the input of a network
        new["dtype"] = dtype
    return new

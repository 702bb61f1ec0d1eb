"""Whether a cell comes back from its config."""

import json

import keras
import numpy as np

from keras_seq.arguments import arguments
from keras_seq.cells.base import Cell
from keras_seq.testing.differences import assert_close
from keras_seq.testing.subject import take_step
from keras_seq.testing.table import check


@check(
    "config",
    "every constructor argument comes back from get_config",
    "decorate the class with @keras.saving.register_keras_serializable(package=...); keep each argument of __init__ as an "
    "attribute of its name, as it was given, or as keras.activations.get (initializers.get, ...) makes it; hand **kwargs on to "
    "super().__init__",
)
def check_config(subject):
    cell = subject.original
    cls = type(cell)
    assert keras.saving.get_registered_object(keras.saving.get_registered_name(cls)) is cls, (
        f"{cls.__name__} is not registered with Keras, or was defined again after this cell was made"
    )
    again = keras.saving.deserialize_keras_object(subject.config)
    assert type(again) is cls, f"expected a {cls.__name__} from the config, got {again!r}"
    _check_arguments(cell)
    first, second = (_described(c.get_config()) for c in (cell, again))
    for name in first:
        assert second.get(name) == first[name], (
            f"{name!r} was {first[name]} in the config, and comes back as {second[name]}"
        )
    _check_changes(subject)
    if cell.built and not again.built:
        again.build_from_config(cell.get_build_config())
    mine, its = _plain_attributes(cell), _plain_attributes(again)
    for name in mine:
        if name in its:
            assert its[name] == mine[name], f"attribute {name!r} was {mine[name]}, and is {its[name]} after the config"
    if cell.built:
        _check_same_results(cell, again)


def _check_arguments(cell):
    config = cell.get_config()
    wraps = any(
        isinstance(v, keras.layers.Layer) for v in vars(cell).values()
    )  # whose own config then has some of them
    for name in arguments(type(cell)):
        if not (wraps and name in arguments(Cell)):
            assert name in config, f"the argument {name!r} is not in the config"


def _check_changes(subject):
    """Whether arguments of all cells are taken when they are changed."""
    for name, value in {"dropout": 0.25, "recurrent_dropout": 0.25, "zoneout": 0.25, "seed": 13}.items():
        if not subject.has(name):
            continue
        try:
            cell = subject.cell(**{name: value})
        except ValueError:  # refused, which is right for some
            continue
        assert getattr(cell, name) == value, f"the cell was made with {name}={value}, and has {getattr(cell, name)}"


def _described(config):
    return {
        name: json.dumps(keras.saving.serialize_keras_object(value), sort_keys=True) for name, value in config.items()
    }


def _plain_attributes(cell):
    """Those of its attributes that say what it is, and are numbers, texts, or lists of them."""

    def plain(value):
        if isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or isinstance(value, (bool, int, float, str, np.number))

    return {k: _listed(v) for k, v in vars(cell).items() if not k.startswith("_") and plain(v)}


def _listed(value):
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value


def _check_same_results(cell, again):
    """A built cell, and the one from its config with its weights."""
    again.set_weights(cell.get_weights())
    if cell.constant_names:
        return  # its constants' shapes are not known here
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, cell.get_build_config()["input_shape"][-1])).astype(cell.compute_dtype)
    states = [rng.normal(size=(2, size)).astype(cell.variable_dtype) for size in cell.state_size]
    (y, new), (y_again, new_again) = (
        take_step(c, x, keras.tree.map_structure(keras.ops.convert_to_tensor, states)) for c in (cell, again)
    )
    assert_close([y_again, *new_again], [y, *new], 0.0, "result after the config, number")

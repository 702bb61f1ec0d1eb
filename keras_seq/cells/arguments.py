"""The arguments of constructors: which there are along a class hierarchy, and checks that name what is wrong."""

import inspect
import math
import numbers

import keras
from keras import activations, constraints, initializers, regularizers

KINDS = {
    "activation": activations,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


def arguments(cls):
    """The constructor's own arguments, outermost class first, as `inspect.Parameter`s by name.

    Read off the signatures along the class hierarchy, as far as each hands its `**kwargs` on; without those that a class
    settles (`Cell.settings`).
    """
    found = {}
    for base in cls.__mro__:
        if base is keras.layers.Layer or base is keras.layers.RNN:
            break
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            for p in parameters:
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                    found.setdefault(p.name, p)
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return {name: p for name, p in found.items() if name not in getattr(cls, "settings", {})}


def described(layer):
    """What `get_config` says of the constructor's own arguments, each of which is an attribute."""
    config = {}
    for name in arguments(type(layer)):
        value = getattr(layer, name)
        kind = KINDS.get(name.rsplit("_", 1)[-1])
        if isinstance(value, keras.layers.Layer):
            value = keras.saving.serialize_keras_object(value)
        config[name] = kind.serialize(value) if kind and not isinstance(value, (str, type(None))) else value
    return config


LAYER_ARGUMENTS = frozenset({"name", "dtype", "trainable", "activity_regularizer", "autocast"})


def refuse_unknown(cls, kwargs):
    """A TypeError if there is an argument that no class of the hierarchy takes."""
    unknown = sorted(set(kwargs) - LAYER_ARGUMENTS)
    if unknown:
        raise TypeError(f"{cls.__name__}: unknown argument {unknown[0]!r}; expected some of {sorted(arguments(cls))}")


def positive_integer(name, value):
    """`value` as an int; a TypeError or ValueError that names the argument if it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


def boolean(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def rate(name, value):
    """`value` as a float in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number in [0, 1), got {value!r}")
    if math.isnan(value) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")
    return float(value)


def named(registry, name, value):
    """An activation, initializer, regularizer or constraint from its name, config or self."""
    try:
        return registry.get(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: expected a name or an object of {registry.__name__}, got {value!r}") from error

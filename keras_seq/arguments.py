"""The arguments of constructors: which there are along a class hierarchy, and checks that name what is wrong."""

import inspect
import math
import numbers
import re
from typing import Any

import keras
import numpy as np
from keras import activations, backend, constraints, initializers, ops, regularizers

KINDS = {
    "activation": activations,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}

IMPLEMENTATIONS = (2, 1, 0)
"""What Keras's cells take as `implementation`; here all of them are the same."""


def arguments(cls):
    """The constructor's own arguments, outermost class first, as `inspect.Parameter`s by name.

    Read off the signatures along the class hierarchy, as far as each hands its `**kwargs` on; without those that a class
    settles (`Cell.settings`). What reaches a constructor through `**kwargs` alone is keyword-only.
    """
    found = {}
    by_position = True
    for base in cls.__mro__:
        if base is keras.layers.Layer or base is keras.layers.RNN:
            break
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        kinds = {p.kind for p in parameters}
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, p if by_position else p.replace(kind=p.KEYWORD_ONLY))
        by_position = by_position and inspect.Parameter.VAR_POSITIONAL in kinds
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return {name: p for name, p in found.items() if name not in getattr(cls, "settings", {})}


def described(layer):
    """What `get_config` says of the constructor's own arguments, each of which is an attribute.

    A class that writes a `get_config` of its own may keep its own arguments under other names, and then says them itself.
    """
    config = {}
    for name in arguments(type(layer)):
        if not hasattr(layer, name) and _says_itself(type(layer), name):
            continue
        value = getattr(layer, name)
        kind = KINDS.get(name.rsplit("_", 1)[-1])
        if isinstance(value, keras.layers.Layer):
            value = keras.saving.serialize_keras_object(value)
        config[name] = kind.serialize(value) if kind and not isinstance(value, (str, type(None))) else value
    return config


def _says_itself(cls, name):
    """Whether the class that declares this argument, or one below it, has a `get_config` of its own."""
    for base in cls.__mro__:
        if "get_config" in vars(base):
            return True
        if "__init__" in vars(base) and name in inspect.signature(base.__init__).parameters:
            return False
    return False


LAYER_ARGUMENTS = frozenset(
    {"name", "dtype", "trainable", "activity_regularizer", "autocast", "input_shape", "input_dim"}
)


def refuse_unknown(cls, kwargs, known=LAYER_ARGUMENTS):
    """A TypeError if there is an argument that no class of the hierarchy takes."""
    unknown = sorted(set(kwargs) - known)
    if unknown:
        raise TypeError(f"{cls.__name__}: unknown argument {unknown[0]!r}; expected some of {sorted(arguments(cls))}")


def needs_tensorflow(what):
    """A RuntimeError unless Keras runs on the TensorFlow backend."""
    if keras.config.backend() != "tensorflow":
        raise RuntimeError(
            f"{what}: TensorFlow only, expected Keras on the TensorFlow backend, got {keras.config.backend()!r}"
        )


def snake_case(name: str) -> str:
    """As Keras names a layer of a class: LSTMCell is lstm_cell."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def positive_integer(name, value):
    """`value` as an int; a TypeError or ValueError that names the argument if it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


def positive_number(name: str, value: Any) -> float:
    """`value` as a float; a TypeError or ValueError that names the argument unless it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a positive number, got {value!r}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


def float64_array(name: str, value: Any) -> np.ndarray:
    """`value` as a float64 array, finite or not; a TypeError that names the argument unless it is of real numbers."""
    arrays = value if isinstance(value, (list, tuple)) and all(hasattr(v, "shape") for v in value) else []
    if len({tuple(v.shape) for v in arrays}) > 1:
        raise TypeError(f"{name}: expected arrays of one shape, got {[tuple(v.shape) for v in arrays]}")
    try:
        found = np.asarray(ops.convert_to_numpy(value) if hasattr(value, "dtype") else value)
        if np.iscomplexobj(found):
            raise TypeError("a complex number is no real one")
        if found.dtype == object and any(v is None for v in found.flat):  # which float64 would take for NaN
            raise TypeError("None is no number")
        return np.asarray(found, "float64")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, got {value!r:.80}") from error


def finite_array(name: str, value: Any) -> np.ndarray:
    """`value` as a float64 array; a TypeError or ValueError that names the argument unless it is of finite numbers."""
    found = float64_array(name, value)
    if not np.all(np.isfinite(found)):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return found


def reduction_or_none(value: Any) -> str | None:
    """`value`, the `reduction` of a loss; a TypeError unless it is a name or None. Which names there are Keras says."""
    if not isinstance(value, (str, type(None))):
        raise TypeError(f"reduction: expected the name of one of Keras's, or None, got {value!r}")
    return value


def integer_or_none(name: str, value: Any) -> int | None:
    """`value`, such as a seed; a TypeError that names the argument unless it is an integer or None."""
    if isinstance(value, bool) or not (value is None or isinstance(value, numbers.Integral)):
        raise TypeError(f"{name}: expected an integer or None, got {value!r}")
    return None if value is None else int(value)


def tensor(name: str, value: Any, kind: str) -> Any:
    """`value` as a tensor of "integers", or of "numbers", integers or floats; a TypeError that names the argument if not."""
    try:
        found = ops.convert_to_tensor(value)
        dtype = backend.standardize_dtype(found.dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a tensor of {kind}, got {value!r:.80}") from error
    if not ("int" in dtype or ("float" in dtype and kind == "numbers")):
        raise TypeError(f"{name}: expected a tensor of {kind}, got one of {dtype}")
    return found


def indices(name: str, value: Any) -> Any:
    """`value` as an int32 tensor, in which an integer that int32 does not hold is the least one: no index of anything.

    A TypeError that names the argument unless it is a tensor of integers.
    """
    found = tensor(name, value, "integers")
    dtype, short = backend.standardize_dtype(found.dtype), ops.cast(found, "int32")
    if dtype not in ("int64", "uint32", "uint64"):
        return short
    return ops.where(short < 0 if "uint" in dtype else ops.cast(short, dtype) != found, -(2**31), short)


def known(x: Any) -> np.ndarray | None:
    """The values of an array or a tensor; None where it has none yet, in a graph."""
    try:
        return np.asarray(ops.convert_to_numpy(x))
    except (NotImplementedError, TypeError, ValueError):
        return None


def check_not_negative(name: str, x: Any) -> None:
    """A ValueError that names the argument for a number that is below 0, or NaN, where values are known."""
    values = known(x)
    if values is not None and not (values >= 0).all():
        raise ValueError(f"{name}: expected numbers of at least 0, got {values[~(values >= 0)][0]}")


def string_or_none(name: str, value: Any) -> str | None:
    """`value`; a TypeError that names the argument unless it is a string or None."""
    if not isinstance(value, (str, type(None))):
        raise TypeError(f"{name}: expected a string or None, got {value!r}")
    return value


def boolean(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def one_of(name, value, accepted):
    """`value`, one of those accepted, of the very same type."""
    if not any(type(value) is type(a) and value == a for a in accepted):
        raise ValueError(f"{name}: expected one of {list(accepted)}, got {value!r}")
    return value


def rate(name, value):
    """`value` as a float in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number in [0, 1), got {value!r}")
    if math.isnan(value) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")
    return float(value)


def named(registry: Any, name: str, value: Any) -> Any:
    """An activation, initializer, regularizer or constraint from its name, config or self."""
    message = f"{name}: expected a name or an object of {registry.__name__}, got {value!r}"
    try:
        found = registry.get(value)
    except (ValueError, TypeError) as error:
        raise ValueError(message) from error
    if isinstance(found, type) or not (found is None or callable(found) or hasattr(found, "shape")):
        raise ValueError(message)
    return found


def copied(initializer: Any) -> Any:
    """A copy of an initializer, for another weight: an initializer object of Keras gives the same values at every call."""
    return initializers.get(initializers.serialize(initializer)) if hasattr(initializer, "get_config") else initializer

"""The one mechanism by which a named layer wraps its cell."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from typing import Any, Self

from keras_seq.arguments import LAYER_ARGUMENTS, arguments, one_of, refuse_unknown, snake_case
from keras_seq.cells.base import Cell
from keras_seq.layers.rnn import RNN
from keras_seq.typing import Config

BY_POSITION = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
"""The layer's own arguments that Keras's layers take by position, in its order."""
USE_CUDNN = types.MappingProxyType({"use_cudnn": ("auto", True, False)})


class CellLayer(RNN):
    """A layer that is one cell's, by name; adds no logic of its own.

    A subclass names its `cell_class`. Its constructor takes that class's arguments and the layer's own, and hands each on;
    signature and config follow from the two. `cell`, an instance of that class, stands for the former: what is given of
    them beside it must be as in that cell.

    A subclass with a constructor of its own hands the other arguments on as `**kwargs`, and says its own in `get_config`,
    as in Keras.
    """

    cell_class: Any = None
    as_in_keras: tuple[str, ...] | None = None
    """Of a layer that Keras has too, the arguments that come by position after those of `BY_POSITION`."""
    unused: Mapping[str, tuple[Any, ...]] = types.MappingProxyType({})
    """Arguments of Keras's layer that change nothing here: the values that each may have, its default first."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls._taken = _taken(cls)
        own = list(inspect.signature(cls.__init__).parameters.values())[1:]
        if inspect.Parameter.VAR_POSITIONAL not in {p.kind for p in own}:  # a constructor that says what it takes
            cls.__signature__ = _OfClass(inspect.Signature(own))
            return
        further = [p for name, p in arguments(cls).items() if name not in ("cell", *cls._taken.parameters)]
        *parameters, rest = cls._taken.parameters.values()
        cls.__signature__ = _OfClass(inspect.Signature([*parameters, *further, rest]))

    def __init__(self, *args: Any, cell: Cell | None = None, **kwargs: Any) -> None:
        bind = self._taken.bind if cell is None else self._taken.bind_partial
        given = bind(*args, **kwargs).arguments
        given.update(given.pop("kwargs", {}))
        inner = {name: given.pop(name) for name in list(given) if name in arguments(self.cell_class)}
        unused = {name: one_of(name, given.pop(name, values[0]), values) for name, values in self.unused.items()}
        refuse_unknown(type(self), given, {*self._taken.parameters, *LAYER_ARGUMENTS, "input_length"})
        if cell is None:
            shared = {name: given[name] for name in ("dtype", "trainable") if name in given}
            cell = self.cell_class(**inner, name=snake_case(self.cell_class.__name__), **shared)
        else:
            self._check_alike(cell, inner)
        super().__init__(cell, **given)
        for name, value in unused.items():
            setattr(self, name, value)

    def _check_alike(self, cell, given):
        """A ValueError unless these arguments are those of the cell; a TypeError if it is none for this layer."""
        if not isinstance(cell, self.cell_class):
            raise TypeError(f"cell: expected a {self.cell_class.__name__}, got {cell!r}")
        its = self._inner(cell)
        changed = [name for name, value in given.items() if value is not its[name]]
        if not changed:
            return
        wanted, its = self.cell_class(**{**its, **given}).get_config(), cell.get_config()
        for name in changed:
            if wanted[name] != its[name]:
                raise ValueError(f"{name}: expected {its[name]!r} as in the cell that is given, got {wanted[name]!r}")

    @classmethod
    def _inner(cls, cell):
        """The arguments of a cell of this layer's class, as it keeps them."""
        return {name: getattr(cell, name) for name in arguments(cls.cell_class)}

    def get_config(self) -> Config:
        config = super().get_config()
        del config["cell"]
        inner = self.cell.get_config()
        unused = {name: getattr(self, name) for name in self.unused}
        return {**config, **{name: inner[name] for name in arguments(self.cell_class)}, **unused}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)

    def __getattr__(self, name):
        """The cell's arguments, as in Keras: `layer.units`, `layer.dropout`."""
        if name in arguments(type(self).cell_class):
            return getattr(self.cell, name)
        if hasattr(super(), "__getattr__"):  # on the torch backend a layer keeps its weights and parts so
            return super().__getattr__(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _taken(cls):
    """What `CellLayer.__init__` takes for a class, besides `cell`: by position what the cell does, the rest by name.

    A layer that Keras has too takes more by position, in Keras's order.
    """
    keyword, either = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    every = {**arguments(cls.cell_class), **arguments(RNN)}
    del every["cell"]
    every["activity_regularizer"] = inspect.Parameter(
        "activity_regularizer", keyword, default=None, annotation="Regularizer"
    )
    for name, values in cls.unused.items():
        every[name] = inspect.Parameter(name, keyword, default=values[0], annotation=f"Literal{[*values]}")
    places = [name for name, p in arguments(cls.cell_class).items() if p.kind is not keyword]
    if cls.as_in_keras is not None and "bias_regularizer" in places:
        places.insert(places.index("bias_regularizer") + 1, "activity_regularizer")
        places = [*[name for name in places if name not in cls.as_in_keras], *BY_POSITION, *cls.as_in_keras]
    rest = [p.replace(kind=keyword) for name, p in every.items() if name not in places]
    kwargs = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, annotation="Unpack[SequenceArguments]")
    return inspect.Signature([*[every[name].replace(kind=either) for name in places], *rest, kwargs])


class _OfClass:
    """An attribute of a class that its instances do not have (`inspect.signature(layer)` is that of `call`)."""

    def __init__(self, value):
        self.value = value

    def __get__(self, instance, owner):
        if instance is not None:
            raise AttributeError
        return self.value

"""The one mechanism by which a named layer wraps its cell."""

import inspect

from keras_seq.cells.arguments import LAYER_ARGUMENTS, arguments
from keras_seq.layers.rnn import RNN


class CellLayer(RNN):
    """A layer that is one cell's, by name; adds no logic of its own.

    A subclass names its `cell_class`. Its constructor takes that class's arguments and the layer's own, and hands each on;
    signature and config follow from the two. `cell`, an instance of that class, stands for the former.
    """

    cell_class = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        parameters = [*arguments(cls.cell_class).values(), *cls._own().values()]
        parameters.sort(key=lambda p: (p.kind, p.default is not p.empty))
        rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
        cls.__signature__ = _OfClass(inspect.Signature([*parameters, rest]))

    @classmethod
    def _own(cls):
        """The layer's own arguments, by name."""
        return {name: p for name, p in arguments(cls).items() if name != "cell"}

    def __init__(self, *args, cell=None, **kwargs):
        if cell is None:
            given = type(self).__signature__.bind(*args, **kwargs).arguments
            given.update(given.pop("kwargs", {}))
            inner = {name: given.pop(name) for name in list(given) if name in arguments(self.cell_class)}
            shared = {name: given[name] for name in ("dtype", "trainable") if name in given}
            unknown = sorted(set(given) - set(self._own()) - LAYER_ARGUMENTS)
            if unknown:
                raise TypeError(
                    f"{type(self).__name__}: unknown argument {unknown[0]!r}; signature {type(self).__signature__}"
                )
            cell = self.cell_class(**inner, **shared)
        else:
            given = kwargs
        super().__init__(cell, **given)

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        inner = self.cell.get_config()
        return {**config, **{name: inner[name] for name in arguments(self.cell_class)}}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __getattr__(self, name):
        """The cell's arguments, as in Keras: `layer.units`, `layer.dropout`."""
        if name in arguments(type(self).cell_class):
            return getattr(self.cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class _OfClass:
    """An attribute of a class that its instances do not have (`inspect.signature(layer)` is that of `call`)."""

    def __init__(self, value):
        self.value = value

    def __get__(self, instance, owner):
        if instance is not None:
            raise AttributeError
        return self.value

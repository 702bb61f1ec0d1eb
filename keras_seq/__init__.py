"""Recurrent networks for Keras, trained by an engine of their own."""

import importlib
from typing import TYPE_CHECKING

from keras_seq import cells, layers
from keras_seq import decoding as decoding
from keras_seq import metrics as metrics  # a model is loaded with the metrics that it was compiled with
from keras_seq.cells import *  # noqa: F403
from keras_seq.engine import dot, expose
from keras_seq.layers import *  # noqa: F403

__version__ = "0.1.0"

__all__ = ["dot", "expose", *cells.__all__, *layers.__all__]

if TYPE_CHECKING:
    from keras_seq import analysis as analysis
    from keras_seq import datasets as datasets
    from keras_seq import models as models
    from keras_seq import testing as testing
    from keras_seq import training as training

_ON_FIRST_USE = ("analysis", "datasets", "models", "testing", "training")


if not TYPE_CHECKING:  # to a type checker this would be any attribute

    def __getattr__(name):
        """The packages that `import keras_seq` leaves for later: `keras_seq.models` is imported when it is first read."""
        if name in _ON_FIRST_USE:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})

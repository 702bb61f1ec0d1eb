"""Recurrent networks for Keras, trained by an engine of their own."""

from keras_seq import cells, layers
from keras_seq import decoding as decoding
from keras_seq.cells import *  # noqa: F403
from keras_seq.engine import dot, expose
from keras_seq.layers import *  # noqa: F403

__version__ = "0.1.0"

__all__ = ["dot", "expose", *cells.__all__, *layers.__all__]

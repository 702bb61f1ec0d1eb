"""How one step becomes a sequence. Knows no cell."""

import keras

from keras_seq.engine.dot import dot, dropping

__all__ = ["dot", "dropping", "scan"]


def _engine():
    if keras.config.backend() == "tensorflow":
        from keras_seq.engine.tensorflow import scan

        return scan
    return None


scan = _engine()
"""The loop over time of the Keras backend in use, or None where Keras's own has to serve."""

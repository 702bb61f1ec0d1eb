"""How one step becomes a sequence. Knows no cell."""

import keras

from keras_seq.engine.marks import collecting, dot, dropping, exchange, expose, gathering, multiplying_in
from keras_seq.engine.random import dropped, events
from keras_seq.engine.recurrence import linear_recurrence

__all__ = [
    "collecting",
    "dot",
    "dropped",
    "dropping",
    "events",
    "exchange",
    "expose",
    "gathering",
    "linear_recurrence",
    "multiplying_in",
    "scan",
]


def _engine():
    if keras.config.backend() == "tensorflow":
        from keras_seq.engine.tensorflow import scan

        return scan
    return None


scan = _engine()
"""The loop over time of the Keras backend in use, or None where Keras's own has to serve."""

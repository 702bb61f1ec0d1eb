"""How one step becomes a sequence. Knows no cell.

`primitives` are what a step marks for those who run it, `functional` makes pure functions of steps, `linear` runs linear
recurrences in parallel, by `pairs`, `random` draws masks: on every backend of Keras. `tensorflow` has the loops over time and
over the levels of trees, and the derivatives of a step; `backend` is the engine of the backend in use.
"""

from keras_seq.engine.backend import complex_of, scan, scan_levels
from keras_seq.engine.functional import functional
from keras_seq.engine.linear import linear_recurrence, matrix_recurrence
from keras_seq.engine.primitives import (
    capture_every,
    capture_intermediates,
    capture_solutions,
    dot,
    dot_dtype,
    expose,
    intercept_dot,
    perturb_states,
    perturbations,
    recurrent_dropout_mask,
    replace_exposed,
)
from keras_seq.engine.random import dropped, events

__all__ = [
    "capture_every",
    "capture_intermediates",
    "capture_solutions",
    "complex_of",
    "dot",
    "dot_dtype",
    "dropped",
    "events",
    "expose",
    "functional",
    "intercept_dot",
    "linear_recurrence",
    "matrix_recurrence",
    "perturb_states",
    "perturbations",
    "recurrent_dropout_mask",
    "replace_exposed",
    "scan",
    "scan_levels",
]

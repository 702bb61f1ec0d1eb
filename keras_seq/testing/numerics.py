"""Mixed precision: near to float32, the memory itself in float32."""

import keras
import numpy as np

from keras_seq.testing.differences import assert_close
from keras_seq.testing.runs import argument_names, call, differentiated, result_names
from keras_seq.testing.table import check

NEAR = 0.02


@check(
    "mixed_float16",
    "a mixed policy gives float32 states, and nearly the results and gradients of float32",
    "a cast to compute_dtype inside step, or numbers beyond 65504 or below 1e-7 on the way",
)
def check_mixed(subject):
    layer, exact = subject.layer("mixed_float16"), subject.layer("float32")
    exact.set_weights(layer.get_weights())
    for open_loop in subject.loops:
        given = subject.data(exact, open_loop=open_loop)
        names = [*result_names(layer), *(f"the gradient of {n}" for n in argument_names(layer, given))]
        outputs, *states = call(layer, given)
        types = [keras.backend.standardize_dtype(v.dtype) for v in (outputs, *states)]
        assert types == ["float16", *["float32"] * len(states)], (
            f"expected float16 outputs and float32 states, got {types}"
        )
        found, expected = (differentiated(a)(*given) for a in (layer, exact))
        found = [np.asarray(v, "float32") for v in (*found[0], *found[1])]
        assert_close(found, [*expected[0], *expected[1]], NEAR, "against float32:", names)

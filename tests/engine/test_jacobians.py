"""Jacobians by TensorFlow's vectorised maps through the engine: those of autodiff through the loop written out."""

import conformance
import numpy as np
import pytest
import tensorflow as tf
from conformance import Case, assert_close

CASES = [Case("SimpleRNN"), Case("LSTM"), Case("PeepholeLSTM"), Case("GRU", {"reset_after": False})]


def jacobians(layer, given):
    """Of the outputs with respect to the inputs: whole, and row by row."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(given.x)
        y = layer(given.x, mask=given.mask)
    return tape.jacobian(y, given.x), tape.batch_jacobian(y, given.x)


@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(**conformance.named(CASES, quick=CASES[:2]))
def test_jacobians_are_those_of_the_loop_written_out(case, masked, sequences):
    layer, unrolled = (case("float64", return_sequences=sequences, unroll=u) for u in (False, True))
    given = conformance.data(case, layer, b=2, mask=masked)
    expected = jacobians(unrolled, given)
    assert np.count_nonzero(expected[0]) > 20
    assert_close(jacobians(layer, given), expected, 1e-10)


def test_a_vectorised_map_over_inputs():
    case = Case("GRU", {"reset_after": False})
    layer = case("float64")
    x = conformance.data(case, layer, b=6, mask=False).x[:, None]  # six batches of one row
    assert_close([tf.vectorized_map(layer, x)], [tf.map_fn(layer, x)], 1e-12)

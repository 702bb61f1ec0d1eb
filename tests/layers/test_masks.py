"""What lies behind a mask reaches nothing."""

import conformance
import numpy as np
import pytest
import tensorflow as tf
from conformance import CASES, ONE_OF_EACH, assert_close, differentiated, named

SEQUENCES = {"return_sequences": True, "return_state": True}


def poisoned(given, value):
    return given._replace(x=tf.where(given.mask[:, :, None], given.x, value * tf.ones_like(given.x)))


@pytest.mark.parametrize(**named(CASES))
def test_nothing_behind_a_mask_counts(case):
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    for training in (False, True):
        function = differentiated(layer, training)
        assert_close(function(*poisoned(given, np.nan)), function(*given), 0.0)


@pytest.mark.parametrize("value", [np.inf, 1e30], ids=str)
def test_nothing_large_behind_a_mask_counts(value):
    case = conformance.Case("LSTM")
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    assert_close(differentiated(layer)(*poisoned(given, value)), differentiated(layer)(*given), 0.0)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
def test_nothing_behind_a_mask_counts_compiled(jit):
    for case in (conformance.Case("GRU"), conformance.Case("LSTM")):
        layer = case("float64", go_backwards=True, **SEQUENCES)
        given = conformance.data(case, layer)
        function = tf.function(differentiated(layer), jit_compile=jit)
        assert_close(function(*poisoned(given, np.nan)), function(*given), 0.0)


@pytest.mark.parametrize("flags", [{"unroll": True}, {"return_sequences": True}], ids=str)
def test_nothing_behind_a_mask_counts_in_the_unrolled_loop_either(flags):
    case = conformance.Case("LSTM")
    layer = case("float64", **flags)
    given = conformance.data(case, layer)
    assert_close(differentiated(layer)(*poisoned(given, np.nan)), differentiated(layer)(*given), 0.0)


@pytest.mark.parametrize(**named(ONE_OF_EACH))
def test_gradient_of_masked_inputs_is_zero_and_a_hidden_row_keeps_its_states(case):
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    results, gradients = differentiated(layer)(*given)
    hidden = ~given.mask.numpy()
    assert np.all(gradients[0].numpy()[hidden] == 0)
    assert np.all(np.any(gradients[0].numpy()[~hidden] != 0, axis=-1))
    for new, old in zip(results[1:], given.states, strict=True):
        np.testing.assert_array_equal(new[3], old[3])
    np.testing.assert_array_equal(results[0][3], 0.0)


def test_mask_of_ones_is_no_mask():
    for case in ONE_OF_EACH:
        layer = case("float64", **SEQUENCES)
        given = conformance.data(case, layer, mask=False)
        full = given._replace(mask=tf.ones(given.x.shape[:2], "bool"))
        assert_close(differentiated(layer)(*full), differentiated(layer)(*given), 1e-12)


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_mask_of_numbers_is_read_as_booleans(kind):
    case = conformance.Case("GRU")
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    numbers = given._replace(mask=tf.cast(given.mask, kind))
    assert_close(differentiated(layer)(*numbers), differentiated(layer)(*given), 0.0)


def test_padding_changes_nothing():
    """A row padded left, or right, ends in the states of the row alone."""
    case = conformance.Case("LSTM")
    layer = case("float64", return_state=True)
    given = conformance.data(case, layer, b=1, t=5, mask=False)
    alone = conformance.call(layer, given.x, None, given.states)
    padding = tf.fill([1, 3, conformance.D], tf.constant(np.nan, "float64"))
    for parts, mask in [((given.x, padding), [1] * 5 + [0] * 3), ((padding, given.x), [0] * 3 + [1] * 5)]:
        padded = conformance.call(layer, tf.concat(parts, 1), tf.cast([mask], "bool"), given.states)
        assert_close(padded, alone, 1e-12)

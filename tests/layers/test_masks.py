"""What lies behind a mask reaches nothing; `test_conformance` says so of every cell, here are further ways to run it."""

import conformance
import numpy as np
import pytest
import tensorflow as tf
from conformance import KINDS, QUICK, assert_close, differentiated, named

SEQUENCES = {"return_sequences": True, "return_state": True}


def poisoned(given, value):
    """Another value behind the mask, in the inputs and the targets."""

    def changed(x):
        return None if x is None else tf.where(given.mask[:, :, None], x, value * tf.ones_like(x))

    return given._replace(x=changed(given.x), targets=changed(given.targets))


@pytest.mark.parametrize("value", [np.inf, 1e30], ids=str)
def test_nothing_large_behind_a_mask_counts(value):
    case = conformance.Case("LSTM")
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    assert_close(differentiated(layer)(*poisoned(given, value)), differentiated(layer)(*given), 0.0)


@pytest.mark.deep
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


@pytest.mark.deep
def test_mask_of_ones_is_no_mask():
    for case in KINDS:
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


@pytest.mark.parametrize(**named([c for c in KINDS if c.gated], quick=QUICK))
def test_padding_changes_nothing(case):
    """A row padded left, or right, ends in the states of the row alone."""
    layer = case("float64", return_state=True)
    given = conformance.data(case, layer, b=1, t=5, mask=False)
    alone = conformance.call(layer, given)

    def padded(x, left):
        if x is None:
            return None
        padding = tf.fill([1, 3, x.shape[-1]], tf.constant(np.nan, "float64"))
        return tf.concat([padding, x] if left else [x, padding], 1)

    for left, mask in [(False, [1] * 5 + [0] * 3), (True, [0] * 3 + [1] * 5)]:
        longer = {"x": padded(given.x, left), "targets": padded(given.targets, left)}
        found = conformance.call(layer, given._replace(mask=tf.cast([mask], "bool"), **longer))
        assert_close(found, alone, 1e-12)

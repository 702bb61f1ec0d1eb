"""What lies behind a mask reaches nothing."""

import conformance
import numpy as np
import pytest
import tensorflow as tf
from conformance import CASES, KINDS, argument_names, assert_close, differentiated, named

SEQUENCES = {"return_sequences": True, "return_state": True}


def poisoned(given, value, constants=0):
    """Another value behind the mask, in the inputs, and in the targets that come after so many constants."""

    def changed(x):
        return tf.where(given.mask[:, :, None], x, value * tf.ones_like(x))

    targets = tuple(changed(x) for x in given.constants[constants:])
    return given._replace(x=changed(given.x), constants=given.constants[:constants] + targets)


@pytest.mark.parametrize(**named(CASES))
def test_nothing_behind_a_mask_counts(case):
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    both = case in conformance.KINDS
    for training in (False,) if getattr(layer.cell, "zoneout", 0.0) else (False, True) if both else (True,):
        function = differentiated(layer, training)
        assert_close(function(*poisoned(given, np.nan, len(case.constants))), function(*given), 0.0)


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


@pytest.mark.parametrize(**named(KINDS))
def test_gradient_of_masked_inputs_is_zero_and_a_hidden_row_keeps_its_states(case):
    layer = case("float64", **SEQUENCES)
    given = conformance.data(case, layer)
    results, gradients = differentiated(layer)(*given)
    hidden = ~given.mask.numpy()
    assert np.all(gradients[0].numpy()[hidden] == 0)
    if "inputs" not in conformance.silent(case, layer, given):
        assert np.all(np.any(gradients[0].numpy()[~hidden] != 0, axis=-1))
    if case.targets:
        assert np.all(gradients[argument_names(layer, given).index("targets")].numpy()[hidden] == 0)
    for new, old in zip(results[1:], given.states, strict=True):
        np.testing.assert_array_equal(new[3], old[3])
    np.testing.assert_array_equal(results[0][3], 0.0)


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


@pytest.mark.parametrize(**named([c for c in KINDS if c.gated]))
def test_padding_changes_nothing(case):
    """A row padded left, or right, ends in the states of the row alone."""
    layer = case("float64", return_state=True)
    given = conformance.data(case, layer, b=1, t=5, mask=False)
    alone = conformance.call(layer, given.x, None, given.states, given.constants)
    n = len(case.constants)

    def padded(x, left):
        padding = tf.fill([1, 3, x.shape[-1]], tf.constant(np.nan, "float64"))
        return tf.concat([padding, x] if left else [x, padding], 1)

    for left, mask in [(False, [1] * 5 + [0] * 3), (True, [0] * 3 + [1] * 5)]:
        constants = (*given.constants[:n], *(padded(targets, left) for targets in given.constants[n:]))
        found = conformance.call(layer, padded(given.x, left), tf.cast([mask], "bool"), given.states, constants)
        assert_close(found, alone, 1e-12)

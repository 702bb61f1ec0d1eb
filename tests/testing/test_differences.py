"""The tools of the checks see every difference."""

import numpy as np
import pytest

from keras_seq.testing.differences import assert_close, assert_differences


def test_assert_close_sees_every_difference():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 4))
    assert_close([a, [a]], [a.copy(), [a + 1e-12]], 1e-11)
    changed = a.copy()
    changed[2, 3] += 1e-3
    for wrong, message in [
        (changed, "second: differs by"),
        (a[:2], "second: shape"),
        (np.where(a > 0, np.nan, a), "the value is NaN or infinite in"),
    ]:
        with pytest.raises(AssertionError, match=message):
            assert_close([a, wrong], [a, a], 1e-5, names=["first", "second"])
    with pytest.raises(AssertionError, match="the expected value is NaN"):
        assert_close([a], [a * np.nan], 1e-5)


def test_assert_differences_sees_wrong_and_missing_gradients():
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=(3,)) for _ in range(3))

    def function(values):
        return float(np.sum(np.sin(values[0]) * values[1]))

    right = [np.cos(a) * b, np.sin(a), np.zeros(3)]
    assert assert_differences(function, [a, b, c], right, "abc") == ["c"]
    assert assert_differences(function, [a, b, c], [None, right[1], None], "abc") == []
    for wrong in (1.001 * right[0], np.zeros(3), np.nan * a):
        with pytest.raises(AssertionError, match="the gradient of a"):
            assert_differences(function, [a, b, c], [wrong, *right[1:]], "abc")

"""Pieces of measured sequences for free runs: where they begin, what is in them, what is refused."""

import numpy as np
import pytest

from keras_seq.training import free_run_pieces


def test_pieces_of_a_free_run():
    u, y = np.arange(20.0).reshape(10, 2), np.arange(100.0, 110)[:, None]
    (x, known), later = free_run_pieces(u, y, warm_up=2, steps=3)
    assert x.shape == (2, 5, 2)
    np.testing.assert_array_equal(known[..., 0], [[100, 101], [103, 104]])
    np.testing.assert_array_equal(later[..., 0], [[102, 103, 104], [105, 106, 107]])
    np.testing.assert_array_equal(x[1], u[3:8])
    (x, known), later = free_run_pieces(np.stack([u, -u]), np.stack([y, -y]), 2, 3, stride=5)
    np.testing.assert_array_equal(x[:, 0, 0], [0, 0, 10, -10])
    np.testing.assert_array_equal(later[:, 0, 0], [102, -102, 107, -107])


def test_pieces_of_sequences_of_several_lengths_and_of_one_axis():
    u, y = np.arange(20.0).reshape(10, 2), np.arange(100.0, 110)
    (x, known), later = free_run_pieces([u, u[2:8]], [y, y[2:8]], warm_up=2, steps=3)
    assert x.shape == (3, 5, 2)
    np.testing.assert_array_equal(known[..., 0], [[100, 101], [103, 104], [102, 103]])
    np.testing.assert_array_equal(x[2], u[2:7])
    np.testing.assert_array_equal(later[2, :, 0], [104, 105, 106])
    for one, other in zip(
        free_run_pieces(y, y, 2, 3)[0], free_run_pieces(y[:, None], y[:, None], 2, 3)[0], strict=True
    ):
        np.testing.assert_array_equal(one, other)


REFUSED = {
    "too short": (
        lambda: free_run_pieces(np.ones((5, 1)), np.ones((5, 1)), 3, 3),
        ValueError,
        "got 6 with the warm-up, of 5 steps",
    ),
    "shape": (
        lambda: free_run_pieces(np.ones((1, 1, 5, 1)), np.ones((5, 1)), 1, 1),
        ValueError,
        r"inputs: expected shape \(t,\), \(t, k\) or \(b, t, k\)",
    ),
    "length": (
        lambda: free_run_pieces(np.ones((5, 1)), np.ones((4, 1)), 1, 1),
        ValueError,
        "outputs: expected 1 x 5 steps",
    ),
    "list": (
        lambda: free_run_pieces([np.ones((5, 1)), np.ones((4, 1))], np.ones((5, 1)), 1, 1),
        ValueError,
        "outputs: expected a list of as many arrays as the inputs, 2 arrays, got one",
    ),
    "in a list": (
        lambda: free_run_pieces([np.ones((5, 1))], [np.ones((4, 1))], 1, 1),
        ValueError,
        r"outputs\[0\]: expected 1 x 5 steps",
    ),
    "warm-up": (
        lambda: free_run_pieces(np.ones((5, 1)), np.ones((5, 1)), 0, 1),
        ValueError,
        "warm_up: expected",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()

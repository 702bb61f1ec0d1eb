"""The ring of a stream's last vectors: what is read is what was written, whichever way a step writes it."""

import threading

import numpy as np
import pytest

from keras_seq.layers import ring


def written(length, masked):
    """What a ring of two rows gives after each of seven steps, and what it should: the last vectors of each row."""
    rng = np.random.default_rng(0)
    vectors, masks = rng.normal(size=(7, 2, 3)).astype("float32"), rng.random((7, 2)) < (0.6 if masked else 2)
    state, past = ring.empty(2, length, 3, "float32"), [[np.zeros(3, "float32")] * length for _ in range(2)]
    found, expected = [], []
    for vector, mask in zip(vectors, masks, strict=True):
        state = ring.write(state, vector, mask if masked else None)
        for row in range(2):
            past[row] = past[row] + [vector[row]] * bool(mask[row])
        delays = [length, 1] if length > 1 else [1]
        found.append(np.asarray(ring.read(state, delays)))
        expected.append([[past[row][-d] for d in delays] for row in range(2)])
    return np.stack(found), np.asarray(expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [1, 3])
def test_what_was_written_is_read(length, masked):
    found, expected = written(length, masked)
    np.testing.assert_array_equal(found, expected)
    with ring.without_scattering():
        found, _ = written(length, masked)
    np.testing.assert_array_equal(found, expected)


def test_the_way_to_write_is_that_of_one_thread_and_is_left_again():
    ways = []

    def way():
        ways.append(getattr(ring._local, "scattering", True))

    def interrupted():
        with ring.without_scattering():
            way()
            other = threading.Thread(target=way)
            other.start()
            other.join()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    way()
    assert ways == [False, True, True]

"""Random numbers by their place: the published values of the cipher, uniform, and the same however they are computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_seq.decoding.random import key_of, threefry, uniform

ONES = 2**32 - 1
# key, counter, result: known answers of the authors' library Random123
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
ROWS, STEPS = np.arange(50)[:, None], np.arange(400)


def words(pair):
    return [tf.constant(np.array(word, "uint32").astype("int32")) for word in pair]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_known_answers(jit_compile):
    cipher = tf.function(threefry, jit_compile=jit_compile)
    for key, counter, expected in KNOWN:
        found = np.array([w.numpy() for w in cipher(words(key), words(counter))])
        np.testing.assert_array_equal(found.view("uint32"), expected)


def test_uniform_in_rows_steps_and_seeds():
    found = np.stack([uniform(key_of(seed), ROWS, STEPS) for seed in (1, 2)])
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() < 1
    counts = np.histogram(found, bins=20, range=(0, 1))[0] / found.size
    np.testing.assert_allclose(counts, 1 / 20, atol=0.005)
    for one, other in (
        (found[:, 1:], found[:, :-1]),
        (found[..., 1:], found[..., :-1]),
        (found[0], found[1]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_the_same_however_they_are_computed():
    expected = uniform(key_of(5), ROWS, STEPS).numpy()
    for jit_compile in (False, True):
        computed = tf.function(lambda seed: uniform(key_of(seed), ROWS, STEPS), jit_compile=jit_compile)
        for seed in (5, tf.constant(5), tf.constant([5, 0], tf.int64)):
            np.testing.assert_array_equal(computed(seed), expected)
    assert uniform(key_of(5), 3, 7) == expected[3, 7]
    np.testing.assert_array_equal(uniform(key_of(np.int64(5)), ROWS[:2], STEPS[:9]), expected[:2, :9])


def test_generators_are_asked_for_their_next():
    generator = keras.random.SeedGenerator(5)
    keys = [key_of(generator).numpy().tolist() for _ in range(3)]
    assert keys == [[5, 0], [5, 1], [5, 2]]
    assert keys[0] == key_of(5).numpy().tolist()
    compiled = tf.function(lambda: key_of(generator), jit_compile=True)
    assert [compiled().numpy().tolist() for _ in range(2)] == [[5, 3], [5, 4]]
    assert np.any(key_of(None) != key_of(None))
    assert key_of(ONES).numpy().tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("seed", "error"),
    [
        (-1, ValueError),
        (2**32, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        ("1", TypeError),
        (np.array([1, 2, 3]), ValueError),
        (np.array(1.0), TypeError),
    ],
)
def test_wrong_seeds_are_named(seed, error):
    with pytest.raises(error, match=r"seed: expected an integer from 0 to 2\^32 - 1, .*, got"):
        key_of(seed)

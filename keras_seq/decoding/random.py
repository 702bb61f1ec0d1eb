"""Random numbers by their place: a function of seed, row and step, the same eagerly, compiled, in files and on any backend."""

import numbers

import keras
import numpy as np
from keras import backend, ops

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
WORDS = 2**32  # so many values has a word


def key_of(seed):
    """Two words, int32 (2,), of an integer, a tensor of one or two, a `keras.random.SeedGenerator`, or None for the global one.

    A generator is asked for its next numbers; nothing else is changed. Integers in tensors count modulo 2^32.
    """
    if seed is None:
        return keras.random.randint((2,), 0, WORDS // 2 - 1, dtype="int32")
    if isinstance(seed, keras.random.SeedGenerator):
        return ops.cast(seed.next(), "int32")
    expected = "an integer from 0 to 2^32 - 1, a tensor of one or two integers, a keras.random.SeedGenerator or None"
    if isinstance(seed, numbers.Integral) and not isinstance(seed, bool):
        if not 0 <= seed < WORDS:
            raise ValueError(f"seed: expected {expected}, got {seed!r}")
        return ops.convert_to_tensor(np.array([seed, 0], "uint32").astype("int32"))
    if not hasattr(seed, "shape") or "int" not in backend.standardize_dtype(seed.dtype):
        raise TypeError(f"seed: expected {expected}, got {seed!r}")
    if tuple(seed.shape) not in ((), (2,)):
        raise ValueError(f"seed: expected {expected}, got one of shape {tuple(seed.shape)}")
    seed = ops.cast(seed, "int32")
    return seed if len(seed.shape) else ops.stack([seed, ops.zeros_like(seed)])


def uniform(key, row, step):
    """Numbers in [0, 1), multiples of 2^-24, float32: one for each row and step, integers of shapes that broadcast.

    `keras.random` gives other numbers under XLA than eagerly, and other ones for another count of rows or steps.
    """
    word, _ = threefry((key[0], key[1]), (ops.cast(row, "int32"), ops.cast(step, "int32")))
    return ops.cast(_shifted(word, 8), "float32") * 2.0**-24


def threefry(key, counter):
    """Two words of a counter of two words: the cipher Threefry-2x32 with 20 rounds (Salmon et al. 2011).

    Words are int32, whose sums wrap around.
    """
    keys = (*key, ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), PARITY))
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for i in range(5):
        for places in ROTATIONS[i % 2]:
            a = a + b
            b = ops.bitwise_xor(ops.bitwise_or(ops.left_shift(b, places), _shifted(b, 32 - places)), a)
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + (i + 1)
    return a, b


def _shifted(word, places):
    """The word shifted to the right, zeros from the left."""
    return ops.bitwise_and(ops.right_shift(word, places), 2 ** (32 - places) - 1)

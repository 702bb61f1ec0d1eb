"""The last n vectors of a stream, in a ring: a step writes one place, whatever n is."""

import contextlib
import threading

from keras import ops

from keras_seq.engine.backend import gather

_local = threading.local()


@contextlib.contextmanager
def without_scattering():
    """Inside, `write` of this thread chooses at every place between what is there and what comes.

    As LiteRT wants it: of int8 its `SCATTER_ND` fills the other places with the byte 0, which stands for no 0, and on
    microcontrollers there is none. Elsewhere a long ring is written faster at its one place.
    """
    before = getattr(_local, "scattering", True)
    _local.scattering = False
    try:
        yield
    finally:
        _local.scattering = before


def empty(batch_size, length, width, dtype):
    """`[vectors (b, n, width), place (b,)]`: all zero, the next vector goes to place 0."""
    return [ops.zeros((batch_size, length, width), dtype=dtype), ops.zeros((batch_size,), dtype="int32")]


def read(ring, delays):
    """The vectors written so many steps ago, 1 for the last: (b, len(delays), width)."""
    vectors, place = ring
    flat, begins = _flat(vectors)
    length = vectors.shape[1]
    back = ops.convert_to_tensor([length - d for d in delays], dtype="int32")
    places = _wrapped(ops.expand_dims(place, 1) + back, length)
    return gather(flat, places + ops.expand_dims(begins, 1), axis=0)


def write(ring, vector, mask=None):
    """The ring after one more vector (b, width), in the rows of the mask."""
    vectors, place = ring
    length = vectors.shape[1]
    vector = ops.cast(vector, vectors.dtype)
    following = _wrapped(place + (1 if mask is None else ops.cast(mask, "int32")), length)
    if not getattr(_local, "scattering", True):
        return [_chosen(vectors, place, vector, mask), following]
    flat, begins = _flat(vectors)
    at = begins + place
    if mask is not None:
        vector = ops.where(ops.expand_dims(mask, -1), vector, gather(flat, at, axis=0))
    flat = ops.scatter_update(flat, ops.expand_dims(at, 1), vector)
    return [ops.reshape(flat, (-1, *vectors.shape[1:])), following]


def _chosen(vectors, place, vector, mask):
    """What `write` gives, by a choice at every place."""
    length, vector = vectors.shape[1], ops.expand_dims(vector, 1)
    if length == 1 and mask is None:
        return vector
    # two numbers that are compared with one another would become LiteRT's ONE_HOT, which microcontrollers lack
    here = ops.equal(ops.arange(length, dtype="int32") - ops.expand_dims(place, 1), 0)
    if mask is not None:
        here = ops.logical_and(here, ops.expand_dims(mask, 1))
    return ops.where(ops.expand_dims(here, -1), vector, vectors)


def _wrapped(places, length):
    """Places below 2 n, each in the ring: their remainder, which microcontrollers take of no integers."""
    return places - length * ops.cast(ops.greater_equal(places, length), "int32")


def _flat(vectors):
    """The vectors of all rows one below the other, and where each row begins."""
    begins = ops.arange(ops.shape(vectors)[0], dtype="int32") * vectors.shape[1]
    return ops.reshape(vectors, (-1, vectors.shape[2])), begins

"""The last n vectors of a stream, in a ring: a step writes one place, whatever n is."""

from keras import ops


def empty(batch_size, length, width, dtype):
    """`[vectors (b, n, width), place (b,)]`: all zero, the next vector goes to place 0."""
    return [ops.zeros((batch_size, length, width), dtype=dtype), ops.zeros((batch_size,), dtype="int32")]


def read(ring, delays):
    """The vectors written so many steps ago, 1 for the last: (b, len(delays), width)."""
    vectors, place = ring
    places = ops.mod(ops.expand_dims(place, -1) - ops.convert_to_tensor(delays, dtype="int32"), vectors.shape[1])
    return ops.take_along_axis(vectors, ops.expand_dims(places, -1), axis=1)


def write(ring, vector, mask=None):
    """The ring after one more vector (b, width), in the rows of the mask."""
    vectors, place = ring
    following = ops.mod(place + 1, vectors.shape[1])
    if mask is not None:
        last = ops.take_along_axis(vectors, ops.reshape(place, (-1, 1, 1)), axis=1)[:, 0]
        vector = ops.where(ops.expand_dims(mask, -1), vector, last)
        following = ops.where(mask, following, place)
    at = ops.stack([ops.arange(ops.shape(place)[0], dtype="int32"), place], axis=1)
    return [ops.scatter_update(vectors, at, ops.cast(vector, vectors.dtype)), following]

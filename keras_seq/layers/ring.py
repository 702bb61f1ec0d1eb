"""The last n vectors of a stream, in a ring: a step writes one place, whatever n is."""

from keras import ops


def empty(batch_size, length, width, dtype):
    """`[vectors (b, n, width), place (b,)]`: all zero, the next vector goes to place 0."""
    return [ops.zeros((batch_size, length, width), dtype=dtype), ops.zeros((batch_size,), dtype="int32")]


def read(ring, delays):
    """The vectors written so many steps ago, 1 for the last: (b, len(delays), width)."""
    vectors, place = ring
    flat, begins = _flat(vectors)
    length = vectors.shape[1]
    back = ops.convert_to_tensor(
        [length - d for d in delays], dtype="int32"
    )  # no negative number: see `linear_recurrence`
    places = ops.mod(ops.expand_dims(place, 1) + back, length)
    return ops.take(flat, places + ops.expand_dims(begins, 1), axis=0)


def write(ring, vector, mask=None):
    """The ring after one more vector (b, width), in the rows of the mask."""
    vectors, place = ring
    flat, begins = _flat(vectors)
    at, following = begins + place, ops.mod(place + 1, vectors.shape[1])
    vector = ops.cast(vector, vectors.dtype)
    if mask is not None:
        vector = ops.where(ops.expand_dims(mask, -1), vector, ops.take(flat, at, axis=0))
        following = ops.where(mask, following, place)
    flat = ops.scatter_update(flat, ops.expand_dims(at, 1), vector)
    return [ops.reshape(flat, (-1, *vectors.shape[1:])), following]


def _flat(vectors):
    """The vectors of all rows one below the other, and where each row begins."""
    begins = ops.arange(ops.shape(vectors)[0], dtype="int32") * vectors.shape[1]
    return ops.reshape(vectors, (-1, vectors.shape[2])), begins

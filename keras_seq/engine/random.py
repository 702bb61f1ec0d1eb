"""Random numbers for every step of a sequence."""

from keras import ops

from keras_seq.engine.backend import uniform


def dropped(x, share, generator, shape=None):
    """Inverted dropout of a share of x: of single values, or, where `shape` has an axis of 1, of all along it at once."""
    gone = events(ops.shape(x) if shape is None else shape, share, generator)
    return ops.where(gone, ops.zeros_like(x), x / ops.cast(1 - share, x.dtype))


def events(shape, share, generator):
    """A boolean tensor of this shape, each True with probability `share`, from a `keras.random.SeedGenerator`."""
    return uniform(shape, generator) < share

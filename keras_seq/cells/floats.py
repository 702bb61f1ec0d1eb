"""What the types of floating numbers ask for."""

import keras
import ml_dtypes
from keras import initializers, ops


def long_type(dtype):
    """The type in which sums, scores and losses of numbers of this type are kept: float32, or float64 itself."""
    return keras.backend.result_type(dtype, "float32")


def lowest(dtype):
    """The least finite number of a floating type: where a maximum must not see something, this stands in its place.

    Not -inf, of which ONNX makes NaN, nor a round number, which some score may lie below.
    """
    return float(ml_dtypes.finfo(dtype).min)


def drawn_long(initializer):
    """The initializer, whose values of sixteen bits are drawn in float32 and rounded: some have no other way to draw them.

    Of the orthogonal one the factorisation is there in float32 and float64 alone.
    """
    initializer = initializers.get(initializer)
    if initializer is None:  # Keras's own choice
        return None

    def draw(shape, dtype=None):
        dtype = keras.backend.standardize_dtype(dtype)
        if not keras.backend.is_float_dtype(dtype):
            return initializer(shape, dtype=dtype)
        return ops.cast(initializer(shape, dtype=long_type(dtype)), dtype)

    return draw

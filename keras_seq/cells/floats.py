"""What the types of floating numbers ask for."""

import ml_dtypes


def lowest(dtype):
    """The least finite number of a floating type: where a maximum must not see something, this stands in its place.

    Not -inf, of which ONNX makes NaN, nor a round number, which some score may lie below.
    """
    return float(ml_dtypes.finfo(dtype).min)

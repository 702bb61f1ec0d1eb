"""Pooling under masks: what stands for a step that is hidden."""

import numpy as np
import pytest
import tensorflow as tf

import keras_seq


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16", "mixed_bfloat16"])
def test_the_largest_step_is_found_without_infinities(dtype):
    """Among the least numbers that there are too; other tools make NaN of an infinite constant."""
    layer = keras_seq.MaskedMax(dtype=dtype)
    least = float(tf.as_dtype(layer.compute_dtype).min)
    x = np.array([[[least, -1.0], [least, 2.0], [0.0, 3.0]], [[1.0, 1.0]] * 3])
    mask = np.array([[True, True, False], [False] * 3])
    function = tf.function(lambda x: layer(x, mask=mask)).get_concrete_function(tf.constant(x, layer.compute_dtype))
    found = function(tf.constant(x, layer.compute_dtype))
    np.testing.assert_array_equal(tf.cast(found, "float64"), [[least, 2.0], [0.0, 0.0]])
    constants = [tf.make_ndarray(op.get_attr("value")) for op in function.graph.get_operations() if op.type == "Const"]
    assert any(np.any(c.astype("float64") == least) for c in constants), "nothing to look at"
    assert all(np.all(np.isfinite(c.astype("float64"))) for c in constants)


@pytest.mark.parametrize("kind", ["LastStep", "MaskedMean", "MaskedMax"])
def test_no_rows_at_all(kind):
    """With a mask, as without."""
    x, layer = np.zeros((0, 3, 2), "float32"), getattr(keras_seq, kind)()
    assert layer(x, mask=np.zeros((0, 3), bool)).shape == (0, 2)
    assert layer(x).shape == (0, 2)

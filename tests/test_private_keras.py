"""What is used of Keras that it does not export: each name is there, and what breaks without it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq import _keras


def test_weights_are_cast_but_where_a_scope_says_otherwise():
    """Without the scope a cell would add up its states in sixteen bits."""
    with _keras.AutocastScope("float16"):
        weight = keras.Variable(np.ones(2, "float32"))
        assert ops.convert_to_tensor(weight).dtype == tf.float16
        with _keras.AutocastScope("float32"):
            assert ops.convert_to_tensor(weight).dtype == tf.float32


def test_the_loop_of_keras_draws_one_mask_for_all_steps_of_our_cells():
    cell = keras_seq.SimpleRNNCell(
        64, dropout=0.5, kernel_initializer="identity", recurrent_initializer="zeros", activation=None
    )
    outputs = keras.layers.RNN(cell, return_sequences=True)(tf.ones((1, 6, 64)), training=True).numpy()
    assert np.any(outputs == 0)
    assert np.all(outputs == outputs[:, :1])


def test_a_mask_is_carried_with_a_tensor():
    x = keras.layers.Masking()(tf.constant([[[1.0], [0.0]]]))
    np.testing.assert_array_equal(_keras.carried_mask(x), [[True, False]])
    assert _keras.carried_mask(tf.ones(2)) is None
    y = tf.ones((1, 2, 1))
    _keras.carry_mask(y, tf.constant([[False, True]]))
    np.testing.assert_array_equal(_keras.carried_mask(keras.layers.ReLU()(y)), [[False, True]])


def test_what_an_item_of_a_tensor_is_in_a_functional_model():
    x = keras.Input((4, 3))
    operations = keras.Model(x, x[:, 1:]).operations
    assert [type(one) for one in operations[1:]] == [_keras.GetItem]
    assert operations[1](tf.ones((2, 4, 3)), (slice(None), slice(1, None))).shape == (2, 3, 3)


def test_how_many_rows_a_stateful_layer_keeps():
    layer = keras_seq.LSTM(2, stateful=True)
    layer(tf.ones((3, 4, 5)))
    assert _keras.kept_batch(layer) == 3


def test_a_mask_of_dropout_as_a_cell_of_keras_draws_it():
    cell = keras.layers.LSTMCell(4, dropout=0.5)
    masks = _keras.new_dropout_mask(cell, tf.ones((2, 30)), 0.5)
    assert {float(x) for x in np.ravel(masks)} == {0.0, 2.0}


def test_a_loss_is_reported():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    _keras.report_loss(model, 3.0)
    _keras.report_loss(model, 5.0)
    assert float(model.get_metrics_result()["loss"]) == 4.0


def test_losses_are_changed_and_changed_back():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_regularizer="l2")])
    model.compile("sgd", "mse")
    x = tf.ones((4, 2))
    before = model.test_on_batch(x, x[:, :1])
    with _keras.changed_losses(model, lambda loss: lambda *given: 10.0, lambda added: added * 0 + 5.0):
        assert float(model.compute_loss(x, x[:, :1], model(x))) == 15.0
    np.testing.assert_allclose(model.compute_loss(x, x[:, :1], model(x)), before, rtol=1e-6)


def test_a_loss_sums_other_terms_under_the_same_mask():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", lambda y, p: (y - p) ** 2)
    model.test_on_batch(tf.ones((3, 2)), tf.zeros((3, 1)))
    with _keras.changed_losses(
        model, lambda one: _keras.summing(one, lambda y, p: tf.ones((3, 1))), lambda added: added
    ):
        assert float(model.compute_loss(None, tf.ones((3, 1)), tf.ones((3, 1)))) == 3
    loss = keras.losses.MeanSquaredError(dtype="float16")
    y = tf.ones((3000, 2, 1))
    _keras.carry_mask(y, tf.constant([[True, False]] * 2999 + [[False, False]]))
    assert float(_keras.summing(loss, lambda y, p: tf.ones((3000, 2)))(y, y)) == 2999
    assert loss.reduction == "sum_over_batch_size"
    assert float(loss(y, y)) == 0


def test_a_functional_model_is_run_anew():
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Dense(4)(x)))
    seen = []

    def call(layer, *args, **kwargs):
        seen.append(layer.name)
        return layer(*args, **kwargs)

    given = tf.ones((2, 3))
    np.testing.assert_allclose(_keras.run_graph(model, given, call), model(given), rtol=1e-6)
    assert len(seen) == 2


@pytest.mark.parametrize("masked", [False, True])
def test_the_loop_of_keras_on_a_step_of_ours(masked):
    import types

    def step(x, states):
        h = states[0] + x
        return h, [h]

    flags = {"go_backwards": False, "return_sequences": True, "stateful": False, "unroll": False}
    settings = types.SimpleNamespace(cell=step, zero_output_for_mask=False, **flags)
    mask = tf.constant([[True, False, True]]) if masked else None
    _, outputs, states = _keras.loop_of_keras(settings, tf.ones((1, 3, 1)), [tf.zeros((1, 1))], mask)
    np.testing.assert_array_equal(outputs[0, :, 0], [1, 1, 2] if masked else [1, 2, 3])
    np.testing.assert_array_equal(states[0], outputs[:, -1])


def test_the_parts_of_a_layer():
    class Pair(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras_seq.GRU(2), keras.layers.Dense(3)

    pair = Pair()
    assert {id(one) for one in _keras.sublayers(pair)} == {id(pair.first), id(pair.second)}
    assert _keras.sublayers(keras.layers.Dense(2)) == []

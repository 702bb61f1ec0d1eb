"""Levenberg-Marquardt: its Jacobians beside backpropagation, and what a run is known to cost before it is made."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from levenberg_models import T, curve, data, masked, narx, sequential, table

import keras_seq
from keras_seq._keras import carried_mask
from keras_seq.testing.differences import assert_close
from keras_seq.training import LevenbergMarquardt, residuals


def deep(*case):
    return pytest.param(*case, marks=pytest.mark.deep, id=case[0])


def with_state():
    x = keras.Input((None, 2))
    state = layers.Dense(3)(x[:, 0])
    return keras.Model(x, keras_seq.GRU(3, return_sequences=True)(x, initial_state=[state]))


def shared():
    x, memory = keras.Input((None, 2)), keras_seq.SimpleRNN(2, return_sequences=True)
    return keras.Model(x, layers.Add()([memory(x), memory(memory(x))]))


def returns_state():
    x = keras.Input((None, 2))
    y, h, c = keras_seq.LSTM(2, return_sequences=True, return_state=True)(x)
    return keras.Model(x, layers.Concatenate()([y[:, -1], h, c]))


def memories():
    inner = keras.Sequential([keras.Input((None, 2)), keras_seq.GRU(2, return_sequences=True)])
    return sequential(inner, layers.LSTM(2, return_sequences=True), layers.Dense(1))


def network():
    return narx("closed", units=None, network=keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(1)]))


MODELS = [
    ("dense", lambda: sequential(layers.Dense(4, "tanh"), layers.Dense(2))),
    deep("narx open", lambda: narx("open")),
    ("narx closed", lambda: narx("closed")),
    ("masked", lambda: masked(keras_seq.LSTM(2, return_sequences=True), layers.Dense(1))),
    deep("narx free", lambda: narx("free", units=None)),
    deep("network", network),
    deep("masked, zeros", lambda: masked(keras_seq.GRU(2, return_sequences=True, zero_output_for_mask=True))),
    deep("masked, last", lambda: masked(layers.GRU(2, return_sequences=True), keras_seq.GRU(2))),
    deep("backwards", lambda: masked(keras_seq.GRU(2, return_sequences=True, go_backwards=True), layers.Dense(1))),
    deep("memories", memories),
    deep("keras cells", lambda: sequential(layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)]))),
    deep("learned state", lambda: sequential(keras_seq.LSTM(2, learn_initial_state=True, return_sequences=True))),
    deep("readout", lambda: sequential(keras_seq.SimpleRNN(3, outputs=2, return_sequences=True))),
    deep("given state", with_state),
    deep("shared", shared),
    deep("states returned", returns_state),
    deep("bidirectional", lambda: sequential(keras_seq.Bidirectional(keras_seq.GRU(2, return_sequences=True)))),
    deep("keras bidirectional", lambda: sequential(layers.Bidirectional(layers.GRU(2)))),
    deep("stacked", lambda: sequential(keras_seq.Stacked(keras_seq.LSTM, [2, 2], return_sequences=True))),
    deep("complex", lambda: sequential(keras_seq.LRU(2, outputs=1, return_sequences=True))),
    deep("convolutions", lambda: sequential(keras_seq.TCN(2, dilations=[1, 2], return_sequences=True))),
    deep("frozen", lambda: frozen()),
]


def frozen():
    first, second = keras_seq.GRU(2, return_sequences=True), keras_seq.GRU(2)
    model = sequential(first, second, layers.BatchNormalization(trainable=False))
    first.trainable = False
    return model


def tensors(x):
    return keras.tree.map_structure(lambda v: tf.constant(v, "float64"), x)


@contextlib.contextmanager
def in_float64():
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


@pytest.mark.filterwarnings("ignore:.*receptive field")
@pytest.mark.parametrize(("name", "make"), MODELS)
def test_the_jacobian_is_that_of_backpropagation(name, make):
    with in_float64():
        model = make()
        for variable in model.trainable_variables:  # biases, too, that are not zero
            variable.assign(variable + 0.1 * np.random.default_rng(1).normal(size=variable.shape))
        x, y = data(model)
        found = LevenbergMarquardt(model, jit_compile=False).jacobian(x)
        assert found.shape == (*y.shape, sum(int(np.prod(v.shape)) for v in model.trainable_variables))
        with tf.GradientTape() as tape:
            outputs = model(tensors(x))
        mask = carried_mask(outputs)
        y = y if mask is None else y * np.asarray(mask)[..., None]
        expected = tape.gradient(outputs, model.trainable_variables, output_gradients=tf.constant(y))
    expected = np.concatenate([np.ravel(g) for g in expected])
    assert_close([np.tensordot(y, found, axes=y.ndim)], [expected], 1e-10)


def test_how_long_the_loops_of_a_jacobian_are_and_how_wide_its_run():
    gru = keras_seq.GRU(2, return_sequences=True)
    both = keras_seq.Bidirectional(keras_seq.GRU(2, return_sequences=True))
    nested = keras.Sequential([keras.Input((None, 2)), gru, layers.Dense(1)])
    for model, steps, widest in (
        (sequential(layers.Dense(1)), 0, T),
        (narx("open"), 0, T),
        (narx("closed"), T, T),
        (sequential(nested, layers.GRU(2)), 2 * T, 2 * T),
        (sequential(both), 2 * 3 * T * sum(v.shape.num_elements() for v in both.trainable_variables), 4 * T),
    ):
        fit = residuals.Residuals(model)
        x, y = data(model)
        found = residuals.prepared(fit, "", x, y, None, 2**31)
        assert found.entries == y.size * fit.size
        assert residuals.outline_of(fit, residuals.inputs_of(fit, "", x)).widest == widest
        assert found.work == steps + found.entries / residuals.ENTRIES_OF_A_STEP


def test_a_table_of_vectors_is_trained_too():
    model = table()
    x = np.random.default_rng(0).integers(0, 5, (6, 3))
    found = LevenbergMarquardt(model, jit_compile=False).jacobian(x)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(x))
    expected = [tf.convert_to_tensor(g) for g in tape.gradient(total, model.trainable_variables)]
    assert_close([found.sum(axis=(0, 1))], [np.concatenate([np.ravel(g) for g in expected])], 1e-5)


def test_inputs_by_name_and_of_one_axis():
    x, y = curve(9)
    given, known = keras.Input((1,), name="given"), keras.Input((1,), name="also")
    model = keras.Model([given, known], layers.Dense(1)(given) + 2 * layers.Dense(1)(known))
    trainer = LevenbergMarquardt(model, jit_compile=False)
    expected = trainer.jacobian([x, y])
    assert_close([trainer.jacobian({"also": y, "given": x}), trainer.jacobian([x[:, 0], y])], [expected] * 2, 0)
    with pytest.raises(ValueError, match=r"x: expected a dict with the names of the inputs, \['given', 'also'\], got"):
        trainer.jacobian({"a": x, "b": y})

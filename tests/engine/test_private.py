"""What is used of TensorFlow that is not public does what it is used for."""

import gc

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

import keras_seq
from keras_seq.engine.tensorflow import _tensorflow as private


def live_graphs():
    gc.collect()
    return sum(isinstance(x, FuncGraph) for x in gc.get_objects())


def trained(layer):
    """Trace a training step of a layer, in a graph, and forget it."""
    layer.build((3, 5, 2))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    step(tf.ones((3, 5, 2)))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras_seq.LSTM(4),
        lambda: keras_seq.GRU(4, reset_after=False, checkpoint=True),
        lambda: keras_seq.Elman(4, outputs=2),
        lambda: keras_seq.Bidirectional(keras_seq.LSTM(4)),
    ],
    ids=["LSTM", "GRU, checkpoint", "Elman", "Bidirectional"],
)
def test_nothing_of_a_trace_outlives_it(layer):
    """No graph and no gradient function, as of Keras's layers."""
    graphs, gradients = live_graphs(), len(private.gradient_registry.list())
    for _ in range(2):
        trained(layer())
    assert live_graphs() == graphs
    assert len(private.gradient_registry.list()) == gradients


def nested(function):
    return tf.function(lambda x: tf.function(function)(x))


def in_a_loop(function):
    return tf.function(
        lambda x: tf.while_loop(lambda i, y: i < 1, lambda i, y: (i + 1, function(x)), (0, tf.zeros((3, 4))))[1]
    )


def traced_before(function):
    return tf.function(function).get_concrete_function(tf.ones((3, 5, 2)))


@pytest.mark.parametrize("kept", [tf.function, nested, in_a_loop, traced_before], ids=lambda f: f.__name__)
def test_a_gradient_is_there_as_long_as_its_graph(kept):
    """Of a function that is differentiated from outside, after all else of the trace has gone."""
    layer = keras_seq.LSTM(4)
    layer.build((3, 5, 2))
    x = tf.ones((3, 5, 2))

    def gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    run = kept(lambda x: layer(x, training=True))
    run(x)
    gc.collect()
    tf.debugging.assert_near(gradient(run), gradient(lambda x: layer(x, training=True)), 1e-6, 1e-6)


def test_what_is_compiled_by_xla():
    found = []

    def look(x):
        found.append(private.compiled_by_xla())
        return x

    def in_a_loop(x):
        return tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, look(x)), (0, x))[1]

    one = tf.constant(1.0)
    look(one)
    tf.function(look)(one)
    tf.function(in_a_loop)(one)
    assert not any(found)
    found.clear()
    tf.function(look, jit_compile=True)(one)
    tf.function(in_a_loop, jit_compile=True)(one)
    tf.function(lambda x: tf.function(look)(x), jit_compile=True)(one)
    model = keras.Sequential([keras.layers.Lambda(look)])
    model.compile("sgd", "mse", jit_compile=True)
    model.train_on_batch(tf.ones((2, 1)), tf.ones((2, 1)))
    assert found
    assert all(found[-1:] + found[:3])


def test_nobody_is_told_of_an_error_where_there_is_no_other_worker():
    private.tell_other_workers("alone")
    assert float(tf.reduce_sum(tf.ones(2))) == 2

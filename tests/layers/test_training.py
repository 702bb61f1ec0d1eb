"""Training with Keras: every memory in every kind of model, compiled by XLA; wrappers, embeddings, mixed precision."""

import conformance
import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import ONE_OF_EACH, B, Case, D, T, U, assert_close, named

import keras_seq

MEMORIES = [c for c in ONE_OF_EACH if c.cell is None]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, T, D)).astype("float32")
Y = X[:, :, :1].sum(1)


def sequential(layer):
    return keras.Sequential([layer, keras.layers.Dense(1)])


def functional(layers):
    """Memories side by side, then one readout."""
    inputs = keras.Input((None, D))
    joined = keras.layers.Concatenate()([layer(inputs) for layer in layers])
    return keras.Model(inputs, keras.layers.Dense(1)(joined))


class Subclassed(keras.Model):
    def __init__(self, layers):
        super().__init__()
        self.memories = layers
        self.readout = keras.layers.Dense(1)

    def call(self, inputs, training=False):
        return self.readout(keras.ops.concatenate([m(inputs, training=training) for m in self.memories], axis=-1))


def check_fitted(model, x, y, epochs=20, **compile_arguments):
    """Train with XLA; the loss must fall, every weight move, and all be finite."""
    model.compile(optimizer=keras.optimizers.Adam(0.03), loss="mse", jit_compile=True, **compile_arguments)
    model(x if not isinstance(x, np.ndarray) else x[:2])
    before = [w.numpy().copy() for w in model.trainable_weights]
    history = model.fit(x, y, batch_size=8, epochs=epochs, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))
    assert history[-1] < 0.8 * history[0]
    for w, old in zip(model.trainable_weights, before, strict=True):
        assert np.all(np.isfinite(w.numpy())), w.path
        assert np.any(w.numpy() != old), w.path
    return model


@pytest.mark.parametrize(**named(MEMORIES[::3], quick=[Case("LSTM")]))
def test_fit_sequential_compiled(case):
    layer = getattr(keras_seq, case.layer)(U, dropout=0.05, recurrent_dropout=0.05, **case.arguments)
    check_fitted(sequential(layer), X, Y)


@pytest.mark.deep
@pytest.mark.parametrize("build", [functional, Subclassed])
def test_fit_functional_and_subclassed_compiled(build):
    check_fitted(build([getattr(keras_seq, case.layer)(U, **case.arguments) for case in MEMORIES[1::4]]), X, Y)


@pytest.mark.deep
def test_fit_with_constants_compiled():
    inputs, vector = keras.Input((None, D)), keras.Input((2,))
    layer = keras_seq.RNN(keras_seq.ConditionedCell(keras_seq.LSTMCell(U)))
    model = keras.Model([inputs, vector], keras.layers.Dense(1)(layer(inputs, constants=[vector])))
    x = [tf.constant(X), tf.constant(RNG.normal(size=(16, 2)), "float32")]
    check_fitted(model, x, Y)


@pytest.mark.deep
def test_fit_a_strangers_cell_compiled():
    check_fitted(sequential(keras_seq.RNN(conformance.TangledCell())), X, Y)


@pytest.mark.deep
def test_fit_with_states_from_an_encoder():
    """Final states of one memory are the initial ones of another; gradients pass through them."""
    inputs = keras.Input((None, D))
    _, h, c = keras_seq.LSTM(U, return_state=True)(inputs)
    outputs = keras_seq.PeepholeLSTM(U)(inputs[:, :1], initial_state=[h, c])
    check_fitted(keras.Model(inputs, keras.layers.Dense(1)(outputs)), X, Y)


@pytest.mark.deep
def test_fit_behind_an_embedding_that_masks():
    """The same model with our layer and with Keras's, from the same weights, learns the same."""
    tokens = RNG.integers(1, 7, size=(16, T))
    tokens[RNG.random(size=(16, T)) < 0.3] = 0
    models = []
    for layer in (keras_seq.LSTM(U, return_sequences=True), keras.layers.LSTM(U, return_sequences=True)):
        last = keras_seq.GRU(U) if models == [] else keras.layers.GRU(U)
        models.append(
            keras.Sequential([keras.layers.Embedding(7, D, mask_zero=True), layer, last, keras.layers.Dense(1)])
        )
    ours, theirs = models
    ours(tokens)
    theirs(tokens)
    theirs.set_weights(ours.get_weights())
    for model, jit in ((ours, True), (theirs, False)):
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit)
        model.fit(tokens, Y, epochs=3, batch_size=16, shuffle=False, verbose=0)
    assert_close(ours.get_weights(), theirs.get_weights(), 1e-5)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_bidirectional_of_keras(name, masked):
    ours, theirs = (
        keras.layers.Bidirectional(getattr(where, name)(U, return_sequences=True, return_state=True))
        for where in (keras_seq, keras.layers)
    )
    mask = tf.constant(conformance.MASK) if masked else None
    ours(X[:B])
    theirs(X[:B])
    conformance.randomised(ours)
    theirs.set_weights(ours.get_weights())
    assert_close(ours(X[:B], mask=mask), theirs(X[:B], mask=mask), 1e-5)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_bidirectional_of_a_memory_that_keras_has_not(merge_mode):
    layer = keras.layers.Bidirectional(keras_seq.PeepholeLSTM(U, return_sequences=True), merge_mode=merge_mode)
    layer(X)
    conformance.randomised(layer)
    forward, backward = layer.forward_layer(X), layer.backward_layer(X)[:, ::-1]
    expected = {
        "concat": lambda: np.concatenate([forward, backward], -1),
        "sum": lambda: forward + backward,
        "mul": lambda: forward * backward,
        "ave": lambda: (forward + backward) / 2,
        None: lambda: [forward, backward],
    }[merge_mode]()
    assert_close(tf.nest.flatten(layer(X)), tf.nest.flatten(expected), 1e-6)


def test_time_distributed_of_keras():
    layer = keras_seq.GRU(U)
    x = tf.constant(RNG.normal(size=(2, 3, T, D)), "float32")
    together = keras.layers.TimeDistributed(layer)(x)
    assert_close([together], [tf.stack([layer(x[:, i]) for i in range(3)], 1)], 1e-6)


@pytest.mark.deep
def test_fit_in_mixed_precision():
    layer = keras_seq.LSTM(U, dtype="mixed_float16")
    check_fitted(keras.Sequential([layer, keras.layers.Dense(1, dtype="float32")]), X, Y)

"""How a loss depends on the states: against the product of Jacobians, a sequence cut in two, and small differences."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.analysis import state_gradients
from keras_seq.cells.functional import functions_of
from keras_seq.engine.tensorflow import step_jacobian
from keras_seq.engine.tensorflow.step import run_step
from keras_seq.testing.differences import assert_close

B, T, D, U = 3, 6, 2, 4
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [0, 1, 1, 1, 0, 0]], bool)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D))
EVERY = {"return_sequences": True, "dtype": "float64"}

OURS = {
    "SimpleRNN": lambda: keras_seq.SimpleRNN(U, **EVERY),
    "readout": lambda: keras_seq.SimpleRNN(U, outputs=3, output_activation="tanh", **EVERY),
    "LSTM": lambda: keras_seq.LSTM(U, **EVERY),
    "peepholes": lambda: keras_seq.PeepholeLSTM(U, peephole_initializer="glorot_uniform", **EVERY),
    "GRU": lambda: keras_seq.GRU(U, reset_after=False, **EVERY),
    "Elman": lambda: keras_seq.Elman(U, outputs=3, **EVERY),
    "zoneout": lambda: keras_seq.GRU(U, zoneout=0.25, **EVERY),
    "sum": lambda: keras_seq.ResidualRNN(U, recurrent=False, **EVERY),
    "checkpoint": lambda: keras_seq.LSTM(U, checkpoint=True, **EVERY),
    "truncate": lambda: keras_seq.LSTM(U, truncate=2, **EVERY),
    "unroll": lambda: keras_seq.LSTM(U, unroll=True, **EVERY),
}
KERAS = {
    "keras SimpleRNN": lambda: keras.layers.SimpleRNN(U, **EVERY),
    "keras LSTM": lambda: keras.layers.LSTM(U, **EVERY),
    "keras GRU": lambda: keras.layers.GRU(U, **EVERY),
    "keras cell": lambda: keras_seq.RNN(keras.layers.LSTMCell(U, dtype="float64"), **EVERY),
    "keras RNN": lambda: keras.layers.RNN(keras.layers.GRUCell(U, dtype="float64"), **EVERY),
    "keras RNN of ours": lambda: keras.layers.RNN(keras_seq.LSTMCell(U, dtype="float64"), **EVERY),
}


def randomised(layer, x=X, **call):
    """The layer built, its weights random."""
    layer(ops.convert_to_tensor(x), **call)
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(size=w.shape) * 0.5 for w in layer.get_weights()])
    return layer


def cotangents(layer, steps=T):
    width = layer.compute_output_shape((B, steps, D))[-1]
    return np.random.default_rng(2).normal(size=(B, steps, width))


def by_jacobians(layer, dy):
    """g_t = (dy_t/ds_t)' dL/dy_t + J_{t+1}' g_{t+1}, step by step."""
    cell = layer.cell
    functions, widths = functions_of(cell), list(layer.state_size)
    values = [tf.convert_to_tensor(v) for v in functions.variables]
    states, jacobians, direct = [tf.zeros((B, n), "float64") for n in widths], [], []
    for t in range(T):
        projected = functions.project(values, {"inputs": tf.constant(X[:, t])})
        jacobians.append(step_jacobian(functions.step, values, projected, states, ())[1])
        _, states = run_step(functions.step, values, projected, states, ())
        with tf.GradientTape() as tape:
            tape.watch(states)
            y = cell.run_readout(states[0])
        direct.append(tf.concat(tape.gradient(y, states, output_gradients=dy[:, t], unconnected_gradients="zero"), -1))
    found = [direct[-1]]
    for t in reversed(range(T - 1)):
        found.insert(0, direct[t] + tf.linalg.matvec(jacobians[t + 1], found[0], transpose_a=True))
    return np.split(np.stack(found, 1), np.cumsum(widths)[:-1], axis=-1)


def by_cutting(layer, dy, mask=None):
    """The states between two halves of the sequence, for every place of the cut."""
    readout = getattr(layer.cell, "run_readout", lambda h: h)
    found = []
    for t in range(T):
        now = {} if mask is None else {"mask": tf.constant(mask[:, : t + 1])}
        later = {} if mask is None else {"mask": tf.constant(mask[:, t + 1 :])}
        layer.return_state = True
        _, *states = layer(tf.constant(X[:, : t + 1]), **now)
        with tf.GradientTape() as tape:
            tape.watch(states)
            loss = tf.reduce_sum(readout(states[0]) * dy[:, t])
            if t + 1 < T:
                y, *_ = layer(tf.constant(X[:, t + 1 :]), initial_state=states, **later)
                loss += tf.reduce_sum(y * dy[:, t + 1 :])
        layer.return_state = False
        found.append([np.asarray(g) for g in tape.gradient(loss, states, unconnected_gradients="zero")])
    return [np.stack(g, axis=1) for g in zip(*found, strict=True)]


@pytest.mark.parametrize("name", ["SimpleRNN", "readout", "LSTM", "GRU", "Elman", "zoneout", "sum"])
def test_they_are_products_of_jacobians(name):
    layer = randomised(OURS[name]())
    dy = cotangents(layer)
    assert_close(state_gradients(layer, X, dy), by_jacobians(layer, dy), 1e-10)


@pytest.mark.deep
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", [*(n for n in OURS if n not in ("truncate", "zoneout", "unroll")), *KERAS])
def test_they_are_those_of_states_between_two_halves(name, masked):
    layer = randomised({**OURS, **KERAS}[name]())
    dy, mask = cotangents(layer), MASK if masked else None
    if masked:  # what a hidden step repeats is a second use of an output
        dy = dy * mask[..., None]
    found = state_gradients(layer, X, dy, **({"mask": tf.constant(mask)} if masked else {}))
    expected = by_cutting(layer, dy, mask)
    if masked:
        assert not any(np.any(np.asarray(g)[~mask]) for g in found)
        expected = [np.where(mask[..., None], g, 0) for g in expected]
    assert_close(found, expected, 1e-8)


def test_they_are_small_differences_of_a_state():
    layer = randomised(OURS["peepholes"]())
    dy, small = cotangents(layer), 1e-6
    dh, dc = state_gradients(layer, X, dy)
    layer.return_state = True
    _, h, c = layer(X[:, :3])

    def loss(h, c):
        return float(tf.reduce_sum(h * dy[:, 2]) + tf.reduce_sum(layer(X[:, 3:], initial_state=[h, c])[0] * dy[:, 3:]))

    for k in range(U):
        bump = small * np.eye(U)[k]
        for g, up, down in ((dh, (h + bump, c), (h - bump, c)), (dc, (h, c + bump), (h, c - bump))):
            expected = (loss(*up) - loss(*down)) / (2 * small)
            assert np.sum(g[:, 2, k]) == pytest.approx(expected, rel=1e-6)


def test_of_the_last_output_alone_and_of_the_final_states():
    every = randomised(OURS["LSTM"]())
    last = keras_seq.LSTM(U, return_state=True, dtype="float64")
    last(X)
    last.set_weights(every.get_weights())
    dy = cotangents(every) * (np.arange(T) == T - 1)[:, None]
    assert_close(state_gradients(last, X, dy[:, -1]), state_gradients(every, X, dy), 1e-12)
    assert_close(
        state_gradients(last, X, [None, dy[:, -1], None]), state_gradients(last, X, [dy[:, -1], None, None]), 1e-12
    )
    (final,) = [g[:, -1] for g in state_gradients(last, X, [None, None, dy[:, -1]])][1:]
    assert_close([final], [dy[:, -1]], 1e-12)


@pytest.mark.deep
def test_backwards_they_come_in_the_order_of_reading():
    forwards, backwards = (keras_seq.GRU(U, go_backwards=b, **EVERY) for b in (False, True))
    forwards(X), backwards(X)
    backwards.set_weights(forwards.get_weights())
    dy = cotangents(forwards)
    expected = state_gradients(forwards, X[:, ::-1], dy)
    assert_close(state_gradients(backwards, X, dy), expected, 1e-12)
    keras_gru = keras.layers.GRU(U, go_backwards=True, **EVERY)
    keras_gru(X)
    keras_gru.set_weights(forwards.get_weights())
    assert_close(state_gradients(keras_gru, X, dy), expected, 1e-12)


def test_a_cut_of_training_is_a_cut_here():
    layer = randomised(OURS["truncate"]())
    dy = cotangents(layer) * (np.arange(T) == T - 1)[:, None]
    dh, _ = state_gradients(layer, X, dy)
    assert np.all(np.any(dh != 0, axis=(0, 2)) == [False, False, False, False, True, True])


@pytest.mark.deep
@pytest.mark.parametrize("jit", [False, True])
def test_in_a_graph_and_under_xla(jit):
    layer = randomised(keras_seq.LSTM(U, return_sequences=True), X.astype("float32"))
    dy = cotangents(layer).astype("float32")
    compiled = tf.function(lambda x, m: state_gradients(layer, x, dy, mask=m), jit_compile=jit)
    assert_close(
        compiled(X.astype("float32"), MASK),
        state_gradients(layer, X.astype("float32"), dy, mask=tf.constant(MASK)),
        1e-5,
    )


@pytest.mark.deep
@pytest.mark.parametrize("kind", [keras_seq.LSTM, keras.layers.LSTM, keras_seq.GRU])
@pytest.mark.parametrize(("dtype", "states"), [("mixed_bfloat16", "float32"), ("mixed_float16", "float32")])
def test_in_short_types(kind, dtype, states):
    layer = randomised(kind(U, return_sequences=True, dtype=dtype), X.astype("float32"))
    exact = kind(U, return_sequences=True, dtype="float64")
    exact(X)
    exact.set_weights(layer.get_weights())
    dy = cotangents(layer)
    found = state_gradients(layer, X.astype("float32"), dy)
    if kind is not keras.layers.LSTM:
        assert all(g.dtype == states for g in found)
    for g, e in zip(found, state_gradients(exact, X, dy), strict=True):
        assert np.max(np.abs(np.asarray(g, "float64") - e)) < 0.05 * np.max(np.abs(e))


def stack():
    layers = [keras_seq.TDNN(3, delays=2), keras_seq.LSTM(U, **EVERY), keras_seq.GRU(3, **EVERY)]
    return keras_seq.Stacked(layers, dtype="float64")


def test_of_a_layer_inside_a_stack():
    deep = randomised(stack())
    dy = cotangents(deep)
    tdnn, lstm, gru = deep.layers
    between = lstm(tdnn(X))
    assert_close(state_gradients(deep, X, dy, of=2), state_gradients(gru, between, dy), 1e-10)
    with tf.GradientTape() as tape:
        tape.watch(between)
        y = gru(between)
    expected = state_gradients(lstm, tdnn(X), tape.gradient(y, between, output_gradients=dy))
    for of in (1, lstm, lstm.name, -2):
        assert_close(state_gradients(deep, X, dy, of=of), expected, 1e-10)


@pytest.mark.deep
@pytest.mark.parametrize("wrapper", [keras_seq.Bidirectional, keras.layers.Bidirectional])
def test_of_both_directions(wrapper):
    kind = keras_seq.GRU if wrapper is keras_seq.Bidirectional else keras.layers.GRU
    both = randomised(wrapper(kind(U, **EVERY), dtype="float64"))
    dy = np.random.default_rng(2).normal(size=(B, T, 2 * U))
    forward, backward = both.forward_layer, both.backward_layer
    assert_close(state_gradients(both, X, dy, of=forward), state_gradients(forward, X, dy[..., :U]), 1e-10)
    if wrapper is keras.layers.Bidirectional:
        expected = state_gradients(backward, X, dy[:, ::-1, U:])
    else:
        expected = state_gradients(backward, X[:, ::-1], dy[:, ::-1, U:])
    assert_close(state_gradients(both, X, dy, of=1), expected, 1e-10)


def test_of_a_layer_of_keras_in_a_model_which_stays_as_it_was():
    model = keras.Sequential([keras.Input((T, D)), keras.layers.LSTM(U), keras.layers.Dense(1)])
    before = dict(vars(model.layers[0]))
    (dh, dc) = state_gradients(model, X.astype("float32"), np.ones((B, 1)))
    layer = model.layers[0]
    expected = state_gradients(layer, X.astype("float32"), np.ones((B, 1)) @ model.layers[1].kernel.numpy().T)
    assert_close([dh, dc], expected, 1e-5)
    assert set(vars(layer)) == set(before)


@pytest.mark.deep
def test_of_a_cell_with_attention():
    layer = keras_seq.RNN(
        keras_seq.AttentionCell(keras_seq.GRUCell(U, dtype="float64"), query="before", dtype="float64"), **EVERY
    )
    memory = tf.constant(RNG.normal(size=(B, 5, 3)))
    layer(X, constants=[memory])
    dy = cotangents(keras_seq.GRU(U, **EVERY))
    (dh,) = state_gradients(layer, X, dy, constants=[memory])
    _, h = layer(X[:, :2], constants=[memory], return_state=True)
    with tf.GradientTape() as tape:
        tape.watch(h)
        loss = tf.reduce_sum(h * dy[:, 1])
        loss += tf.reduce_sum(layer(X[:, 2:], initial_state=h, constants=[memory]) * dy[:, 2:])
    assert_close([dh[:, 1]], [tape.gradient(loss, h)], 1e-8)


@pytest.mark.deep
def test_at_the_same_time_in_many_threads():
    layers = [randomised(keras.layers.GRU(U, **EVERY)), randomised(keras_seq.GRU(U, **EVERY))]
    dy = cotangents(layers[0])
    expected = [state_gradients(layer, X, dy)[0] for layer in layers]
    plain, wrong = [layer(X) for layer in layers], []

    def work(layer, dh, y, watched):
        for _ in range(5):
            found, right = (state_gradients(layer, X, dy)[0], dh) if watched else (layer(X), y)
            if not np.allclose(found, right, atol=1e-12):
                wrong.append(layer.name)

    threads = [
        threading.Thread(target=work, args=(*one, watched))
        for one in zip(layers, expected, plain, strict=True)
        for watched in (False, True, True)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: state_gradients("lstm", X, X), TypeError, "layer: expected a layer or a model"),
        (lambda: state_gradients(keras.layers.Dense(2), X, X), ValueError, "layer: expected a recurrent layer"),
        (lambda: state_gradients(keras_seq.TDNN(2, delays=2), X, X), ValueError, "layer: expected a recurrent layer"),
        (lambda: state_gradients(stack(), X, X), ValueError, "of: expected one of the recurrent layers .*, got None"),
        (lambda: state_gradients(stack(), X, X, of=0), ValueError, "of: expected one of the recurrent layers"),
        (lambda: state_gradients(stack(), X, X, of=3), ValueError, "of: expected one of the recurrent layers"),
        (lambda: state_gradients(stack(), X, X, of="a"), ValueError, "of: expected one .*, got 'a'"),
        (lambda: state_gradients(stack(), X, X, of=1.0), TypeError, "of: expected a layer, its name or its number"),
        (lambda: state_gradients(stack(), X, X, of=keras_seq.GRU(2)), ValueError, "of: expected one of the recurrent"),
        (lambda: state_gradients(OURS["GRU"](), X, X), ValueError, r"output_gradients: expected shape \(3, 6, 4\)"),
        (lambda: state_gradients(OURS["GRU"](), X, None), ValueError, "output_gradients: expected at least one"),
        (
            lambda: state_gradients(keras_seq.GRU(2, return_state=True), X, [None]),
            ValueError,
            "output_gradients: expected 2, like the outputs, got 1",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

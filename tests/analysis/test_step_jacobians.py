"""Jacobians of live layers: closed forms, and automatic differentiation through the whole layer."""

import concurrent.futures
import gc
import math
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.analysis import (
    fixed_points,
    gradient_flow,
    lyapunov_spectrum,
    step_jacobians,
    step_spectrum,
)

RNG = np.random.default_rng(0)
B, T, D = 3, 6, 4
X = RNG.normal(size=(B, T, D))
MASK = np.array([[0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 0, 0]], bool)
WIDE = {"kernel_initializer": "normal", "bias_initializer": "normal"}

LAYERS = {
    "LSTM": lambda **given: keras_seq.LSTM(5, **given),
    "Keras LSTM": lambda **given: keras.layers.LSTM(5, **given),
    "backwards": lambda **given: keras_seq.GRU(4, go_backwards=True, **given),
    "peepholes, layer normalisation": lambda **given: keras_seq.LSTM(3, peepholes=True, normalize=True, **given),
    "GRU, reset before": lambda **given: keras_seq.GRU(4, reset_after=False, **given),
    "zoneout": lambda **given: keras_seq.LSTM(3, zoneout=[0.2, 0.3], learn_initial_state=True, **given),
    "dropout": lambda **given: keras_seq.GRU(3, dropout=0.5, recurrent_dropout=0.5, **given),
    "Jordan": lambda **given: keras_seq.Jordan(4, outputs=2, blocked=False, **given),
    "NARX": lambda **given: keras_seq.NARX(4, 2, input_delays=3, output_delays=[1, 3], closed=True, **given),
    "sum": lambda **given: keras_seq.ResidualRNN(3, recurrent=False, **given),
    "Keras GRU": lambda **given: keras.layers.GRU(4, **given),
    "Keras SimpleRNN": lambda **given: keras.layers.SimpleRNN(4, dropout=0.3, **given),
    "cells of Keras": lambda **given: keras.layers.RNN(
        keras.layers.StackedRNNCells([keras.layers.LSTMCell(3, **given), keras.layers.GRUCell(2, **given)], **given),
        **given,
    ),
    "their own layer": lambda **given: keras_seq.RNN(
        [keras.layers.LSTMCell(3, **given), keras.layers.GRUCell(2, **given)], **given
    ),
}


def from_first_to_last(layer, x, mask, constants=None):
    """The Jacobian (b, n, n) of the final states by the initial ones, by automatic differentiation through the layer's call."""
    layer.return_state = True
    x = tf.constant(x, layer.compute_dtype)
    further = {} if constants is None else {"constants": constants}
    states = keras.tree.map_structure(tf.identity, layer.get_initial_state(batch_size=len(x)))
    flat = keras.tree.flatten(states)
    sizes = [s.shape[-1] for s in flat]
    with tf.GradientTape(persistent=True) as tape:
        joined = tf.concat(flat, axis=-1)
        tape.watch(joined)
        given = keras.tree.pack_sequence_as(states, tf.split(joined, sizes, axis=-1))
        _, *final = layer(x, initial_state=given, mask=tf.constant(mask), **further)
        final = tf.concat(keras.tree.flatten(final), axis=-1)
    return tape.batch_jacobian(final, joined, experimental_use_pfor=False).numpy()


def product(jacobians):
    found = np.eye(jacobians.shape[-1])
    for t in range(jacobians.shape[1]):
        found = jacobians[:, t] @ found
    return found


QUICK = ("LSTM", "Keras LSTM", "backwards")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.deep) for n in LAYERS])
def test_their_product_is_the_jacobian_of_the_whole_layer(name):
    layer = LAYERS[name](dtype="float64")
    layer(X)
    found = step_jacobians(layer, X, mask=MASK)
    assert found.shape[:2] == (B, T)
    whole = from_first_to_last(layer, X, MASK)
    assert np.count_nonzero(whole) >= B
    np.testing.assert_allclose(product(found), whole, atol=1e-12)


def test_a_cell_that_reads_constants():
    layer = keras_seq.RNN(
        keras_seq.AttentionCell(keras_seq.GRUCell(4, dtype="float64"), dtype="float64"), dtype="float64"
    )
    memory = RNG.normal(size=(B, 5, 3))
    layer(X, constants=[memory])
    found = step_jacobians(layer, X, mask=MASK, constants=[memory])
    np.testing.assert_allclose(product(found), from_first_to_last(layer, X, MASK, [tf.constant(memory)]), atol=1e-12)
    spectrum = lyapunov_spectrum(layer, X, constants=[memory])
    leading = lyapunov_spectrum(layer, X, constants=[memory], leading=4)
    np.testing.assert_allclose(leading.exponents, spectrum.exponents, atol=1e-9)
    with pytest.raises(ValueError, match="constants: expected a memory"):
        step_jacobians(layer, X)
    with pytest.raises(ValueError, match="layer: expected one that reads no constants"):
        fixed_points(layer)


def test_a_layer_within_others_reads_what_arrives_there():
    stack = keras_seq.Stacked(
        [
            keras_seq.TDNN(6, delays=2, dtype="float64"),
            keras_seq.Bidirectional(keras_seq.GRU(3, return_sequences=True, dtype="float64"), dtype="float64"),
            keras_seq.LSTM(2, return_sequences=True, stateful=True, dtype="float64"),
            keras_seq.GRU(2, dtype="float64"),
        ],
        skips="dense",
        dtype="float64",
    )
    stack(X)
    before = [s.numpy() for s in stack.layers[2].states]
    below = keras_seq.Stacked(stack.layers[:1], dtype="float64")(X, mask=MASK)
    both = ops.concatenate([X, below], axis=-1)
    half = stack.layers[1].backward_layer
    expected = step_jacobians(half, both[:, ::-1], mask=MASK[:, ::-1])
    np.testing.assert_allclose(step_jacobians(stack, X, mask=MASK, of=half), expected, atol=1e-12)
    memory = stack.layers[2]
    joined = ops.concatenate([both, stack.layers[1](both, mask=tf.constant(MASK))], axis=-1)
    expected = step_jacobians(memory, joined, mask=MASK)
    for of in (2, memory, memory.name):
        np.testing.assert_allclose(step_jacobians(stack, X, mask=MASK, of=of), expected, atol=1e-12)
    step_jacobians(stack, X, of=3)  # above the one that keeps its states
    for s, b in zip(memory.states, before, strict=True):
        np.testing.assert_array_equal(s, b)
    with pytest.raises(ValueError, match="of: expected one of the recurrent layers"):
        step_jacobians(stack, X)
    with pytest.raises(ValueError, match="of: expected"):
        step_jacobians(stack, X, of=0)


def test_a_stateful_layer_begins_where_it_stands():
    layer = keras_seq.GRU(3, stateful=True, dtype="float64")
    plain = keras_seq.GRU(3, dtype="float64")
    layer(X), plain(X)
    plain.set_weights(layer.get_weights())
    kept = layer.states[0].numpy()
    found = step_jacobians(layer, X)
    np.testing.assert_allclose(found, step_jacobians(plain, X, initial_state=[kept]), atol=1e-12)
    np.testing.assert_array_equal(layer.states[0], kept)
    with pytest.raises(ValueError, match="inputs: expected the batch size 3 of the stateful layer, got 2"):
        step_jacobians(layer, X[:2])


@pytest.mark.deep
@pytest.mark.parametrize("make", [keras_seq.GRU, keras.layers.GRU], ids=["ours", "Keras"])
def test_a_mixed_policy_is_exact_to_its_digits(make):
    short, long = make(4, dtype="mixed_bfloat16"), make(4)
    short(X), long(X)
    short.set_weights(long.get_weights())
    np.testing.assert_allclose(step_jacobians(short, X), step_jacobians(long, X), atol=0.05)


def elman(w=1.5, **given):
    layer = keras_seq.Elman(1, dtype="float64", **given)
    layer.build((None, None, 1))
    layer.set_weights([np.array(v) for v in ([[1.0]], [[w]], [0.3])])
    return layer


def test_a_scalar_tanh_has_the_gain_of_its_slope():
    layer = elman(blocked=False)
    x = RNG.normal(size=(1, 8, 1))
    h = np.concatenate([layer(x[:, : t + 1]).numpy() for t in range(8)])
    expected = 1.5 * (1 - h[:, 0] ** 2)
    np.testing.assert_allclose(step_jacobians(layer, x)[0, :, 0, 0], expected, rtol=1e-12)
    flow = gradient_flow(layer, x, largest=True)
    np.testing.assert_allclose(flow.log_norm[0, 1:], np.cumsum(np.log(np.abs(expected))[::-1]), rtol=1e-12)
    np.testing.assert_allclose(flow.log_largest, flow.log_norm, rtol=1e-12)
    np.testing.assert_allclose(lyapunov_spectrum(layer, x).exponents[0, 0], np.log(np.abs(expected)).mean(), rtol=1e-12)


def test_a_blocked_state_changes_what_follows_and_training_does_not_see_it():
    blocked, plain, x = elman(), elman(blocked=False), RNG.normal(size=(1, 8, 1))
    np.testing.assert_array_equal(step_jacobians(blocked, x), step_jacobians(plain, x))
    assert np.all(gradient_flow(blocked, x).log_norm[:, 1:] == -math.inf)
    assert np.all(gradient_flow(blocked, x, probes=3).log_norm[:, 1:] == -math.inf)


def linear(matrix):
    layer = keras_seq.SimpleRNN(len(matrix), activation=None, dtype="float64")
    layer.build((None, None, 1))
    layer.set_weights([np.zeros((1, len(matrix))), np.transpose(matrix), np.zeros(len(matrix))])
    return layer


def test_a_rotation_keeps_and_a_diagonal_system_scales():
    turn = linear([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    x = np.zeros((1, 30, 1))
    np.testing.assert_allclose(np.abs(step_spectrum(turn)), 1, rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.angle(step_spectrum(turn))), 0.5, rtol=1e-12)
    np.testing.assert_allclose(gradient_flow(turn, x).log_norm, 0, atol=1e-12)
    np.testing.assert_allclose(lyapunov_spectrum(turn, x).exponents, 0, atol=1e-12)
    scales = np.array([2.0, 0.5, 0.1])
    layer, lags = linear(np.diag(scales)), np.arange(31)
    flow = gradient_flow(layer, x, largest=True)
    np.testing.assert_allclose(flow.log_largest[0], lags * math.log(2), atol=1e-12)
    expected = 0.5 * np.log(np.mean(scales[:, None] ** (2 * lags), axis=0))
    np.testing.assert_allclose(flow.log_norm[0], expected, atol=1e-12)
    # directions turn towards the axes at the rate of 1/4 a step
    found = lyapunov_spectrum(layer, np.zeros((1, 60, 1)), skip=30).exponents
    np.testing.assert_allclose(found[0], np.log(scales), atol=1e-6)


def test_what_is_far_below_the_least_number_is_not_lost():
    flow = gradient_flow(linear(np.diag([1e-3, 1e-4])), np.zeros((1, 400, 1)), largest=True)
    assert flow.log_largest[0, -1] == pytest.approx(-1200 * math.log(10))


class Logistic(keras_seq.Cell):
    """x <- r x (1 - x), r = 4, whatever the inputs."""

    state_names, state_size, output_size = ("x",), [1], 1

    def step(self, projected, states, constants=()):
        (x,) = states
        x = 4 * x * (1 - x) + 0 * projected
        return x, (x,)


def test_the_logistic_map_has_the_exponent_ln_2():
    layer = keras_seq.RNN(Logistic(dtype="float64"), dtype="float64")
    x, start = np.zeros((4, 5000, 1)), np.array([[0.2], [0.3], [0.61], [0.77]])
    layer(x[:, :1])
    for leading in (None, 1):
        found = lyapunov_spectrum(layer, x, [start], skip=100, leading=leading)
        assert np.all(found.standard_error < 1e-3)
        assert np.all(np.abs(found.exponents - math.log(2)) < 3 * found.standard_error)


def test_leading_exponents_and_probes_are_those_of_whole_jacobians():
    layer = LAYERS["LSTM"](dtype="float64")
    x = RNG.normal(size=(B, 60, D))
    layer(x)
    mask = RNG.random((B, 60)) > 0.2
    whole, some = (lyapunov_spectrum(layer, x, mask=mask, leading=k, skip=20) for k in (None, 2))
    for name in ("exponents", "standard_error"):  # over 40 steps they need not be the two greatest
        apart = np.abs(getattr(some, name)[:, :, None] - getattr(whole, name)[:, None])
        assert apart.min(axis=2).max() < 1e-9
    whole_way = from_first_to_last(layer, x, mask)
    flow, probed = (gradient_flow(layer, x, mask=mask, probes=k) for k in (None, 400))
    for row, steps in enumerate(mask.sum(axis=1)):
        expected = np.linalg.norm(whole_way[row]) / math.sqrt(10)
        assert flow.log_norm[row, steps] == pytest.approx(math.log(expected))
        assert np.isnan(flow.log_norm[row, steps + 1 :]).all()
    np.testing.assert_allclose(probed.log_norm, flow.log_norm, atol=4 / math.sqrt(800))
    assert probed.log_largest is None


def test_exponents_add_up_to_how_volumes_change():
    layer = LAYERS["LSTM"](dtype="float64")
    layer(X)
    volumes = np.log(np.abs(np.linalg.det(step_jacobians(layer, X))))
    np.testing.assert_allclose(lyapunov_spectrum(layer, X).exponents.sum(axis=1), volumes.mean(axis=1), rtol=1e-9)
    masked = lyapunov_spectrum(layer, X, mask=MASK, skip=1).exponents.sum(axis=1)
    own = np.log(np.abs(np.linalg.det(step_jacobians(layer, X, mask=MASK))))
    real = MASK & (np.arange(T) > 0)
    np.testing.assert_allclose(masked, [v[r].mean() for v, r in zip(own, real, strict=True)], rtol=1e-9)


def test_fixed_points_of_a_scalar_are_those_of_its_equation():
    layer = elman(2.0, blocked=False)
    found = fixed_points(layer, [-0.3], scale=2.0)  # the bias cancels: h = tanh(2 h)
    order = np.argsort(found.points[:, 0])
    away = 0.957504024079  # the root of h = tanh(2 h)
    np.testing.assert_allclose(found.points[order, 0], [-away, 0, away], atol=1e-9)
    assert list(found.stable[order]) == [True, False, True]
    np.testing.assert_allclose(found.eigenvalues[order, 0], [2 * (1 - away**2), 2, 2 * (1 - away**2)], atol=1e-6)
    assert found.starts.sum() + found.failed == 64
    assert found.failed == 0
    alone = fixed_points(layer, [-0.3], starts=[np.array([[3.0]])])
    np.testing.assert_allclose(alone.points, [[away]], atol=1e-9)


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(d, marks=pytest.mark.deep) for d in ("float64", "mixed_bfloat16"))]
)
def test_fixed_points_of_an_lstm_are_kept_by_its_step(dtype):
    layer = keras_seq.LSTM(6, dtype=dtype, return_state=True)
    layer(X)
    x = np.ones(D)
    found = fixed_points(layer, x, starts=16)
    assert len(found.points) >= 1
    h, c = np.split(found.points[:1], 2, axis=1)
    _, *after = layer(x[None, None], initial_state=[h, c])
    np.testing.assert_allclose(
        np.concatenate(after, axis=1), found.points[:1], atol={"float64": 1e-13, "float32": 1e-5}.get(dtype, 0.1)
    )


def test_no_fixed_point_is_no_fixed_point():
    layer = linear([[1.0]])
    layer.set_weights([np.ones((1, 1)), np.ones((1, 1)), np.ones(1)])  # h + 1
    found = fixed_points(layer, starts=5)
    assert len(found.points) == len(found.stable) == 0
    assert found.failed == 5


@pytest.mark.parametrize("make", [keras_seq.LSTM, keras.layers.LSTM], ids=["ours", "Keras"])
def test_the_leading_eigenvalues_of_a_wide_state(make):
    layer = make(40, recurrent_initializer="normal", dtype="float64")
    layer.build((None, None, D))
    state = [RNG.normal(size=40) / 4, RNG.normal(size=40)]
    whole = step_spectrum(layer, np.ones(D), state)
    some = step_spectrum(layer, np.ones(D), state, leading=5)
    np.testing.assert_allclose(np.abs(some), np.abs(whole[:5]), rtol=1e-6)


def gates_open(bias):
    layer = keras_seq.LSTM(8)
    layer.build((None, None, 2))
    kernel, recurrent, b = layer.get_weights()
    b[8:16] = bias
    layer.set_weights([kernel, 0.3 * recurrent, b])
    return layer


def test_an_open_forget_gate_keeps_a_gradient_that_a_simple_memory_loses():
    x = RNG.normal(size=(2, 200, 2)).astype("float32")
    lstm, simple = gates_open(9.0), keras_seq.SimpleRNN(8)
    simple(x)
    kept, lost = (gradient_flow(layer, x).log_norm for layer in (lstm, simple))
    assert np.abs(kept).max() < math.log(2)
    assert lost[:, -1].max() < -6 * math.log(10)
    assert np.abs(gradient_flow(gates_open(0.0), x).log_norm[:, -1]).min() > 6 * math.log(10)


def with_nan():
    layer = keras_seq.GRU(3, name="spoiled")
    layer(X)
    layer.cell.kernel.assign(ops.full_like(layer.cell.kernel, math.nan))
    return layer


def called(layer, *given, **further):
    layer(*given, **further)
    return layer


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: step_jacobians(keras.layers.Dense(3), X),
            (TypeError, ValueError),
            "layer: expected a recurrent layer",
        ),
        (
            lambda: step_jacobians(keras_seq.TDNN(3, delays=2), X),
            (TypeError, ValueError),
            "layer: expected a recurrent layer",
        ),
        (lambda: step_jacobians("LSTM", X), TypeError, "layer: expected a"),
        (lambda: step_jacobians(keras_seq.LSTM(3), X), ValueError, "layer: expected a built layer"),
        (lambda: step_jacobians(with_nan(), X), ValueError, "layer: expected finite weights, got NaN.*kernel"),
        (lambda: step_jacobians(keras_seq.NARX(3, 1), X), ValueError, "layer: expected a built layer"),
        (lambda: step_jacobians(called(keras_seq.GRU(3), X), X[..., :2]), ValueError, "inputs: expected width 4"),
        (lambda: step_jacobians(called(keras_seq.GRU(3), X), X + math.nan), ValueError, "inputs: expected finite"),
        (lambda: step_jacobians(called(keras_seq.GRU(3), X), X[0]), ValueError, r"inputs: expected shape \(b, t, d\)"),
        (
            lambda: step_jacobians(called(keras_seq.GRU(3), X), X[:, :0]),
            ValueError,
            r"inputs: expected shape \(b, t, d\)",
        ),
        (lambda: step_jacobians(called(keras_seq.GRU(3), X), "words"), TypeError, "inputs: expected numbers"),
        (lambda: step_jacobians(called(keras_seq.GRU(3), X), X, mask=MASK[:2]), ValueError, "mask: expected shape"),
        (lambda: step_jacobians(called(keras_seq.GRU(3), X), X, [X[:, 0]]), ValueError, "initial_state: expected 1"),
        (lambda: step_jacobians(called(keras_seq.GRU(3), X), X, constants=[X]), ValueError, "constants: expected none"),
        (lambda: gradient_flow(called(keras_seq.GRU(3), X), X, probes=0), ValueError, "probes: expected a positive"),
        (
            lambda: lyapunov_spectrum(called(keras_seq.GRU(3), X), X, leading=4),
            ValueError,
            "leading: expected at most 3",
        ),
        (lambda: lyapunov_spectrum(called(keras_seq.GRU(3), X), X, skip=6), ValueError, "skip: expected .* 0 to 5"),
        (
            lambda: lyapunov_spectrum(called(keras_seq.GRU(3), X), X, mask=0 * MASK),
            ValueError,
            "mask: expected at least one",
        ),
        (lambda: fixed_points(called(keras_seq.GRU(3), X), X[0]), ValueError, r"inputs: expected shape \(4,\)"),
        (
            lambda: fixed_points(called(keras_seq.GRU(3), X), starts=np.ones((2, 4))),
            ValueError,
            r"starts: expected shape \(b, 3\)",
        ),
        (
            lambda: fixed_points(called(keras_seq.GRU(3), X), scale=-1.0),
            ValueError,
            "scale: expected a positive number",
        ),
        (lambda: step_spectrum(called(keras_seq.GRU(3), X), leading=2), ValueError, "leading: expected at most 1"),
        (lambda: step_spectrum(called(keras_seq.GRU(3), X), state=np.ones(4)), ValueError, "state: expected shape"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("of_all", [step_spectrum, fixed_points], ids=lambda f: f.__name__)
def test_a_state_too_wide_for_a_jacobian_is_sent_to_the_leading_part(of_all):
    layer = keras_seq.LSTM(600)
    layer.build((None, None, 1))
    with pytest.raises(ValueError, match=r"layer: expected a state of at most 1024 .*got 1200 of lstm.*leading"):
        of_all(layer)


def test_the_leading_part_of_a_wide_state_is_computed_without_its_jacobian():
    layer = keras_seq.LSTM(600)
    x = RNG.normal(size=(1, 4, 1)).astype("float32")
    layer(x)
    with pytest.raises(ValueError, match="at most 1024"):
        step_jacobians(layer, x)
    assert lyapunov_spectrum(layer, x, leading=2).exponents.shape == (1, 2)
    assert gradient_flow(layer, x, probes=2).log_norm.shape == (1, 5)


def test_a_layer_of_a_model_reads_what_arrives_there_with_its_mask():
    embedding, lstm = keras.layers.Embedding(5, 3, mask_zero=True), keras_seq.LSTM(4, return_sequences=True)
    both = keras.layers.Bidirectional(keras.layers.GRU(3))
    model = keras.Sequential([keras.Input((None,)), embedding, lstm, both, keras.layers.Dense(2)])
    ids = np.array([[1, 2, 3, 0, 0], [4, 1, 1, 2, 3]])
    x, mask = embedding(ids), ids > 0
    found = step_jacobians(model, ids, of=lstm)
    np.testing.assert_allclose(found, step_jacobians(lstm, x, mask=mask), atol=1e-6)
    np.testing.assert_array_equal(found[0, 3:], np.broadcast_to(np.eye(8), (2, 8, 8)))
    h = lstm(x, mask=tf.constant(mask))
    found = step_jacobians(model, ids, of=both.backward_layer)
    np.testing.assert_allclose(found, step_jacobians(both.backward_layer, h, mask=mask), atol=1e-6)
    with pytest.raises(ValueError, match="initial_state, mask, constants: expected None for the model"):
        step_jacobians(model, ids, of=lstm, mask=mask)


def test_a_layer_of_a_functional_model_begins_where_the_model_lets_it_begin():
    source, target = keras.Input((None, 3)), keras.Input((None, 2))
    reader, writer = keras.layers.LSTM(4, return_state=True), keras_seq.LSTM(4)
    inner = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(3)])
    _, *states = reader(inner(source))
    model = keras.Model([source, target], keras.layers.Dense(1)(writer(target, initial_state=states)))
    x, y = (RNG.normal(size=(2, 5, d)).astype("float32") for d in (3, 2))
    found = step_jacobians(model, [x, y], of=writer)
    _, *states = reader(inner(x))
    np.testing.assert_allclose(found, step_jacobians(writer, y, initial_state=states), atol=1e-6)
    assert np.abs(found - step_jacobians(writer, y)).max() > 1e-3
    around = keras.Model(source, keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(3), reader])(source)[0])
    np.testing.assert_allclose(
        step_jacobians(around, x), step_jacobians(reader, around.layers[1].layers[0](x)), atol=1e-6
    )
    with pytest.raises(ValueError, match="inputs: expected 2 for the model"):
        step_jacobians(model, x, of=writer)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.memory = keras_seq.GRU(3)

    def call(self, x):
        return self.memory(x)


def test_where_what_arrives_is_not_known_it_says_so():
    model = Subclassed()
    model(X)
    with pytest.raises(
        ValueError, match=r"layer: expected gru.* within a Stacked, a Bidirectional or a functional model"
    ):
        step_jacobians(model, X)
    twice = keras_seq.GRU(4)
    x = keras.Input((None, 4))
    shared = keras.Model(x, keras.layers.Add()([twice(x), twice(keras.ops.flip(x, axis=1))]))
    with pytest.raises(ValueError, match=r"of: expected a layer that is called once, got gru.*, called 2 times"):
        step_jacobians(shared, X)


def test_the_gain_at_rest_is_the_slope_times_the_weight():
    for activation, slope in (("tanh", 1.0), ("sigmoid", 0.25), ("softsign", 1.0), ("linear", 1.0)):
        layer = keras_seq.SimpleRNN(1, activation=activation, dtype="float64")
        layer.build((None, None, 1))
        layer.set_weights([np.array(v) for v in ([[1.0]], [[-1.7]], [0.0])])
        np.testing.assert_allclose(step_spectrum(layer), [-1.7 * slope], rtol=1e-12)


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
    layer = called(keras_seq.GRU(4), X)
    assert len(step_spectrum(layer)) == 4
    with pytest.raises(ModuleNotFoundError, match=r"scipy is not installed: pip install keras_seq\[analysis\]"):
        step_spectrum(layer, leading=1)


@pytest.mark.deep
def test_several_threads_get_what_one_gets():
    stack = keras_seq.Stacked([keras_seq.GRU(3, return_sequences=True), keras_seq.LSTM(4)], dtype="float64")
    stack(X)
    expected = [gradient_flow(stack, X, of=i).log_norm for i in (0, 1)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda i: gradient_flow(stack, X, of=i % 2).log_norm, range(12)))
    for i, one in enumerate(found):
        np.testing.assert_array_equal(one, expected[i % 2])


def test_an_analysis_keeps_no_layer():
    layer = called(keras_seq.LSTM(3), X)
    gradient_flow(layer, X)
    cell = weakref.ref(layer.cell)
    del layer
    gc.collect()
    assert cell() is None

"""NARX and AR at work: loops that share weights, in memory and in files; forecasts; training; the compiled program."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import assert_close
from narx_cases import CASES, RAGGED, SOME, B, D, Given, K, T, W, every_case, made, oracle, some_cases

import keras_seq

# -- weights are shared --------------------------------------------------------------------------------------------------


def trained(layer, given, **call):
    """The layer after a few steps of gradient descent on the true outputs."""
    optimizer = keras.optimizers.SGD(0.05)
    for _ in range(3):
        with tf.GradientTape() as tape:
            output = layer(given.x, training=True, **call)
            loss = tf.reduce_mean((output - given.y) ** 2)
        optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
    return layer


@pytest.mark.parametrize("trains", ["open", "closed"])
@some_cases
def test_training_one_loop_trains_the_other(name, trains):
    layer = made(name, return_state=False)
    given, closed = Given(layer), layer.close_loop()
    opened = closed.open_loop()
    before = [layer(given.x, targets=given.y), closed(given.x)]
    if trains == "open":
        trained(layer, given, targets=given.y)
    else:
        trained(closed, given)
    after = [opened(given.x, targets=given.y), closed(given.x)]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(after, before, strict=True))
    assert_close([after[0]], [layer(given.x, targets=given.y)], 0.0)
    assert all(a is b for a, b in zip(layer.weights, closed.weights, strict=True))
    assert len(layer.weights) == len(closed.weights) > 0


def test_twins_keep_type_flags_and_policy():
    flags = {"return_sequences": True, "go_backwards": True, "zero_output_for_mask": True, "return_internals": True}
    layer = keras_seq.AR(3, output_delays=2, activity_regularizer="l2", dtype="mixed_bfloat16", **flags)
    closed = layer.close_loop(go_backwards=False)
    assert (type(closed), closed.closed, layer.closed, closed.cell) == (keras_seq.AR, True, False, layer.cell)
    assert {f: getattr(closed, f) for f in flags} == {**flags, "go_backwards": False}
    assert (closed.dtype_policy.name, closed.activity_regularizer) == ("mixed_bfloat16", layer.activity_regularizer)
    back = closed.open_loop(return_state=True)
    assert (back.closed, back.return_state, back.cell, back.delays) == (False, True, layer.cell, 2)


def both_loops(name):
    """A functional model that holds the open loop and the closed one, of unknown batch and time."""
    layer = made(name, dtype="float32", return_state=False)
    d = D if layer.cell.exogenous else K
    x, y, known = keras.Input((None, d)), keras.Input((None, layer.cell.outputs)), keras.Input((W, layer.cell.outputs))
    outputs = [layer(x, targets=y), layer.close_loop()(x, targets=known), layer.close_loop()(x)]
    return keras.Model([x, y, known], outputs)


def numbers(name, b=3, t=7, seed=9):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(b, t, D if "AR" not in name else K)).astype("float32")
    y = rng.normal(size=(b, t, K)).astype("float32")
    return [x, y, y[:, :W]]


@some_cases
def test_loops_loaded_from_a_file_still_share(name, tmp_path):
    first = both_loops(name)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    expected = first(numbers(name))
    assert_close(second(numbers(name)), expected, 0.0)
    layers = [layer for layer in second.layers if isinstance(layer, keras_seq.NARX)]
    assert [layer.closed for layer in layers] == [False, True, True]
    assert len({id(layer.cell) for layer in layers}) == 1
    assert [w.shape for w in second.weights] == [w.shape for w in first.weights]
    for w in layers[0].trainable_weights:
        w.assign(0.9 * w)
    for now, before in zip(second(numbers(name)), expected, strict=True):
        assert np.abs(now - before).max() > 1e-3


@pytest.mark.deep
@pytest.mark.parametrize("name", SOME[1:2])
def test_exported_loops(name, tmp_path):
    """At other batches and lengths than ever seen before, in the process that wrote them."""
    model = both_loops(name)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    for b, t in ((3, 7), (1, 5), (6, 12)):
        given = numbers(name, b, t)
        assert_close(loaded.serve([tf.constant(v) for v in given]), model(given), 1e-6)


@every_case
def test_config(name):
    layer = CASES[name](name="mine", return_sequences=True, closed=True)
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert json.dumps(again.get_config()) == json.dumps(layer.get_config())
    assert (again.name, again.closed, again.return_sequences) == ("mine", True, True)
    assert (again.cell.input_delays, again.cell.output_delays) == (layer.cell.input_delays, layer.cell.output_delays)
    assert (again.units, again.outputs) == (layer.cell.units, layer.cell.outputs)


# -- forecasts -----------------------------------------------------------------------------------------------------------


def expected_forecast(layer, given, known):
    zeros = [np.zeros_like(s) for s in given.states]
    return oracle(layer.cell, given.x, given.y[:, :known], zeros)[0][:, known:]


@pytest.mark.parametrize("known", [4, 6])
@every_case
def test_forecast(name, known):
    for flags in ({}, {"closed": True, "return_sequences": False}, {"return_internals": True}):
        layer = made(name, **flags)
        given = Given(layer)
        further = {"sequences": given.x} if layer.cell.exogenous else {"steps": T - known}
        found = layer.forecast(given.y[:, :known], **further)
        assert_close([found], [expected_forecast(layer, given, known)], 1e-12)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
@pytest.mark.parametrize("name", ["hidden", "AR"])
def test_forecast_of_an_unknown_batch_is_traced_once(name, jit):
    layer = made(name)
    d = D if layer.cell.exogenous else K

    @tf.function(
        input_signature=[tf.TensorSpec((None, 5, K), "float64"), tf.TensorSpec((None, 8, d), "float64")],
        jit_compile=jit,
    )
    def forecast(targets, sequences):
        further = {"sequences": sequences} if layer.cell.exogenous else {"steps": 3}
        return layer.forecast(targets, **further)

    for b in (1, 4, 7):
        given = Given(layer, b=b, seed=b)
        assert_close([forecast(given.y[:, :5], given.x)], [expected_forecast(layer, given, 5)], 1e-12)
    assert forecast.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", ["hidden", "AR"])
def test_forecast_within_a_functional_model(name):
    layer = made(name)
    known, x = keras.Input((5, K), dtype="float64"), keras.Input((None, D), dtype="float64")
    given = Given(layer)
    if layer.cell.exogenous:
        found = keras.Model([known, x], layer.forecast(known, sequences=x))([given.y[:, :5], given.x])
    else:
        found = keras.Model(known, layer.forecast(known, steps=3))(given.y[:, :5])
    assert_close([found], [expected_forecast(layer, given, 5)], 1e-6)


def test_least_squares_is_a_linear_ar():
    """The AR model of two series at lags 1 and 3, fitted by NumPy, put into the layer."""
    rng, steps = np.random.default_rng(0), 200
    a, c = 0.4 * rng.normal(size=(2, 2)), 0.3 * rng.normal(size=(2, 2))
    series = np.zeros((steps, 2))
    for t in range(3, steps):
        series[t] = 0.1 + series[t - 1] @ a + series[t - 3] @ c + 0.1 * rng.normal(size=2)
    lagged = np.concatenate([series[2:-1], series[:-3], np.ones((steps - 3, 1))], axis=1)
    found = np.linalg.lstsq(lagged, series[3:], rcond=None)[0]

    layer = keras_seq.AR(outputs=2, output_delays=[1, 3], return_sequences=True, dtype="float64")
    layer.build((None, None, 2))
    layer.cell.recurrent_kernel.assign(found[:4])
    layer.cell.bias.assign(found[4])
    assert_close([layer(series[None])[0, 3:]], [lagged @ found], 1e-12)

    past = list(series)
    for _ in range(20):
        past.append(past[-1] @ found[:2] + past[-3] @ found[2:4] + found[4])
    assert_close([layer.forecast(series[None], steps=20)[0]], [np.array(past[steps:])], 1e-12)

    # the squared error is least there: its gradient is zero
    with tf.GradientTape() as tape:
        error = tf.reduce_sum((layer(series[None])[0, 3:] - series[3:]) ** 2)
    assert_close(tape.gradient(error, layer.trainable_variables), [np.zeros((4, 2)), np.zeros(2)], 1e-9)


# -- training ------------------------------------------------------------------------------------------------------------


def plant(b=32, t=12, seed=0):
    """Inputs and outputs of y_t = tanh(0.6 y_{t-1} - 0.2 y_{t-2} + x_{t-1}), and y at the start."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(b, t, 1)), np.zeros((b, t, 1))
    y[:, 0] = rng.normal(size=(b, 1))
    for t in range(1, x.shape[1]):
        y[:, t] = np.tanh(0.6 * y[:, t - 1] - 0.2 * y[:, max(t - 2, 0)] + x[:, t - 1])
    return x.astype("float32"), y.astype("float32")


@pytest.mark.deep
def test_fit_open_and_then_closed_loop_compiled():
    x, y = plant()
    layer = keras_seq.NARX(8, 1, input_delays=[1], output_delays=2, return_sequences=True)
    inputs, targets = keras.Input((None, 1)), keras.Input((None, 1))
    model = keras.Model([inputs, targets], layer(inputs, targets=targets))
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=True)
    losses = model.fit([x, y], y, batch_size=16, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]

    known = keras.Input((2, 1))
    closed = keras.Model([inputs, known], layer.close_loop()(inputs, targets=known)[:, 2:])
    closed.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
    given = [x, y[:, :2]]
    before, weights = closed.evaluate(given, y[:, 2:], verbose=0), layer.get_weights()
    closed.fit(given, y[:, 2:], batch_size=16, epochs=20, verbose=0)
    assert closed.evaluate(given, y[:, 2:], verbose=0) < 0.8 * before
    assert all(np.any(a != b) for a, b in zip(layer.get_weights(), weights, strict=True))
    assert len(closed.trainable_weights) == len(layer.trainable_weights)


@pytest.mark.parametrize("name", ["linear", "hidden", "AR, hidden"])
def test_closed_loop_feeds_back_float32_under_a_mixed_policy(name):
    """States and their feedback are those of float32; in sixteen bits they would be off by a thousandth."""
    short, exact = (made(name, dtype=policy, use_bias=False) for policy in ("mixed_float16", "float32"))
    steps = 40
    rng = np.random.default_rng(1)
    x = rng.integers(-8, 9, size=(B, steps, D if short.cell.exogenous else K)) / 8  # exact in sixteen bits
    y = rng.normal(size=(B, W, K)).astype("float32")
    for layer in (short, exact):
        for w in layer.weights:
            w.assign(0.4 * w)
        if layer.cell.exogenous:
            kernel = layer.cell.kernel
            kernel.assign(np.round(16 * kernel) / 16)
    (output, *states), (right, *expected) = (
        layer.close_loop()(x.astype("float32"), targets=y) for layer in (short, exact)
    )
    assert (output.dtype, {s.dtype for s in states}) == ("float16", {tf.float32})
    assert np.abs(right[:, -1]).max() > 1e-2 or name.startswith("AR")
    assert_close(states, expected, 1e-6)
    _, opened, *_ = short(np.zeros_like(x[:, :W], "float32"), targets=y)
    n = max(short.cell.output_delays)
    np.testing.assert_array_equal(opened, y[:, -1 : -n - 1 : -1].reshape(B, -1))  # not rounded either


# -- at work -------------------------------------------------------------------------------------------------------------


def program(layer, stage="hlo", mask=None, **call):
    """The program of a training step that XLA is given, or makes of it."""

    @tf.function(jit_compile=True)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, mask=mask, training=True, **call)[0] ** 2)
        return tape.gradient(loss, [x, *layer.trainable_variables])

    return step.experimental_get_compiler_ir(tf.ones((B, T, D if layer.cell.exogenous else K)))(stage=stage)


@pytest.mark.deep
@pytest.mark.parametrize("stage", ["hlo", "optimized_hlo"])
@some_cases
def test_open_loop_is_no_loop(name, stage):
    layer = made(name, dtype="float32")
    given = Given(layer, "open")
    y = tf.constant(given.y, "float32")
    assert " while(" not in program(layer, stage, targets=y)
    if stage == "hlo":
        assert " while(" not in program(layer, mask=tf.constant(RAGGED), targets=y)
        closed = program(layer.close_loop(), targets=y[:, :W])
        assert closed.count(" while(") == 2  # a control: forward and backward in time


def test_one_trace_for_repeated_calls():
    layer = made("hidden", dtype="float32", return_state=False)
    closed = layer.close_loop()
    x, y = np.zeros((B, T, D), "float32"), np.zeros((B, T, K), "float32")
    functions = [
        tf.function(lambda x, y: layer(x, targets=y)),
        tf.function(lambda x, y: closed(x, targets=y[:, :W])),
        tf.function(lambda x, y: layer.close_loop()(x)),
    ]
    for function in functions:
        for i in range(3):
            function(tf.constant(x + i), tf.constant(y))
        assert function.experimental_get_tracing_count() == 1
    known = keras.Input((W, K))
    inputs = keras.Input((None, D))
    model = keras.Model([inputs, known], closed(inputs, targets=known))
    for i in range(3):
        model.predict([x + i, y[:, :W]], verbose=0)
    assert model.predict_function.experimental_get_tracing_count() == 1

"""The monitor of gradients: its numbers against plain tapes, that it changes nothing, where they go, and its errors."""

import csv
import glob
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_seq
from keras_seq.analysis import state_gradients
from keras_seq.models import LanguageModel, Seq2Seq, Vocabulary
from keras_seq.training import GradientMonitor, TruncatedBPTT, stream_chunks

B, T, D = 6, 7, 2
RNG = np.random.default_rng(4)
X = RNG.normal(size=(B, T, D)).astype("float32")
Y = RNG.normal(size=(B, 1)).astype("float32")
LENGTHS = np.array([7, 3, 5, 7, 1, 4])
TOKENS = np.where(np.arange(T) < LENGTHS[:, None], RNG.integers(1, 9, (B, T)), 0)


def sequential(*layers, width=D, **compiled):
    model = keras.Sequential([keras.Input((T, width)), *layers, keras.layers.Dense(1, name="out")])
    model.compile(**{"optimizer": "adam", "loss": "mse", **compiled})
    return model


def memory(**settings):
    return keras_seq.LSTM(4, name="memory", **settings)


def measured(model, data=(X, Y), **settings):
    monitor = GradientMonitor(data, **settings)
    monitor.set_model(model)
    return monitor.measure()


def expected_norms(model, x, y, sample_weight=None):
    """By a plain tape: of all weights, and of those of each layer of the model."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), sample_weight, training=True)
    gradients = tape.gradient(loss, model.trainable_variables)
    squares = {
        v.path: float(tf.reduce_sum(tf.convert_to_tensor(g) ** 2))
        for v, g in zip(model.trainable_variables, gradients, strict=True)
    }
    layers = {layer.name: sum(squares[v.path] for v in layer.trainable_variables) ** 0.5 for layer in model.layers}
    return float(loss), sum(squares.values()) ** 0.5, {name: norm for name, norm in layers.items() if norm}


def expected_curves(model, layer, x, y, mask=None):
    """Of one memory, whose outputs the rest of the model reads; by `state_gradients`, row by row."""
    before = model.layers[: model.layers.index(layer)]
    after = model.layers[model.layers.index(layer) + 1 :]
    inputs = x
    for one in before:
        inputs = one(inputs)
    outputs = layer(inputs, **({} if mask is None else {"mask": mask}))
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        y_pred = outputs
        for one in after:
            y_pred = one(y_pred)
        loss = model.compute_loss(x, y, y_pred)
    found = state_gradients(layer, inputs, tape.gradient(loss, outputs), **({} if mask is None else {"mask": mask}))
    mask = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask)
    curves = []
    for g in found:
        by_lag = [[] for _ in range(g.shape[1])]
        for row, real in zip(np.asarray(g), mask, strict=True):
            for lag, step in enumerate(row[real][::-1]):
                by_lag[lag].append(np.sum(step**2))
        curves.append(np.sqrt([np.mean(values) if values else np.nan for values in by_lag]))
    return curves


@pytest.mark.parametrize("jit", [False, True])
def test_norms_are_those_of_a_plain_tape(jit):
    layer = memory(recurrent_regularizer=keras.regularizers.L2(0.1))
    model = sequential(layer, jit_compile=jit)
    weights = RNG.uniform(size=B).astype("float32")
    found = measured(model, (X, Y, weights))
    loss, norm, layers = expected_norms(model, X, Y, weights)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.gradient_norm == pytest.approx(norm, rel=1e-5)
    assert found.layers == pytest.approx(layers, rel=1e-5)
    curves = expected_curves(model, layer, X, Y)
    states = measured(model).states
    assert list(states) == ["memory"]
    for state, curve in zip("hc", curves, strict=True):
        np.testing.assert_allclose(states["memory"][state], curve, rtol=1e-4, atol=1e-9)


def embedding_model(layer):
    model = keras.Sequential(
        [keras.layers.Embedding(9, 3, mask_zero=True, name="table"), layer, keras.layers.Dense(1, name="out")]
    )
    model.compile("adam", "mse")
    model(TOKENS)
    return model


@pytest.mark.parametrize("make", [keras_seq.GRU, keras.layers.GRU])
def test_lags_count_real_steps(make):
    layer = make(4, name="memory")
    model = embedding_model(layer)
    found = measured(model, (TOKENS, Y))
    mask = TOKENS != 0
    (curve,) = expected_curves(model, layer, TOKENS, Y, ops.convert_to_tensor(mask))
    np.testing.assert_allclose(found.states["memory"]["h"], curve, rtol=1e-4, atol=1e-9)
    assert found.gradient_norm == pytest.approx(expected_norms(model, TOKENS, Y)[1], rel=1e-5)
    long = GradientMonitor((TOKENS[:, :5] * (np.arange(5) < 3), Y), lags=[0, 4, 90])
    long.set_model(model)
    logs = long._as_logs(long.measure())
    assert [np.isnan(logs[f"state_gradient/memory/h/lag_{k}"]) for k in (0, 4, 90)] == [False, True, True]


def stateful_model():
    layers = [keras.layers.BatchNormalization(), memory(stateful=True, dropout=0.5, zoneout=0.1, seed=1)]
    model = keras.Sequential(
        [keras.Input(batch_shape=(B, T, D)), *layers, keras.layers.Dropout(0.5, seed=2), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model, tf.data.Dataset.from_tensors((X, Y)).repeat(4)


def language_model():
    vocabulary = Vocabulary(["a", "b", "c"], split="characters")
    model = LanguageModel(vocabulary, memory(return_sequences=True), embedding_size=3)
    model.compile("adam")
    return model, model.streams("abcacbabcacab" * 5, rows=2, steps=5)


def on_streams(make=keras_seq.LSTM):
    inner = keras.Sequential(
        [keras.Input((None, D)), make(4, return_sequences=True, name="memory"), keras.layers.Dense(1)]
    )
    model = TruncatedBPTT(inner, steps=7)
    model.compile("adam", "mse")
    return model, stream_chunks(np.tile(X, (1, 3, 1)), np.tile(X[..., :1], (1, 3, 1)), steps=7)


@pytest.mark.parametrize(
    "make", [stateful_model, *(pytest.param(m, marks=pytest.mark.deep) for m in (language_model, on_streams))]
)
def test_training_is_bit_for_bit_what_it_is_without(make):
    def trained(*monitors):
        keras.utils.set_random_seed(3)
        model, data = make()
        callbacks = [GradientMonitor(data, interval=1) for _ in range(*monitors)]
        history = model.fit(data, epochs=2, verbose=0, callbacks=callbacks).history
        return [*model.get_weights(), *(np.asarray(v) for v in model.optimizer.variables)], history

    plain, history = trained(0)
    watched, also = trained(1)
    assert set(also) > set(history)
    for a, b in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(a, b)
    assert {name: also[name] for name in history} == history


def test_dropout_is_that_of_the_next_step():
    model = sequential(memory(dropout=0.5, seed=3))
    first, again = measured(model), measured(model)
    assert first.gradient_norm == again.gradient_norm
    assert first.loss == pytest.approx(expected_norms(model, X, Y)[0], rel=1e-5)


@pytest.mark.deep
@pytest.mark.parametrize("make", [keras_seq.LSTM, keras.layers.LSTM])
def test_a_loss_scale_does_not_show(make):
    model = sequential(make(4, name="memory", dtype="float32"))
    found = measured(model)
    mixed = keras.Sequential(
        [
            keras.Input((T, D)),
            make(4, name="memory", dtype="mixed_float16"),
            keras.layers.Dense(1, name="out", dtype="mixed_float16"),
        ]
    )
    mixed.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**12), "mse")
    mixed.set_weights(model.get_weights())
    short = measured(mixed)
    assert short.loss == pytest.approx(found.loss, rel=0.01)
    assert short.layers == pytest.approx(found.layers, rel=0.02)
    np.testing.assert_allclose(short.states["memory"]["h"], found.states["memory"]["h"], rtol=0.05)
    assert mixed.fit(X, Y, verbose=0, callbacks=[GradientMonitor((X, Y))]).history["gradient_norm"][0] > 0


@pytest.mark.deep
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 1e-5), ("mixed_bfloat16", 0.05), ("bfloat16", 0.1)])
def test_in_other_float_types(dtype, rounding, jit):
    exact = sequential(memory(), jit_compile=jit)
    layers = [keras_seq.LSTM(4, name="memory", dtype=dtype), keras.layers.Dense(1, name="out", dtype=dtype)]
    model = keras.Sequential([keras.Input((T, D)), *layers])
    model.compile("sgd", "mse", jit_compile=jit)
    model.set_weights(exact.get_weights())
    found, expected = measured(model), measured(exact)
    assert found.layers == pytest.approx(expected.layers, rel=rounding)
    np.testing.assert_allclose(
        found.states["memory"]["c"], expected.states["memory"]["c"], rtol=2 * rounding, atol=1e-6
    )


def functional():
    x = keras.Input((T, D), name="x")
    h = keras_seq.Bidirectional(keras_seq.GRU(3, return_sequences=True, name="both"))(x)
    h = keras_seq.Stacked(
        [keras_seq.LSTM(3, return_sequences=True, name="lower"), keras_seq.SimpleRNN(3, name="upper")]
    )(h)
    return keras.Model(x, {"out": keras.layers.Dense(1, name="out")(h), "more": keras.layers.Dense(2, name="more")(h)})


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential([keras.layers.Dense(3), memory()], name="inner")
        self.out = keras.layers.Dense(1)

    def call(self, x, training=False):
        return self.out(self.inner(x))


class OfKeras(keras.Model):
    def __init__(self):
        super().__init__()
        self.both = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))
        self.cells = keras.layers.RNN([keras.layers.GRUCell(3), keras.layers.LSTMCell(2)])
        self.out = keras.layers.Dense(1)

    def call(self, x, training=False):
        return self.out(self.cells(self.both(x)))


def translator():
    vocabulary = Vocabulary(["a", "b", "c"], split="characters")
    model = Seq2Seq(
        vocabulary,
        vocabulary,
        keras_seq.Bidirectional(keras_seq.GRU(3, return_sequences=True)),
        keras_seq.RNN(keras_seq.AttentionCell(keras_seq.GRUCell(4)), return_sequences=True, name="decoder"),
        embedding_size=3,
        max_length=5,
    )
    model.compile("adam")
    pairs = tf.data.Dataset.from_tensors((["abc", "ca"], ["cba", "ac"]))
    return model, pairs.map(model.example)


def compiled(model, **settings):
    model.compile("adam", "mse", **settings)
    return model, (
        X,
        {"out": Y, "more": np.repeat(Y, 2, 1)} if isinstance(model.layers[0], keras.layers.InputLayer) else Y,
    )


MASKED = ("translator", "language model")
MODELS = {
    "functional": (lambda: compiled(functional()), ["forward_both", "backward_both", "lower", "upper"]),
    "subclassed": (lambda: compiled(Subclassed()), ["memory"]),
    "eager": (lambda: compiled(Subclassed(), run_eagerly=True), ["memory"]),
    "of Keras": (lambda: compiled(OfKeras(), jit_compile=False), 3),
    "of Keras, XLA": (lambda: compiled(OfKeras(), jit_compile=True), 3),
    "language model": (language_model, ["memory"]),
    "streams": (on_streams, ["memory"]),
    "streams, of Keras": (lambda: on_streams(keras.layers.GRU), ["memory"]),
    "translator": (translator, 3),
}


@pytest.mark.deep
@pytest.mark.parametrize("name", MODELS)
def test_in_any_model(name):
    make, names = MODELS[name]
    model, data = make()
    monitor = GradientMonitor(data, interval=2)
    given = (data,) if isinstance(data, tf.data.Dataset) else data
    history = model.fit(*given, epochs=2, verbose=0, shuffle=False, callbacks=[monitor]).history
    found = monitor.measurements[-1]
    assert len(found.states) == names if isinstance(names, int) else list(found.states) == names
    assert history["gradient_norm"][-1] == found.gradient_norm > 0
    weights = {v.path for v in model.trainable_variables}
    covered = [v.path for _, own in monitor._owners for v in own]
    assert sorted(covered) == sorted(weights)
    for states in found.states.values():
        for curve in states.values():
            assert np.all(np.isfinite(curve)) or name in MASKED
            assert np.any(curve > 0)


@pytest.mark.deep
def test_a_layer_called_twice_counts_as_one_over_all_rows():
    shared = keras_seq.GRU(3, name="memory")
    x, y = keras.Input((T, D)), keras.Input((4, D))
    model = keras.Model([x, y], shared(x) - shared(y))
    model.compile("adam", "mse")
    data = ([X, X[:, :4] * 2], np.zeros((B, 3), "float32"))
    found = measured(model, data).states["memory"]["h"]
    with tf.GradientTape() as tape:
        outputs = [shared(data[0][0]), shared(data[0][1])]
        tape.watch(outputs)
        loss = tf.reduce_mean((outputs[0] - outputs[1]) ** 2)
    each = [
        state_gradients(shared, v, g)[0].numpy()[:, ::-1] ** 2
        for v, g in zip(data[0], tape.gradient(loss, outputs), strict=True)
    ]
    squares = [np.concatenate([e[:, k] for e in each if k < e.shape[1]]).sum(1).mean() for k in range(T)]
    np.testing.assert_allclose(found, np.sqrt(squares), rtol=1e-4)


def test_logs_go_where_logs_go(tmp_path):
    model = sequential(memory())
    monitor = GradientMonitor((X, Y), interval=2, lags=[0, 6], log_dir=tmp_path / "board")
    seen = []

    class Batches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["gradient_norm"])

    callbacks = [monitor, Batches(), keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    stop = keras.callbacks.EarlyStopping("gradient_norm/memory", patience=9, mode="min")
    history = model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[*callbacks, stop]).history
    assert [(m.epoch, m.step) for m in monitor.measurements] == [(0, 0), (0, 2), (1, 4)]
    assert seen == [monitor.measurements[i].gradient_norm for i in (0, 0, 1, 1, 2, 2)]
    for name, value in {
        "gradient_norm": lambda m: m.gradient_norm,
        "gradient_norm/out": lambda m: m.layers["out"],
        "state_gradient/memory/c/lag_6": lambda m: float(m.states["memory"]["c"][6]),
    }.items():
        assert history[name] == [value(monitor.measurements[i]) for i in (1, 2)]
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["state_gradient/memory/h/lag_0"]) for row in rows] == history["state_gradient/memory/h/lag_0"]
    (path,) = glob.glob(str(tmp_path / "board" / "*"))
    events = [tf.compat.v1.Event.FromString(e.numpy()) for e in tf.data.TFRecordDataset(path)]
    written = {(e.step, v.tag): tf.make_ndarray(v.tensor) for e in events for v in e.summary.value}
    assert len(written) == 3 * (1 + 2 + 4)
    for m in monitor.measurements:
        assert written[m.step, "gradient_norm"] == pytest.approx(m.gradient_norm)
        assert written[m.step, "state_gradient/memory/h/lag_6"] == pytest.approx(m.states["memory"]["h"][6])
    kinds = {v.metadata.plugin_data.plugin_name for e in events for v in e.summary.value}
    assert kinds == {"scalars"}


def test_every_epoch_has_the_same_names_and_the_steps_of_an_execution_count():
    model = sequential(memory(), steps_per_execution=2)
    monitor = GradientMonitor((X, Y), interval=5, layers=["memory"])
    history = model.fit(X, Y, batch_size=1, epochs=3, verbose=0, callbacks=[monitor]).history
    assert [m.step for m in monitor.measurements] == [0, 6, 12]
    assert {len(values) for values in history.values()} == {3}
    assert [name for name in history if "/h/" in name] == [f"state_gradient/memory/h/lag_{k}" for k in (0, 1, 6)]


def test_a_function_is_made_anew_for_what_is_compiled_anew():
    model = sequential(memory())
    monitor = GradientMonitor((X, Y))
    model.fit(X, Y, verbose=0, callbacks=[monitor])
    function = monitor._function
    model.fit(X, Y, verbose=0, callbacks=[monitor])
    assert monitor._function is function
    model.compile("sgd", "mae")
    monitor.set_model(model)
    assert monitor.measure().loss == pytest.approx(np.mean(np.abs(model(X) - Y)), rel=1e-5)


def test_batches_of_a_data_set_come_by_turns():
    model = sequential(memory())
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    monitor = GradientMonitor(data)
    monitor.set_model(model)
    losses = [monitor.measure().loss for _ in range(4)]
    assert losses[:2] == losses[2:]
    assert losses[0] != losses[1]
    assert losses[:2] == pytest.approx([expected_norms(model, X[i : i + 3], Y[i : i + 3])[0] for i in (0, 3)], rel=1e-5)


@pytest.mark.deep
def test_plots_show_epochs_or_steps(tmp_path):
    model = sequential(memory())
    monitor = GradientMonitor((X, Y), interval=1)
    model.fit(X, Y, batch_size=2, epochs=9, verbose=0, callbacks=[monitor])
    ax = monitor.plot()
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == [f"epoch {n}" for n in (1, 3, 4, 6, 7, 9)]
    assert len({(line.get_linestyle(), line.get_marker()) for line in ax.lines}) == 6
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), monitor.measurements[-1].states["memory"]["h"])
    assert ax.get_yscale() == "log"
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=[monitor])
    again = monitor.plot("memory", "c", ax=ax.figure.add_subplot())
    assert [t.get_text() for t in again.get_legend().get_texts()] == ["step 0", "step 1", "step 2"]
    ax.figure.savefig(tmp_path / "gradients.png")
    for wrong, message in (({"layer": "out"}, "layer: expected one of"), ({"state": "z"}, "state: expected one of")):
        with pytest.raises(ValueError, match=message):
            monitor.plot(**wrong)
    with pytest.raises(ValueError, match="measurements: expected some"):
        GradientMonitor((X, Y)).plot()


@pytest.mark.deep
def test_in_several_threads_at_once():
    found = {}

    def work(i, make):
        keras.utils.set_random_seed(i)
        model = sequential(make(4, name="memory"))
        monitor = GradientMonitor((X, Y), interval=1)
        model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[monitor])
        last = measured(model)
        found[i] = (last.gradient_norm, expected_norms(model, X, Y)[1], len(monitor.measurements))

    makes = [keras_seq.LSTM, keras.layers.LSTM, keras_seq.GRU]
    threads = [threading.Thread(target=work, args=one) for one in enumerate(makes)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3
    for norm, expected, count in found.values():
        assert norm == pytest.approx(expected, rel=1e-4)
        assert count == 6


def test_a_model_without_a_memory_has_norms_of_layers():
    model = keras.Sequential([keras.Input((D,)), keras.layers.Dense(1, name="out")])
    model.compile("sgd", "mse")
    found = measured(model, (X[:, 0], Y))
    assert found.states == {}
    assert found.layers == pytest.approx({"out": found.gradient_norm})


def uncompiled():
    return keras.Sequential([keras.Input((T, D)), memory()])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GradientMonitor(X), TypeError, r"data: expected \(x, y\)"),
        (lambda: GradientMonitor(None), TypeError, r"data: expected \(x, y\)"),
        (lambda: GradientMonitor((X, Y), layers="memory"), TypeError, "layers: expected a list"),
        (lambda: GradientMonitor((X, Y), layers=[3]), TypeError, r"layers\[0\]: expected a recurrent layer or a name"),
        (lambda: GradientMonitor((X, Y), interval=0), ValueError, "interval: expected a positive integer"),
        (lambda: GradientMonitor((X, Y), lags=[]), TypeError, "lags: expected a list"),
        (lambda: GradientMonitor((X, Y), lags=[1, -1]), ValueError, r"lags\[1\]: expected an integer of at least 0"),
        (lambda: GradientMonitor((X, Y), lags=[0.5]), TypeError, r"lags\[0\]: expected an integer"),
        (lambda: GradientMonitor((X, Y), log_dir=3), TypeError, "log_dir: expected a path"),
        (lambda: GradientMonitor((X, Y)).measure(), ValueError, "model: expected one"),
        (lambda: measured(uncompiled()), ValueError, "expected a compiled model"),
        (lambda: measured(sequential(memory()), layers=["out"]), ValueError, r"layers\[0\]: .*\['memory'\].*got 'out'"),
        (lambda: measured(sequential(memory()), layers=["memory", keras_seq.GRU(2)]), ValueError, r"layers\[1\]: "),
        (
            lambda: measured(sequential(memory()), tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).take(0)),
            ValueError,
            "data: expected at least one batch",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

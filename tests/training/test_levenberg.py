"""Levenberg-Marquardt: its Jacobians, its minima beside SciPy's, what it logs, and what it refuses."""

import contextlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_seq
from keras_seq._keras import carried_mask
from keras_seq.testing.differences import assert_close
from keras_seq.training import LevenbergMarquardt, free_run_pieces, levenberg, residuals

T, WARM_UP = 9, 3


def deep(*case):
    return pytest.param(*case, marks=pytest.mark.deep, id=case[0])


def sequential(*given, features=2):
    return keras.Sequential([keras.Input((None, features)), *given])


def narx(loop, **given):
    """A model over a NARX layer: "open", "closed" after a warm-up, or "free" from zeros."""
    x, known, true = keras.Input((None, 2)), keras.Input((WARM_UP, 1)), keras.Input((None, 1))
    layer = keras_seq.NARX(**{"units": 3, "input_delays": 2, "output_delays": 3, "return_sequences": True, **given})
    if loop == "open":
        return keras.Model([x, true], layer(x, targets=true)[:, WARM_UP:])
    closed = layer.close_loop() if layer.built else _built(layer).close_loop()
    if loop == "free":
        return keras.Model(x, closed(x))
    return keras.Model([x, known], closed(x, targets=known)[:, WARM_UP:])


def _built(layer):
    layer.build((None, None, 2))
    return layer


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


def masked(*given):
    return sequential(layers.Masking(), *given)


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


def data(model, rows=3, steps=T, seed=0):
    """Inputs as the model takes them, some steps of zeros, which `Masking` hides; and targets."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, steps, 2))
    x[-1, :3], x[0, 4:6], x[rows // 2, -2:] = 0, 0, 0
    y = rng.normal(size=(rows, steps, 1))
    given = [x if i.shape[-1] == 2 else y[:, : i.shape[1]] for i in model.inputs]
    given = given if len(given) > 1 else given[0]
    return given, rng.normal(size=np.shape(model(given)))


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


def curve(rows=40):
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, rows)[:, None]
    return x, np.sin(3 * x) + 0.1 * rng.normal(size=x.shape)


def small(units=3, **given):
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((1,)), layers.Dense(units, "tanh", **given), layers.Dense(1, **given)])


def test_the_minimum_is_that_of_scipy():
    from scipy.optimize import least_squares

    x = np.linspace(-2, 2, 40)[:, None]
    y = np.tanh(2 * x + 1) + 0.5 * np.tanh(3 * x - 2) + 0.05 * np.random.default_rng(0).normal(size=x.shape)
    model = small(2)
    start = np.concatenate([w.ravel() for w in model.get_weights()]).astype("float64")

    def residual(w):
        return (np.tanh(x @ w[None, :2] + w[2:4]) @ w[4:6, None] + w[6] - y).ravel()

    expected = least_squares(residual, start, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    trainer = LevenbergMarquardt(model)
    history = trainer.fit(x, y, epochs=500, gradient_tolerance=1e-12, step_tolerance=1e-12, verbose=0).history
    assert history["loss"][-1] == pytest.approx(2 * expected.cost / len(x), rel=1e-9)
    assert trainer.stop_reason in ("gradient", "step")
    assert np.all(np.diff(history["loss"]) <= 0)
    found = np.concatenate([w.ravel() for w in model.get_weights()]).astype("float64")
    assert_close([residual(found)], [residual(expected.x)], 1e-5)


@pytest.mark.deep
def test_in_closed_loop_the_minimum_is_that_of_scipy():
    from scipy.optimize import least_squares

    model = narx("closed", units=None)
    (x, _), _ = data(model, rows=1, steps=60)
    y = np.zeros((1, 60, 1))
    for t in range(2, 60):
        y[0, t] = np.tanh(0.9 * y[0, t - 1] - 0.4 * y[0, t - 2] + x[0, t, 0] - 0.5 * x[0, t - 1, 1])
    y += 0.05 * np.random.default_rng(3).normal(size=y.shape)
    known, y = y[:, :WARM_UP], y[:, WARM_UP:]
    trainer = LevenbergMarquardt(model)
    fit = trainer._residuals
    prepared = residuals.prepared(fit, "", [x, known], y, None, 2**31)
    program, batch = fit.programs(prepared, True).jacobian, prepared.batches[0]

    def residual(w):
        return program(tf.constant(w), batch)[1].numpy()

    def jacobian(w):
        return program(tf.constant(w), batch)[0].numpy().T

    start = fit.current()
    history = trainer.fit([x, known], y, epochs=300, gradient_tolerance=1e-12, verbose=0).history
    expected = least_squares(residual, start, jacobian, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert history["loss"][-1] == pytest.approx(2 * expected.cost / y.size, rel=1e-9)
    assert_close([fit.current()], [expected.x], 1e-4)  # of float32
    step = 1e-6 * np.eye(len(start))[0]
    assert_close([jacobian(start)[:, 0]], [(residual(start + step) - residual(start - step)) / 2e-6], 1e-6)


WEIGHTS = [pytest.param(None, marks=pytest.mark.deep), pytest.param("rows", marks=pytest.mark.deep), "steps"]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_loss_is_that_of_keras_with_weights_and_masks(weights):
    model = masked(keras_seq.SimpleRNN(2, return_sequences=True), layers.Dense(1))
    x, y = data(model)
    rng = np.random.default_rng(2)
    weight = {None: None, "rows": rng.uniform(0.5, 2, 3), "steps": rng.uniform(0, 1, (3, T)).round(1)}[weights]
    trainer = LevenbergMarquardt(model, jit_compile=False)
    validation = (x, y) if weight is None else (x, y, weight)
    history = trainer.fit(x, y, weight, epochs=3, validation_data=validation, verbose=0).history
    model.compile("sgd", "mse")
    expected = model.evaluate(
        x, y, sample_weight=None if weight is None else weight.reshape(3, -1), batch_size=3, verbose=0
    )
    assert min(history["loss"]) == pytest.approx(expected, rel=1e-5)
    assert_close([history["loss"]], [history["val_loss"]], 1e-12)


def test_by_xla_where_that_pays_and_the_sum_apart_where_the_jacobian_is_large(monkeypatch):
    fits = {"auto": [], "sums apart": [], True: []}
    for way, losses in fits.items():
        model = small()
        monkeypatch.setattr(levenberg, "FEW_ENTRIES", 0 if way == "sums apart" else 2**17)
        trainer = LevenbergMarquardt(model, jit_compile=way if way is True else "auto")
        x, y = curve(16)
        monkeypatch.setattr(levenberg, "WORTH_COMPILING", 9 * 16 * 10 / residuals.ENTRIES_OF_A_STEP)  # nine passes
        for epochs in (3, 9, 10):
            losses.append(trainer.fit(x, y, epochs=epochs, verbose=0).history["loss"])
        assert [key[0] for key in trainer._residuals._programs] == ([True] if way is True else [False, True])
    for losses in fits.values():
        for found, expected in zip(losses, fits[True], strict=True):
            assert_close([found], [expected], 1e-7)


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


def test_what_has_no_weight_is_not_read():
    x, y = curve(12)
    weight = np.ones(12)
    weight[3:5] = 0
    one, other = small(), small()
    LevenbergMarquardt(one, jit_compile=False).fit(
        x, np.where(weight[:, None] > 0, y, np.nan), weight, epochs=3, verbose=0
    )
    LevenbergMarquardt(other, jit_compile=False).fit(x[weight > 0], y[weight > 0], epochs=3, verbose=0)
    assert_close(one.get_weights(), other.get_weights(), 1e-5)


def test_in_batches_as_at_once(monkeypatch):
    x, y = curve(11)
    fits = []
    for size in (2**26, 8 * 10 * 3 * 3):  # three rows of three units, ten weights
        monkeypatch.setattr(residuals, "CHUNK_BYTES", size)
        model = small()
        trainer = LevenbergMarquardt(model, jit_compile=False)
        assert len(trainer._data("", x, y).batches) == (1 if size > 1000 else 4)
        history = trainer.fit(x, y, epochs=4, validation_data=(x, y), verbose=0).history
        fits.append([history["loss"], history["gradient"], history["val_loss"], np.ravel(trainer.jacobian(x))])
    assert_close(fits[1], fits[0], 1e-7)


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(d, marks=pytest.mark.deep) for d in ("mixed_float16", "bfloat16"))]
)
def test_in_float64_whatever_the_type_of_the_model(dtype):
    x, y = curve(20)
    model, exact = small(dtype=dtype), small(dtype="float64")
    exact.set_weights([np.asarray(w, "float64") for w in model.get_weights()])
    fits = [LevenbergMarquardt(m, jit_compile=False).fit(x, y, epochs=4, verbose=0).history for m in (model, exact)]
    assert_close([fits[0]["loss"]], [fits[1]["loss"]], 1e-12)
    for found, expected, variable in zip(model.get_weights(), exact.get_weights(), model.variables, strict=True):
        assert found.dtype == variable.dtype
        assert_close([np.asarray(found, "float64")], [expected], 2e-2 if dtype == "bfloat16" else 1e-6)


def test_validation_ends_a_fit_with_the_best_weights():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (12, 1))
    y, held = np.sin(3 * x) + 0.3 * rng.normal(size=x.shape), np.linspace(-1, 1, 30)[:, None]
    model = small(8)
    trainer = LevenbergMarquardt(model, jit_compile=False)
    history = trainer.fit(x, y, epochs=60, validation_data=(held, np.sin(3 * held)), patience=4, verbose=0).history
    assert trainer.stop_reason == "validation"
    assert len(history["loss"]) == int(np.argmin(history["val_loss"])) + 5 < 60
    found = np.mean((model.predict(held, verbose=0) - np.sin(3 * held)) ** 2)
    assert found == pytest.approx(min(history["val_loss"]), rel=1e-4)


def test_a_fit_that_only_gets_worse_on_held_out_data_changes_nothing():
    x, _ = curve(12)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, kernel_initializer="ones")])
    trainer = LevenbergMarquardt(model, jit_compile=False)
    history = trainer.fit(x, 2 * x, validation_data=(x, x), patience=2, verbose=0).history
    assert min(history["val_loss"]) > 0.01
    assert trainer.stop_reason == "validation"
    assert len(history["loss"]) == 2
    assert_close(model.get_weights(), [np.ones((1, 1)), np.zeros(1)], 0)


class Watcher(keras.callbacks.Callback):
    def __init__(self, stop=None):
        super().__init__()
        self.stop, self.seen = stop, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, dict(logs), self.model.get_weights()))
        self.model.stop_training = epoch == self.stop


def test_callbacks_see_each_step_and_may_end_the_fit(capsys):
    x, y = curve(10)
    model, watcher = small(), Watcher(stop=2)
    trainer = LevenbergMarquardt(model, jit_compile=False)
    history = trainer.fit(x, y, epochs=9, verbose=2, callbacks=[watcher])
    assert isinstance(history, keras.callbacks.History)
    assert trainer.stop_reason == "callback"
    assert [epoch for epoch, *_ in watcher.seen] == [0, 1, 2]
    assert [logs["loss"] for _, logs, _ in watcher.seen] == history.history["loss"]
    assert set(history.history) == {"loss", "damping", "gradient", "start"}
    assert_close(model.get_weights(), watcher.seen[-1][2], 1e-7)
    assert "Epoch 3/9" in capsys.readouterr().out
    again = trainer.fit(x, y, epochs=1, verbose=0)
    assert again.history["loss"][0] < history.history["loss"][-1]  # it goes on


def exploding():
    """A free run that grows by a half at each step, and one that is right at once if its weights are drawn anew."""
    layer = keras_seq.AR(None, 1, output_delays=1, return_sequences=True, closed=True)
    x = keras.Input((None, 1))
    model = keras.Model(x, layer(x))
    layer.cell.recurrent_kernel.assign([[1.5]])
    layer.cell.bias.assign([1.0])
    return model, np.zeros((2, 60, 1)), np.full((2, 60, 1), 0.5)


def test_a_run_that_diverges_says_where_and_changes_nothing():
    model, x, y = exploding()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"stays finite, got one that diverges at step 32 of row 0: beyond 1e\+06"):
        LevenbergMarquardt(model, jit_compile=False).fit(x, y, verbose=0)  # 2 (1.5^33 - 1) is the first above
    assert_close(model.get_weights(), before, 0)


def test_a_run_that_overflows_is_not_taken_for_a_random_one():
    model, *_ = exploding()
    x, y = np.zeros((1, 4, 1)), np.zeros((1, 4, 1))
    model.layers[-1].cell.bias.assign([-np.inf])  # inf - inf
    model.layers[-1].cell.recurrent_kernel.assign([[-1.5]])
    with pytest.raises(ValueError, match="diverges at step 0 of row 0"):
        LevenbergMarquardt(model, jit_compile=False).fit(x, y, verbose=0)


def test_a_start_that_explodes_does_not_win():
    model, x, y = exploding()
    trainer = LevenbergMarquardt(model, jit_compile=False)
    history = trainer.fit(x, y, epochs=30, restarts=2, verbose=0).history
    assert set(history["start"]) == {1, 2}
    assert np.mean((model(x) - y) ** 2) == pytest.approx(min(history["loss"]), rel=1e-3)
    assert min(history["loss"]) < 0.01


def test_the_best_of_all_starts_wins():
    x, y = curve()
    model = small(2)
    history = LevenbergMarquardt(model, jit_compile=False).fit(x, y, epochs=15, restarts=3, verbose=0).history
    ends = [[v for v, s in zip(history["loss"], history["start"], strict=True) if s == n][-1] for n in range(4)]
    assert len({round(v, 6) for v in ends}) > 1
    assert np.mean((model.predict(x, verbose=0) - y) ** 2) == pytest.approx(min(ends), rel=1e-4)


@pytest.mark.deep
def test_a_held_out_run_that_diverges_is_not_the_best():
    model, x, _ = exploding()
    model.layers[-1].cell.recurrent_kernel.assign([[0.9]])
    grown = np.minimum(0.02 * 1.3 ** np.arange(12), 1e9)[None, :, None]
    with pytest.warns(UserWarning, match=r"validation_data: a run diverges at step \d+ of row 0"):
        history = LevenbergMarquardt(model, jit_compile=False).fit(
            x[:1, :12], grown, epochs=40, validation_data=(np.zeros((1, 90, 1)), np.full((1, 90, 1), 0.02)), verbose=0
        )
    losses = history.history["val_loss"]
    assert np.inf in losses
    assert not any(1e20 < v < np.inf for v in losses)
    assert np.all(np.isfinite(model(np.zeros((1, 90, 1)))))


def test_bayesian_estimates_are_those_of_the_evidence():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5)) * [3, 1, 0.3, 0.1, 0.02]
    y = x @ rng.normal(size=(5, 1)) + 0.3 * rng.normal(size=(30, 1))
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1, use_bias=False)])
    trainer = LevenbergMarquardt(model, bayesian=True, jit_compile=False)
    logs = {name: values[-1] for name, values in trainer.fit(x, y, epochs=100, verbose=0).history.items()}
    ratio = logs["alpha"] / logs["beta"]
    eigenvalues = np.linalg.eigvalsh(x.T @ x)
    weights = np.linalg.solve(x.T @ x + ratio * np.eye(5), x.T @ y)
    effective = np.sum(eigenvalues / (eigenvalues + ratio))
    assert logs["effective_parameters"] == pytest.approx(effective, rel=1e-5)
    assert 2 < effective < 5
    assert logs["alpha"] == pytest.approx(effective / (2 * np.sum(weights**2)), rel=1e-5)
    assert logs["beta"] == pytest.approx((30 - effective) / (2 * np.sum((x @ weights - y) ** 2)), rel=1e-5)
    assert_close(model.get_weights(), [weights], 1e-4)
    # of a linear model the outputs have a normal distribution, by alpha and beta
    spread = np.eye(30) / (2 * logs["beta"]) + x @ x.T / (2 * logs["alpha"])
    expected = -(30 * np.log(2 * np.pi) + np.linalg.slogdet(spread)[1] + (y.T @ np.linalg.solve(spread, y)).item()) / 2
    assert logs["log_evidence"] == pytest.approx(expected, rel=1e-6)


def test_bayesian_with_more_weights_than_residuals():
    x, y = curve(6)
    model = small(8)
    logs = LevenbergMarquardt(model, bayesian=True, jit_compile=False).fit(x, y, epochs=30, verbose=0).history
    assert all(np.all(np.isfinite(values)) for values in logs.values())
    assert all(0 < effective < 6 for effective in logs["effective_parameters"])


def test_pieces_of_a_free_run():
    u, y = np.arange(20.0).reshape(10, 2), np.arange(100.0, 110)[:, None]
    (x, known), later = free_run_pieces(u, y, warm_up=2, steps=3)
    assert x.shape == (2, 5, 2)
    np.testing.assert_array_equal(known[..., 0], [[100, 101], [103, 104]])
    np.testing.assert_array_equal(later[..., 0], [[102, 103, 104], [105, 106, 107]])
    np.testing.assert_array_equal(x[1], u[3:8])
    (x, known), later = free_run_pieces(np.stack([u, -u]), np.stack([y, -y]), 2, 3, stride=5)
    np.testing.assert_array_equal(x[:, 0, 0], [0, 0, 10, -10])
    np.testing.assert_array_equal(later[:, 0, 0], [102, -102, 107, -107])


def test_pieces_of_sequences_of_several_lengths_and_of_one_axis():
    u, y = np.arange(20.0).reshape(10, 2), np.arange(100.0, 110)
    (x, known), later = free_run_pieces([u, u[2:8]], [y, y[2:8]], warm_up=2, steps=3)
    assert x.shape == (3, 5, 2)
    np.testing.assert_array_equal(known[..., 0], [[100, 101], [103, 104], [102, 103]])
    np.testing.assert_array_equal(x[2], u[2:7])
    np.testing.assert_array_equal(later[2, :, 0], [104, 105, 106])
    for one, other in zip(
        free_run_pieces(y, y, 2, 3)[0], free_run_pieces(y[:, None], y[:, None], 2, 3)[0], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_targets_may_be_zeros_or_small():
    x, _ = curve(9)
    for y in (0 * x, 1e-9 * np.sin(3 * x)):
        losses = LevenbergMarquardt(small(), jit_compile=False).fit(x, y, epochs=20, verbose=0).history["loss"]
        assert losses[-1] < 1e-8


def table():
    return keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(5, 2), layers.Flatten(), layers.Dense(1, "tanh")]
    )


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


@pytest.mark.deep
def test_compiled_by_xla_and_in_threads():
    models = [narx("closed") for _ in range(3)]
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
    x, y = data(models[0])
    fits = [LevenbergMarquardt(m, jit_compile=i > 0) for i, m in enumerate(models)]
    threads = [threading.Thread(target=f.fit, args=(x, y), kwargs={"epochs": 3, "verbose": 0}) for f in fits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models[1:]:
        assert_close(model.get_weights(), models[0].get_weights(), 1e-5)


class Drawn(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), dtype=x.dtype)


def fit(model, x=None, y=None, *given, **further):
    wanted = [(8, *(3 if n is None else n for n in i.shape[1:])) for i in model.inputs]
    x = [np.random.default_rng(0).normal(size=shape) for shape in wanted] if x is None else x
    y = np.zeros((8, *(3 if n is None else n for n in model.output_shape[1:]))) if y is None else y
    return LevenbergMarquardt(model, jit_compile=False).fit(x, y, *given, **{"verbose": 0, **further})


def between(layer):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layer, layers.Dense(1)])


def two_outputs():
    x = keras.Input((1,))
    return keras.Model(x, [layers.Dense(1)(x), layers.Dense(1)(x)])


def compiled(loss):
    model = small()
    model.compile("sgd", loss)
    return model


CERTAIN = r"say the same in training and at inference, .*, got "
REFUSED = {
    "a layer": (lambda: LevenbergMarquardt(layers.Dense(1)), TypeError, "model: expected a keras.Model"),
    "not built": (
        lambda: LevenbergMarquardt(keras.Sequential([layers.Dense(1)])),
        TypeError,
        "expected a built Sequential",
    ),
    "outputs": (lambda: LevenbergMarquardt(two_outputs()), ValueError, "model: expected one output, got 2"),
    "no weights": (lambda: LevenbergMarquardt(sequential(layers.ReLU())), ValueError, "expected trainable weights"),
    "loss": (
        lambda: LevenbergMarquardt(compiled("mae")),
        ValueError,
        "compiled with loss='mse', or is not compiled, got 'mae'",
    ),
    "regularizer": (
        lambda: LevenbergMarquardt(small(kernel_regularizer="l2")),
        ValueError,
        "expected weights without a regularizer, got .*/kernel",
    ),
    "constraint": (
        lambda: LevenbergMarquardt(small(bias_constraint="non_neg")),
        ValueError,
        "without a constraint, got",
    ),
    "activity": (
        lambda: LevenbergMarquardt(small(activity_regularizer="l2")),
        ValueError,
        "without an activity regularizer",
    ),
    "stateful": (
        lambda: LevenbergMarquardt(
            keras.Sequential([keras.Input(batch_shape=(2, 3, 1)), keras_seq.GRU(2, stateful=True)])
        ),
        ValueError,
        "expected layers with stateful=False, got gru",
    ),
    "blocked": (
        lambda: LevenbergMarquardt(sequential(keras_seq.Elman(2))),
        ValueError,
        "gradients through all steps, got elman",
    ),
    "dropout": (lambda: fit(between(layers.Dropout(0.5, name="drops"))), ValueError, CERTAIN + "drops"),
    "noise": (lambda: fit(between(layers.GaussianNoise(0.5, name="noisy"))), ValueError, CERTAIN + "noisy"),
    "statistics": (lambda: fit(between(layers.BatchNormalization(name="batch"))), ValueError, CERTAIN + "batch"),
    "random": (lambda: fit(between(Drawn(name="drawn"))), ValueError, CERTAIN + "drawn"),
    "zoneout": (lambda: fit(sequential(keras_seq.GRU(2, zoneout=0.5, name="memory"))), ValueError, CERTAIN + "memory"),
    "damping": (lambda: LevenbergMarquardt(small(), damping=0), ValueError, "damping: expected a positive number"),
    "bayesian": (lambda: LevenbergMarquardt(small(), bayesian=1), TypeError, "bayesian: expected True or False"),
    "compile": (
        lambda: LevenbergMarquardt(small(), jit_compile="xla"),
        ValueError,
        "jit_compile: expected \"auto\", True or False, got 'xla'",
    ),
    "compile type": (
        lambda: LevenbergMarquardt(small(), jit_compile=1),
        TypeError,
        "jit_compile: expected True or False",
    ),
    "bytes": (
        lambda: LevenbergMarquardt(small(100), max_bytes=10**6).fit(*curve(), verbose=0),
        ValueError,
        "takes at most 1000000 bytes, got 51784040: 301 weights, 100 numbers of a row that change with each",
    ),
    "epochs": (lambda: fit(small(), epochs=0), ValueError, "epochs: expected a positive integer"),
    "restarts": (lambda: fit(small(), restarts=-1), ValueError, "restarts: expected an integer of at least 0, got -1"),
    "restarts type": (lambda: fit(small(), restarts=True), TypeError, "restarts: expected an integer of at least 0"),
    "patience": (lambda: fit(small(), patience=0), ValueError, "patience: expected a positive integer"),
    "validation": (lambda: fit(small(), validation_data=0.2), TypeError, "validation_data: expected .*, got 0.2"),
    "validation y": (
        lambda: fit(small(), validation_data=(np.ones((3, 1)), np.ones((4, 1)))),
        ValueError,
        r"validation_data: y: expected shape \(3, 1\) like the output, got \(4, 1\)",
    ),
    "arrays": (lambda: fit(narx("closed"), [np.ones((8, 5, 2))]), ValueError, "x: expected 2 arrays, got 1"),
    "features": (lambda: fit(small(), np.ones((8, 2))), ValueError, r"x: expected shape \(None, 1\), got \(8, 2\)"),
    "NaN": (lambda: fit(small(), np.full((8, 1), np.nan)), ValueError, "x: expected finite numbers"),
    "NaN targets": (lambda: fit(small(), None, np.full((8, 1), np.inf)), ValueError, "y: expected finite numbers"),
    "no rows": (lambda: fit(small(), np.ones((0, 1))), ValueError, r"x: expected at least one row, got shape \(0, 1\)"),
    "no steps": (
        lambda: fit(narx("closed"), [np.ones((8, 3, 2)), np.ones((8, 3, 1))], np.ones((8, 0, 1))),
        ValueError,
        r"y: expected at least one step, got \(8, 0, 1\)",
    ),
    "which input": (
        lambda: fit(narx("closed"), [np.ones((8, 5, 2)), np.ones((8, 2, 1))]),
        ValueError,
        r"x\[1\]: expected shape \(None, 3, 1\), got \(8, 2, 1\)",
    ),
    "no targets": (
        lambda: LevenbergMarquardt(small()).fit(np.ones((8, 1)), None),
        TypeError,
        "y: expected numbers, got None",
    ),
    "huge targets": (
        lambda: fit(small(), None, np.full((8, 1), 1e200)),
        ValueError,
        r"y: expected numbers of at most 1e\+150, got 1e\+200",
    ),
    "complex": (lambda: fit(small(), np.ones((8, 1)) + 1j), TypeError, "x: expected numbers, got array"),
    "lengths": (
        lambda: fit(small(), [np.ones((4, 1)), np.ones((3, 1))]),
        TypeError,
        r"x: expected arrays of one shape, got \[\(4, 1\), \(3, 1\)\]",
    ),
    "no integers": (lambda: fit(table(), np.full((8, 3), 1.5)), ValueError, "x: expected integers, got others: array"),
    "words": (lambda: fit(small(), [["a"]] * 8), TypeError, "x: expected numbers, got"),
    "weights": (
        lambda: fit(small(), None, None, np.ones(7)),
        ValueError,
        r"sample_weight: expected the first axes of \(8, 1\)",
    ),
    "negative": (
        lambda: fit(small(), None, None, -np.ones(8)),
        ValueError,
        "sample_weight: expected numbers of at least 0",
    ),
    "no weight": (lambda: fit(small(), None, None, np.zeros(8)), ValueError, "sample_weight: expected some above 0"),
    "pieces": (
        lambda: free_run_pieces(np.ones((5, 1)), np.ones((5, 1)), 3, 3),
        ValueError,
        "got 6 with the warm-up, of 5 steps",
    ),
    "pieces shape": (
        lambda: free_run_pieces(np.ones((1, 1, 5, 1)), np.ones((5, 1)), 1, 1),
        ValueError,
        r"inputs: expected shape \(t,\), \(t, k\) or \(b, t, k\)",
    ),
    "pieces length": (
        lambda: free_run_pieces(np.ones((5, 1)), np.ones((4, 1)), 1, 1),
        ValueError,
        "outputs: expected 1 x 5 steps",
    ),
    "pieces list": (
        lambda: free_run_pieces([np.ones((5, 1)), np.ones((4, 1))], np.ones((5, 1)), 1, 1),
        ValueError,
        "outputs: expected a list of as many arrays as the inputs, 2 arrays, got one",
    ),
    "pieces in a list": (
        lambda: free_run_pieces([np.ones((5, 1))], [np.ones((4, 1))], 1, 1),
        ValueError,
        r"outputs\[0\]: expected 1 x 5 steps",
    ),
    "pieces warm-up": (
        lambda: free_run_pieces(np.ones((5, 1)), np.ones((5, 1)), 0, 1),
        ValueError,
        "warm_up: expected",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()

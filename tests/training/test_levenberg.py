"""Levenberg-Marquardt: what a fit minimises, logs and leaves, where it stops, and which start wins."""

import threading

import keras
import numpy as np
import pytest
from keras import layers
from levenberg_models import T, curve, data, exploding, masked, narx, small

import keras_seq
from keras_seq.testing.differences import assert_close
from keras_seq.training import LevenbergMarquardt, levenberg, residuals

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


def test_targets_may_be_zeros_or_small():
    x, _ = curve(9)
    for y in (0 * x, 1e-9 * np.sin(3 * x)):
        losses = LevenbergMarquardt(small(), jit_compile=False).fit(x, y, epochs=20, verbose=0).history["loss"]
        assert losses[-1] < 1e-8


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

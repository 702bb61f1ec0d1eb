"""The loop of training on several machines, in one process: it is that of `fit`, and goes on where it was broken off."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.training import fit_distributed, worker_strategy
from keras_seq.training.workers import agree

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5, 3)).astype("float32"), RNG.normal(size=(12, 5, 2)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def made(**compiling):
    keras.utils.set_random_seed(1)
    parts = [keras_seq.LSTM(4, return_sequences=True), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((None, 3)), *parts])
    model.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "jit_compile": False, **compiling})
    return model


def test_alone_it_is_the_fit_of_keras():
    model, other = made(metrics=["mae"]), made(metrics=["mae"])
    expected = model.fit(DATA, epochs=2, shuffle=False, validation_data=DATA, verbose=0).history
    found = fit_distributed(other, DATA, 2, validation_data=DATA, verbose=0).history
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-7)


class Breaks(keras.callbacks.Callback):
    def __init__(self, at=5):
        super().__init__()
        self.at, self.seen = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def test_a_broken_run_goes_on_at_the_batch_where_its_backup_was_made(tmp_path):
    def shuffled(epoch):
        return DATA.unbatch().shuffle(12, seed=epoch).batch(4)

    def small(units=2):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dropout(0.2), keras.layers.Dense(units)])
        model.compile("adam", "mse", run_eagerly=True, jit_compile=False)
        return model

    def fit(model, **more):
        return fit_distributed(model, shuffled, 3, verbose=0, **more)

    def passed(model):
        seen = []
        note = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(batch))
        fit(model, callbacks=[note], backup=folder, backup_every=2)
        return seen

    whole, folder = small(), tmp_path / "backup"
    fit(whole)
    with pytest.raises(KeyboardInterrupt):  # in the second batch of the second epoch
        fit(small(), callbacks=[Breaks()], backup=folder, backup_every=2)
    assert folder.exists()
    with pytest.raises(ValueError, match="backup: expected one of this model, got another in"):
        fit(small(units=1), backup=folder)
    rest = small()
    assert passed(rest) == [0, 1, 2, 0, 1, 2]
    assert not folder.exists()
    for a, b in zip(whole.weights, rest.weights, strict=True):
        np.testing.assert_array_equal(b, a)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), callbacks=[Breaks(6)], backup=folder, backup_every=2)
    assert passed(small()) == [2, 0, 1, 2]  # every second batch, one of which was the second


def test_a_callback_can_stop_it():
    model = made()
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1))
    assert len(fit_distributed(model, DATA, 5, callbacks=[stop], verbose=0).history["loss"]) == 2
    seen = []
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: setattr(model, "stop_training", batch == 1),
        on_train_batch_end=lambda batch, logs: seen.append(batch),
        on_epoch_end=lambda epoch, logs: seen.append(sorted(logs)),
    )
    fit_distributed(model, DATA, 5, callbacks=[stop], verbose=0, validation_data=DATA)
    assert seen == [0, 1, ["loss", "val_loss"]]


class Hears(keras.callbacks.Callback):
    """Notes which of its methods are called, and with which metrics."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda *given, **more: self.heard.append((name, given[0] if name.count("batch") else None))
        return super().__getattribute__(name)


def test_callbacks_hear_of_validation_what_they_hear_in_keras():
    ours, theirs = Hears(), Hears()
    fit_distributed(made(run_eagerly=True), DATA, 1, validation_data=DATA, callbacks=[ours], verbose=0)
    made(run_eagerly=True).fit(DATA, validation_data=DATA, callbacks=[theirs], verbose=0)
    assert ours.heard == theirs.heard


KERAS = keras.callbacks.BackupAndRestore("nowhere")


def test_what_is_wrong_is_refused():
    plain = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])
    for error, message, call in (
        (ValueError, "model: expected a compiled keras.Model", lambda: fit_distributed(plain, DATA)),
        (TypeError, "model: expected a compiled keras.Model", lambda: fit_distributed(keras.layers.Dense(2), DATA)),
        (TypeError, "callbacks: expected a list", lambda: fit_distributed(made(), DATA, callbacks=Breaks())),
        (TypeError, "backup: expected a folder or None", lambda: fit_distributed(made(), DATA, backup=3)),
        (
            ValueError,
            "backup: expected a folder to write to, got /dev/null",
            lambda: fit_distributed(made(), DATA, backup="/dev/null"),
        ),
        (ValueError, "verbose: expected 'auto', 0, 1 or 2", lambda: fit_distributed(made(), DATA, verbose="loud")),
        (ValueError, "data: expected batches, got an empty", lambda: fit_distributed(made(), DATA.take(0))),
        (TypeError, "data: expected a tf.data.Dataset of batches", lambda: fit_distributed(made(), X)),
        (ValueError, "data: expected an end, got an endless", lambda: fit_distributed(made(), DATA.repeat())),
        (TypeError, "validation_data: expected a tf", lambda: fit_distributed(made(), DATA, validation_data=(X, Y))),
        (ValueError, "epochs: expected a positive integer", lambda: fit_distributed(made(), DATA, 0)),
        (
            ValueError,
            "steps_per_execution: expected 1, got 2",
            lambda: fit_distributed(made(steps_per_execution=2), DATA),
        ),
        (
            ValueError,
            "callbacks: expected backup= in the place",
            lambda: fit_distributed(made(), DATA, callbacks=[KERAS]),
        ),
        (TypeError, "timeout: expected positive seconds", lambda: worker_strategy("soon")),
        (ValueError, "timeout: expected positive seconds", lambda: worker_strategy(0)),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call()


def test_who_is_of_another_opinion_is_named():
    agree("data", "the same", np.array([[1, 2], [1, 2]]))
    with pytest.raises(ValueError, match=r"data: expected the same, got others in replicas \[1, 3\] than in replica 0"):
        agree("data", "the same", np.array([[1, 2], [1, 3], [1, 2], [0, 2]]))

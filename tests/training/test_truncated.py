"""Training in chunks: as on the whole, with rows that begin and end on their own, and runs that go on where they broke."""

import os
import pathlib
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_seq
from keras_seq.models import LanguageModel, Vocabulary
from keras_seq.training import TruncatedBPTT, stream_chunks

pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field", "ignore:.*does not support masking")
D, U = 3, 2


def numbers(rows, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, steps, D)).astype("float32"), rng.normal(size=(rows, steps, U)).astype("float32")


def plain():
    return keras.Sequential(
        [
            keras.Input((None, D)),
            keras_seq.LSTM(5, return_sequences=True, dropout=0.2, recurrent_dropout=0.1),
            layers.Dropout(0.3),
            keras_seq.GRU(4, return_sequences=True),
            layers.Dense(U),
        ]
    )


def of_keras():
    cells = [layers.LSTM(5, return_sequences=True, dropout=0.2), layers.GRU(4, return_sequences=True)]
    return keras.Sequential(
        [keras.Input((None, D)), *cells, layers.SimpleRNN(4, return_sequences=True), layers.Dense(U)]
    )


def stateful():
    inputs = keras.Input(batch_shape=(2, None, D))
    return keras.Sequential([inputs, keras_seq.LSTM(5, return_sequences=True, stateful=True), layers.Dense(U)])


def stacked():
    memory = keras_seq.Stacked(keras_seq.LSTM, [5, 5], skips="residual", dropout=0.2, return_sequences=True)
    return keras.Sequential([keras.Input((None, D)), memory, layers.Dense(U)])


def convolved():
    parts = [keras_seq.TDNN(4, delays=3), keras_seq.TCN(4, dilations=[1, 2], return_sequences=True)]
    return keras.Sequential(
        [keras.Input((None, D)), *parts, keras_seq.Elman(4, return_sequences=True), layers.Dense(U)]
    )


def masked():
    return keras.Sequential(
        [keras.Input((None, D)), layers.Masking(), keras_seq.GRU(4, return_sequences=True), layers.Dense(U)]
    )


def branches():
    """A skip, a layer used twice, a model within the model."""
    x = keras.Input((None, D))
    inner = keras.Sequential([keras.Input((None, 4)), keras_seq.LSTM(4, return_sequences=True), layers.Dense(4)])
    shared = keras_seq.SimpleRNN(4, return_sequences=True)
    h = shared(layers.Dense(4)(x))
    h = shared(ops.tanh(h) + inner(h))
    return keras.Model(x, layers.Dense(U)(layers.Concatenate()([h, x])))


MODELS = {f.__name__: f for f in (plain, of_keras, stateful, stacked, convolved, masked, branches)}


def made(name, seed=3):
    keras.utils.set_random_seed(seed)
    return MODELS[name]() if name in MODELS else name()


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.deep)])
@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("convolved", "masked")])
def test_one_chunk_of_all_steps_is_plain_training_bit_for_bit(name, jit):
    x, y = numbers(2, 7)
    losses, weights = [], []
    for wrapped in (False, True):
        model = made(name)
        trained = TruncatedBPTT(model, steps=7) if wrapped else model
        trained.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit)
        if name == "stateful" and not wrapped:  # each epoch from zeros, as the streams begin
            history = []
            for _ in range(3):
                history += trained.fit(x, y, batch_size=2, shuffle=False, verbose=0).history["loss"]
                model.layers[0].reset_state()
        else:
            history = trained.fit(x, y, batch_size=2, epochs=3, shuffle=False, verbose=0).history["loss"]
        losses.append(history)
        weights.append(model.get_weights())
    assert losses[0] == losses[1]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_chunks_are_the_whole(name):
    model, (x, y) = made(name), numbers(2, 8)
    trainer = TruncatedBPTT(model, steps=3)
    found = []
    for (values, starts, real), _ in stream_chunks(x, y, steps=3):  # the last chunk has two steps
        found.append(trainer((values, starts, real)))
    if name == "stateful":
        model.layers[0].reset_state()
    whole = model(x)
    np.testing.assert_allclose(np.concatenate(found, 1)[:, :8], whole, atol=1e-5)
    without = [trainer((values, starts)) for (values, starts), _ in stream_chunks(x[:, :6], y[:, :6], steps=3)]
    np.testing.assert_allclose(np.concatenate(without, 1), whole[:, :6], atol=1e-5)


def test_the_gradient_is_that_of_a_layer_that_cuts_it():
    x, y = numbers(2, 8)
    cut = made(lambda: keras.Sequential([keras.Input((None, D)), keras_seq.GRU(4, return_sequences=True, truncate=4)]))
    model = made(lambda: keras.Sequential([keras.Input((None, D)), keras_seq.GRU(4, return_sequences=True)]))
    trainer, target, total = TruncatedBPTT(model, steps=4), np.pad(y, ((0, 0), (0, 0), (0, 2))), None
    for (values, starts), wanted in stream_chunks(x, target, steps=4):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((trainer((values, starts), training=True) - wanted) ** 2)
        now = tape.gradient(loss, model.trainable_variables)
        total = now if total is None else [a + b for a, b in zip(total, now, strict=True)]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((cut(x, training=True) - target) ** 2)
    for a, b in zip(total, tape.gradient(loss, cut.trainable_variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16", "mixed_float16"])
def test_other_float_types(dtype):
    """Values, the types of the states, and two steps of training; a loss scale too."""
    x, y = numbers(2, 6)
    policy = {"dtype": dtype}
    parts = [
        keras_seq.LSTM(4, return_sequences=True, **policy),
        keras_seq.TDNN(3, delays=2, **policy),
        layers.Dense(U, **policy),
    ]
    model = keras.Sequential([keras.Input((None, D), dtype="float64" if dtype == "float64" else "float32"), *parts])
    trainer = TruncatedBPTT(model, steps=3)
    found = [trainer((values, starts)) for (values, starts), _ in stream_chunks(x, y, steps=3)]
    np.testing.assert_allclose(
        np.concatenate([ops.cast(f, "float64") for f in found], 1),
        ops.cast(model(x), "float64"),
        atol=1e-6 if dtype == "float64" else 0.02,
    )
    assert [keras.backend.standardize_dtype(s.dtype) for s in trainer.first_states(1)[:2]] == [
        parts[0].variable_dtype
    ] * 2
    trainer.compile("adam", "mse", jit_compile=False)
    assert np.isfinite(trainer.fit(x, y, epochs=2, verbose=0).history["loss"]).all()


def test_threads_have_the_states_of_their_rows():
    """Two threads, each with streams of another number of rows: as if alone."""
    model, trainer, found = made("plain"), None, {}
    trainer = TruncatedBPTT(model, steps=3)

    def run(rows):
        x, y = numbers(rows, 30, seed=rows)
        found[rows] = np.concatenate([trainer((v, s)) for (v, s), _ in stream_chunks(x, y, steps=3)], 1)

    threads = [threading.Thread(target=run, args=(rows,)) for rows in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows in (1, 2, 3, 4):
        np.testing.assert_allclose(found[rows], model(numbers(rows, 30, seed=rows)[0]), atol=1e-5)


LENGTHS = [7, 2, 5, 1]


def ragged():
    x, y = numbers(1, sum(LENGTHS))
    ends = np.cumsum(LENGTHS)[:-1]
    return np.split(x[0], ends), np.split(y[0], ends)


@pytest.mark.parametrize("name", ["plain", "of_keras", "convolved", "masked"])
def test_a_stream_begins_in_one_row_while_others_go_on(name):
    """Streams of 7, 2, 5 and 1 steps in two rows, chunks of three: each is what the model says of it alone."""
    model, (x, y) = made(name), ragged()
    if name == "masked":
        x = [np.where(np.arange(len(one))[:, None] % 3 == 1, np.float32(0), one) for one in x]
    trainer, said = TruncatedBPTT(model, steps=3), []
    rows = [[], []]
    for (values, starts, real), wanted in stream_chunks(x, y, steps=3, rows=2):
        outputs = trainer((values, starts, real)).numpy()
        assert (wanted.numpy()[real.numpy() == 0] == 0).all()
        for row in range(2):
            if starts[row]:
                rows[row].append(([], []))
            rows[row][-1][0].extend(outputs[row][real[row].numpy() == 1])
            rows[row][-1][1].extend(wanted[row].numpy()[real[row].numpy() == 1])
    said = [s for row in rows for s in row if s[0]]
    assert sorted(len(s[0]) for s in said) == sorted(LENGTHS)
    for outputs, wanted in said:
        number = next(i for i, target in enumerate(y) if len(target) == len(wanted) and np.array_equal(target, wanted))
        shown = (x[number] != 0).any(-1)
        np.testing.assert_allclose(np.array(outputs)[shown], model(x[number][None])[0][shown], atol=1e-5)


def test_what_is_no_step_reaches_no_loss_no_metric_and_no_weight():
    """What stands there is made NaN; loss and metric are those of the real steps."""
    model, (x, y) = (
        made(lambda: keras.Sequential([keras.Input((None, D)), keras_seq.GRU(U, return_sequences=True)])),
        ragged(),
    )
    trainer = TruncatedBPTT(model, steps=3)
    trainer.compile("sgd", "mse", metrics=["mae"])

    def broken(chunk, wanted):
        values, starts, real = chunk
        hidden = tf.equal(real, 0)[..., None]
        return (tf.where(hidden, np.nan, values), starts, real), wanted

    (values, starts, real), wanted = next(iter(stream_chunks(x[1:], y[1:], steps=3, rows=3)))
    found = trainer.train_on_batch(*broken((values, starts, real), wanted), return_dict=True)
    errors = (made(lambda: model)(values).numpy() - wanted)[real.numpy() == 1]  # not the same weights any more
    assert np.isfinite([*found.values(), *(w.sum() for w in model.get_weights())]).all()
    trainer.reset_metrics()  # as Keras 3.13 and later do by themselves
    found = trainer.test_on_batch(*broken((values, starts, real), wanted), return_dict=True)
    np.testing.assert_allclose(found["loss"], np.mean(errors**2), rtol=1e-5)
    both = found["mae"]
    np.testing.assert_allclose(
        trainer.test_on_batch((values, starts, real), wanted, return_dict=True)["mae"], both, rtol=1e-5
    )


def test_streams_of_a_dataset_without_an_end():
    def endless():
        rng = np.random.default_rng(0)
        while True:
            x = rng.normal(size=(rng.integers(1, 9), D)).astype("float32")
            yield x, x[:, :U]

    spec = tf.TensorSpec((None, D), tf.float32), tf.TensorSpec((None, U), tf.float32)
    data = stream_chunks(tf.data.Dataset.from_generator(endless, output_signature=spec), steps=4, rows=3)
    trainer = TruncatedBPTT(made(plain), steps=4)
    trainer.compile("adam", "mse")
    history = trainer.fit(data, epochs=2, steps_per_epoch=5, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    (values, starts, real), _ = next(iter(data))
    assert values.shape == (3, 4, D)
    assert starts.numpy().tolist() == [1, 1, 1]
    assert (np.diff(real.numpy(), axis=1) <= 0).all()


def test_arguments_of_fit_and_evaluate():
    x, y = numbers(4, 6)
    weight = np.ones((4, 6), "float32")
    trainer = TruncatedBPTT(made(plain), steps=3)
    trainer.compile("adam", "mse", metrics=["mae"], weighted_metrics=["mse"])
    batches = []
    history = trainer.fit(
        x,
        y,
        2,
        2,
        sample_weight=weight,
        validation_data=(x[:1], y[:1]),
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))],
        verbose=0,
    ).history
    assert batches == [0, 1, 2, 3] * 2  # two pairs of rows, two chunks each
    assert {"loss", "mae", "mse", "val_loss", "val_mae"} <= set(history)
    found = trainer.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], np.mean((trainer.model(x) - y) ** 2), rtol=1e-5)
    assert trainer.evaluate(x, y, sample_weight=0 * weight, verbose=0, return_dict=True)["loss"] == 0


def test_saved_and_loaded(tmp_path):
    x, y = numbers(2, 6)
    trainer = TruncatedBPTT(made(plain), steps=3)
    trainer.compile("adam", "mse")
    trainer.fit(x, y, verbose=0)
    trainer.save(tmp_path / "trainer.keras")
    again = keras.models.load_model(tmp_path / "trainer.keras")
    np.testing.assert_array_equal(again.model(x), trainer.model(x))
    assert again.evaluate(x, y, verbose=0) == trainer.evaluate(x, y, verbose=0)
    assert again.steps == 3


# -- runs that are broken off ----------------------------------------------------------------------------------------------


class Break(keras.callbacks.Callback):
    """Breaks a run off after so many chunks, counted over all epochs, those that it passes over too."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def language_model():
    vocabulary = Vocabulary.of(["to be or not to be, that is the question. "], split="characters")
    memory = keras_seq.Stacked(keras_seq.LSTM, [6, 6], dropout=0.3, return_sequences=True)
    model = LanguageModel(vocabulary, memory, embedding_size=5, dropout=0.2, seed=1)
    return model, model.streams("to be or not to be, that is the question. " * 4, rows=3, steps=8)


def trainer_of_plain():
    x, y = numbers(2, 21)
    return TruncatedBPTT(made(plain), steps=3), stream_chunks(x, y, steps=3)


RUNS = {"LanguageModel": language_model, "TruncatedBPTT": trainer_of_plain}


def run(kind, folder, breaks=(), epochs=3):
    """The weights at the end, of a run that is broken off after so many chunks, each time."""
    for after in (*breaks, None):
        keras.utils.set_random_seed(5)
        model, data = RUNS[kind]()
        model.compile(keras.optimizers.Adam(0.01), **({} if kind == "LanguageModel" else {"loss": "mse"}))
        stop = [] if after is None else [Break(after)]
        try:
            history = model.fit(
                data, epochs=epochs, callbacks=stop, verbose=0, shuffle=False, backup=folder, backup_every=2
            )
        except KeyboardInterrupt:
            assert os.listdir(folder)
    return model.get_weights(), history.history["loss"]


@pytest.mark.parametrize("kind", RUNS)
def test_a_broken_run_ends_as_an_unbroken_one(kind, tmp_path):
    wanted, losses = run(kind, tmp_path / "whole")
    found, end = run(kind, tmp_path / "broken", breaks=[4, 7, 6])
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert end[-1] == losses[-1], "the last epoch was run whole"
    assert not (tmp_path / "broken").exists(), "a run that ends leaves nothing"
    other, _ = run(kind, tmp_path / "other", breaks=[], epochs=2)
    assert any(np.abs(a - b).max() > 1e-6 for a, b in zip(other, wanted, strict=True))


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[4])
import keras, numpy as np
import test_truncated as t
kind, folder, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
class Kill(keras.callbacks.Callback):
    left = after
    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
keras.utils.set_random_seed(5)
model, data = t.RUNS[kind]()
model.compile(keras.optimizers.Adam(0.01), **({} if kind == "LanguageModel" else {"loss": "mse"}))
model.fit(data, epochs=3, callbacks=[Kill()], verbose=0, shuffle=False, backup=folder, backup_every=2)
np.savez(folder + ".npz", *model.get_weights())
"""


@pytest.mark.deep
def test_killed_and_resumed(tmp_path):
    """By SIGKILL, at places drawn at random: the weights at the end are those of an unbroken run, bit for bit."""
    kind, folder, killed = "TruncatedBPTT", tmp_path / "run", 0
    rng = np.random.default_rng()
    for after in (int(rng.integers(2, 9)), int(rng.integers(9, 13)), 0):
        command = [sys.executable, "-c", KILLED, kind, str(folder), str(after), str(pathlib.Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in ((-9,) if after else (0,)), done.stderr[-2000:]
        killed += done.returncode == -9
    assert killed == 2
    wanted, _ = run(kind, tmp_path / "whole")
    with np.load(f"{folder}.npz") as found:
        for a, b in zip(found.values(), wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_backup_is_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path / "run")
    model, data = language_model()
    model.compile("adam")
    with pytest.raises(ValueError, match="backup: expected one of this model on 3 rows, got another in"):
        model.fit(data, backup=tmp_path / "run", verbose=0)
    with pytest.raises(TypeError, match=r"x: expected a tf.data.Dataset of chunks together with backup"):
        model.fit(np.ones((2, 3), "int32"), np.ones((2, 3), "int32"), backup=tmp_path / "new")


def broken_off(folder):
    model, data = trainer_of_plain()
    model.compile("adam", "mse")
    model.fit(data, verbose=0, callbacks=[Break(4)], backup=folder, backup_every=1)


# -- what is refused -------------------------------------------------------------------------------------------------------


def model_of(*parts):
    return keras.Sequential([keras.Input((None, D)), *parts])


REFUSED = {
    "bidirectional.*its backward half": lambda: model_of(
        keras_seq.Bidirectional(keras_seq.GRU(2, return_sequences=True)), layers.Dense(1)
    ),
    "a Bidirectional, of which": lambda: model_of(layers.Bidirectional(layers.GRU(2, return_sequences=True))),
    "the_middle: expected a layer that acts on each step alone, got a Conv1D": lambda: model_of(
        keras_seq.GRU(2, return_sequences=True), layers.Conv1D(2, 3, padding="same", name="the_middle"), layers.Dense(1)
    ),
    "looks 2 steps ahead": lambda: model_of(keras_seq.TDNN(2, context=[-1, 2])),
    "reads time in reverse": lambda: model_of(layers.GRU(2, return_sequences=True, go_backwards=True)),
    "model: expected an output at each step, got one for the whole sequence": lambda: model_of(keras_seq.LSTM(2)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_models_that_cannot_carry_their_states_are_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        TruncatedBPTT(REFUSED[message](), steps=3)


X, Y = numbers(2, 6)
WRONG = {
    "steps: expected at most 6, the length of the longest stream, got 7": lambda: stream_chunks(X, Y, steps=7),
    "steps: expected a positive integer": lambda: stream_chunks(X, Y, steps=0),
    "rows: expected at most one for each of the 2 streams, got 3": lambda: stream_chunks(X, Y, steps=2, rows=3),
    "y: expected what to predict at each step, got None": lambda: stream_chunks(X, steps=2),
    "y: expected 2 streams like x, got 1": lambda: stream_chunks(X, Y[:1], steps=2),
    "streams: expected x, y and weights of one length, at least 1, in each, got .5, 6. in number 0": lambda: (
        stream_chunks(X, Y[:, :5], steps=2)
    ),
    r"x: expected arrays \(b, T, ..\), or a list of streams": lambda: stream_chunks(X[0, 0], Y, steps=2),
    "rows: expected how many streams run side by side, got None": lambda: stream_chunks(
        tf.data.Dataset.from_tensor_slices((X, Y)), steps=2
    ),
    r"x: expected a tf.data.Dataset of \(x, y\)": lambda: stream_chunks(
        tf.data.Dataset.from_tensor_slices(X), steps=2, rows=1
    ),
    r"x: expected a tf.data.Dataset of \(\(x, starts\), y\)": lambda: trained(
        lambda t: t.fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(2))
    ),
    r"inputs: expected \(x, starts\) or \(x, starts, real\), as stream_chunks makes them": lambda: trained(
        lambda t: t(X)
    ),
    r"starts: expected booleans of shape \(2,\), one per row": lambda: trained(lambda t: t((X, np.ones(3)))),
    r"inputs: expected x of shapes \[\(None, None, 3\)\], got": lambda: trained(lambda t: t((X[..., :2], np.ones(2)))),
    r"real: expected shape \(2, 6\), got \(2, 5\)": lambda: trained(lambda t: t((X, np.ones(2), np.ones((2, 5))))),
    "inputs: expected a known number of rows together with starts": lambda: trained(
        lambda t: t((keras.Input((6, D)), keras.Input(())))
    ),
    "model: expected a built Sequential or functional model": lambda: TruncatedBPTT("model", steps=2),
}


def trained(call):
    trainer = TruncatedBPTT(model_of(keras_seq.GRU(U, return_sequences=True)), steps=2)
    trainer.compile("sgd", "mse")
    return call(trainer)


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_named(message):
    with pytest.raises((TypeError, ValueError), match=message):
        WRONG[message]()

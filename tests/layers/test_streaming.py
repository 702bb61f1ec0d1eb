"""Whole models step by step: equal to the model on the sequence, exported, and what is refused."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import structures
import tensorflow as tf
from cases import GAPS, D
from conformance import assert_close, randomised
from keras import layers, ops
from structures import STEPS

import keras_seq

pytestmark = pytest.mark.filterwarnings("ignore:.*receptive field", "ignore:.*does not support masking")


def numbers(b=3):
    """Sequences with steps of nothing but zeros, as `Masking` takes for hidden."""
    x, mask = structures.data(b, dtype="float32")
    return np.where(mask[..., None], x, np.float32(0))


def tokens(b=3):
    return np.random.default_rng(0).integers(0, 6, size=(b, STEPS)).astype("int32")


def deep():
    return keras.Sequential(
        [
            keras.Input((None, D)),
            layers.Masking(),
            keras_seq.Stacked(keras_seq.LSTM, [5, 5], skips="residual", dropout=0.2, return_sequences=True),
            layers.BatchNormalization(),
            keras_seq.TDNN(4, delays=3),
            keras_seq.TCN(4, dilations=[1, 2], return_sequences=True),
            layers.Dense(2, activation="softmax"),
        ]
    )


def of_tokens():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(6, 4, mask_zero=True),
            layers.Dropout(0.5),
            keras_seq.GRU(4, return_sequences=True, zero_output_for_mask=True),
            layers.GRU(3, return_sequences=True),
            layers.LayerNormalization(),
            keras_seq.MaskedMean(),
            layers.Reshape((3, 1)),  # after the end of time anything goes
            layers.Flatten(),
        ]
    )


def to_one():
    return keras.Sequential([keras.Input((None, D)), layers.Masking(), keras_seq.NoForgetLSTM(4), layers.Dense(2)])


def branches():
    """Two inputs, a skip, operations, a layer used twice, a model in the model, two outputs by name."""
    inner = keras.Sequential([keras.Input((None, 4)), keras_seq.LSTM(4, return_sequences=True), layers.Dense(4)])
    a, b = keras.Input((None, D), name="a"), keras.Input((None, 2), name="b")
    shared = keras_seq.SimpleRNN(4, return_sequences=True)
    first = shared(layers.Dense(4)(layers.Masking()(a)))
    second = shared(ops.tanh(layers.Dense(4)(b)))
    joined = ops.concatenate([first * 2.0 + inner(second), second], axis=-1)
    whole = keras_seq.WaveNet(3, dilations=[1, 2])(joined)
    return keras.Model({"a": a, "b": b}, {"each": whole, "last": keras_seq.LastStep()(joined)})


def open_loop():
    x, y = keras.Input((None, D)), keras.Input((None, 2))
    return keras.Model([x, y], keras_seq.NARX(4, **GAPS, return_sequences=True)(x, targets=y))


def closed_loop():
    return keras.Sequential([keras.Input((None, D)), keras_seq.NARX(4, **GAPS, closed=True, return_sequences=True)])


def pair(k):
    return {"a": numbers(), "b": np.random.default_rng(1).normal(size=(3, STEPS, k)).astype("float32")}


MODELS = {
    "deep": (deep, numbers),
    "of_tokens": (of_tokens, tokens),
    "to_one": (to_one, numbers),
    "branches": (branches, lambda: pair(2)),
    "open_loop": (open_loop, lambda: list(pair(2).values())),
    "closed_loop": (closed_loop, numbers),
}


def made(name):
    make, data = MODELS[name]
    model = randomised(make())
    for w in model.non_trainable_weights:
        if "variance" in w.path:
            w.assign(abs(w))
    return model, data()


def now(x, t):
    return keras.tree.map_structure(lambda v: tf.constant(v[:, t]), x)


def expected(model, x):
    """What the model says of each beginning."""
    said = []
    for t in range(STEPS):
        outputs = model(keras.tree.map_structure(lambda v: v[:, : t + 1], x))  # noqa: B023
        said.append([y[:, -1] if len(y.shape) == 3 else y for y in keras.tree.flatten(outputs)])
    return [np.stack(column, 1) for column in zip(*said, strict=True)]


def streamed(step, state, x):
    said = []
    for t in range(STEPS):
        outputs, state = step(now(x, t), state)
        said.append(keras.tree.flatten(outputs))
    return [np.stack(column, 1) for column in zip(*said, strict=True)]


@pytest.mark.parametrize("name", MODELS)
def test_steps_of_a_model_are_the_model(name, tmp_path):
    model, x = made(name)
    stream = keras_seq.streaming(model, jit_compile=name in ("deep", "to_one"))
    wanted = expected(model, x)
    assert_close(streamed(stream.step, stream.initial_state(3), x), wanted, 1e-5)
    outputs, _ = stream.step(now(x, 0), stream.initial_state(3))
    assert not isinstance(x, dict) or sorted(outputs) == ["each", "last"]
    stream.model.save(tmp_path / "stream.keras")
    again = keras.models.load_model(tmp_path / "stream.keras")
    flat = [tf.constant(v)[:, None] for v in keras.tree.flatten(now(x, 0))]
    given = [*flat, *stream.initial_state(3)]
    assert_close(again(given), stream.model(given), 0.0)


@pytest.mark.parametrize("name", MODELS)
def test_rows_begin_and_end_on_their_own(name):
    """Row 1 begins anew at step 2: from there it says what a stream of the steps from there on says; the others go on."""
    model, x = made(name)
    stream = keras_seq.streaming(model)
    state, late, said, alone = stream.initial_state(3), stream.initial_state(3), [], []
    for t in range(STEPS):
        outputs, state = stream.step(now(x, t), state, np.array([False, t == 2, False]))
        said.append(keras.tree.flatten(outputs))
        if t >= 2:
            outputs, late = stream.step(now(x, t), late)
            alone.append(keras.tree.flatten(outputs))
    columns = [np.stack(column, 1) for column in zip(*said, strict=True)]
    plain = streamed(stream.step, stream.initial_state(3), x)
    begun = [np.stack(column, 1) for column in zip(*alone, strict=True)]
    for found, whole, new in zip(columns, plain, begun, strict=True):
        assert_close([found[[0, 2]], found[1, :2], found[1, 2:]], [whole[[0, 2]], whole[1, :2], new[1]], 1e-6)
        assert np.abs(new[1] - whole[1, 2:]).max() > 1e-4, "what came before made no difference"


def test_the_stream_has_the_weights_of_the_model():
    model, x = made("to_one")
    stream = keras_seq.streaming(model)
    before, _ = stream.step(now(x, 0), stream.initial_state(3))
    model.layers[-1].bias.assign_add([1.0, 2.0])
    after, _ = stream.step(now(x, 0), stream.initial_state(3))
    assert_close([after - before], [np.tile([1.0, 2.0], (3, 1))], 1e-6)


@pytest.mark.parametrize("whole", [True, False])
def test_a_step_form_reads_the_mask_of_its_sequence(whole):
    """Where it is a layer of a model that masks: row 0 is hidden, and stays as it was."""
    layer = randomised(keras_seq.GRU(4, return_sequences=whole))
    layer.build((None, None, D))
    x, given = np.ones((2, 1, D), "float32"), [np.full((2, 4), 0.5, "float32"), np.full((2, 4), 0.25, "float32")]
    x[0] = 0
    form = keras_seq.StepForm(layer)
    y, *state = form([layers.Masking()(x), *given])
    expected, wanted = layer.step(x[:, 0], given, np.array([False, True]))
    assert_close([y[:, 0] if whole else y, *state], [expected, *wanted], 1e-6)
    np.testing.assert_array_equal(state[0][0], given[0][0])
    mask = np.array([[False], [True]])
    found = form.compute_mask([x, *given], [mask, None, None])
    assert [m is mask for m in found] == [whole, False, False]


SERVE = """
import sys
import numpy as np
import tensorflow as tf
for folder in sys.argv[1:]:
    loaded, data = tf.saved_model.load(folder), np.load(folder + ".npz")
    inputs = [data[k] for k in sorted(data) if k.startswith("in")]
    expected = [data[k] for k in sorted(data) if k.startswith("out")]
    signature = loaded.signatures["serving_default"]
    state = loaded.initial_state(tf.constant(len(inputs[0])))
    for t in range(inputs[0].shape[1]):
        given = {f"input_{i}": tf.constant(x[:, t]) for i, x in enumerate(inputs)}
        found = signature(**given, **{f"state_{i}": s for i, s in enumerate(state)})
        if len(inputs) == 1:
            outputs, state = loaded.step(tf.constant(inputs[0][:, t]), state)
            assert np.max(np.abs(tf.nest.flatten(outputs)[0] - expected[0][:, t])) < 1e-5, folder
        state = [found[f"state_{i}"] for i in range(len(state))]
        begun = loaded.reset(state, tf.constant([True] * len(inputs[0])))
        for a, b in zip(begun, loaded.initial_state(tf.constant(len(inputs[0]))), strict=True):
            assert np.array_equal(a, b)
        for i, wanted in enumerate(expected):
            assert np.max(np.abs(found[f"output_{i}"] - wanted[:, t])) < 1e-5, (folder, t, i)
assert "keras_seq" not in sys.modules
print("all equal")
"""


@pytest.mark.deep
def test_exported_steps_run_without_keras_seq(tmp_path):
    folders = []
    for name in MODELS:
        model, x = made(name)
        keras_seq.streaming(model, jit_compile=name in ("deep", "to_one")).export(str(tmp_path / name))
        data = {f"in{i}": v for i, v in enumerate(keras.tree.flatten(x))}
        data.update((f"out{i}", v) for i, v in enumerate(expected(model, x)))
        np.savez(tmp_path / f"{name}.npz", **data)
        folders.append(str(tmp_path / name))
    done = subprocess.run(
        [sys.executable, "-c", SERVE, *folders], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all equal" in done.stdout


def test_many_steps_keep_the_state_as_small_as_it_was():
    """In one compiled loop; what 20,000 steps give is what the sequence gives."""
    model = randomised(keras.Sequential([keras.Input((None, 1)), keras_seq.TCN(3, dilations=[1, 4]), layers.Dense(1)]))
    stream, n = keras_seq.streaming(model), 20_000
    x = np.sin(np.arange(n, dtype="float32"))[:, None, None]

    @tf.function(jit_compile=True)
    def run(x):
        return tf.scan(lambda c, x: stream._step(x, c[1]), x, (tf.zeros((1, 1)), stream.initial_state(1)))[0]

    assert_close([run(tf.constant(x))[-1]], [model(np.swapaxes(x, 0, 1)[:, -60:])], 1e-5)


# -- what is refused -----------------------------------------------------------------------------------------------------


def model_of(*parts):
    return keras.Sequential([keras.Input((None, D)), *parts])


def with_states():
    x = keras.Input((None, D))
    y, h = keras_seq.GRU(2, return_state=True, return_sequences=True)(x)
    return keras.Model(x, [y, h])


def with_initial_states():
    x, h = keras.Input((None, D)), keras.Input((2, 2))
    return keras.Model([x, h], keras_seq.GRU(2, return_sequences=True)(x, initial_state=[h[:, 0]]))


def time_and_none():
    x = keras.Input((None, D))
    return keras.Model(x, layers.Add()([keras_seq.LSTM(D)(x), layers.Dense(D)(x)]))


REFUSED = {
    "its backward half": lambda: model_of(keras_seq.Bidirectional(keras_seq.GRU(2))),
    "reads time in reverse": lambda: model_of(keras_seq.GRU(2, go_backwards=True)),
    "looks 2 steps ahead": lambda: model_of(keras_seq.Stacked([keras_seq.TDNN(2, context=[-1, 2])])),
    "one step of 2": lambda: model_of(keras_seq.TDNN(2, delays=2, subsampling=2)),
    "Conv1D.*pointwise": lambda: model_of(layers.Conv1D(2, 2)),
    "a Softmax, of which": lambda: model_of(layers.Softmax(axis=1)),
    "a LayerNormalization, of which": lambda: keras.Sequential(
        [keras.Input((4, D)), layers.LayerNormalization(axis=[1, 2])]
    ),
    "GlobalAveragePooling1D": lambda: model_of(layers.GlobalAveragePooling1D()),
    "get_item.*GetItem|initial_state": with_initial_states,
    "return_state=False": with_states,
    "got both": time_and_none,
    "inputs \\(b, t, ..\\)": lambda: keras.Sequential([keras.Input(()), layers.Rescaling(2.0)]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_models_that_cannot_be_streamed_are_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        keras_seq.streaming(REFUSED[message]())


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize("model", [Subclassed(), keras.Sequential([keras_seq.LSTM(2)]), "model", keras_seq.LSTM(3)])
def test_other_things_are_refused(model):
    with pytest.raises(TypeError, match="model: expected a built Sequential or functional model"):
        keras_seq.streaming(model)


def test_layers_named_as_pointwise_are_trusted():
    model = randomised(model_of(layers.Conv1D(2, 1, name="product"), keras_seq.LSTM(2)))
    x = numbers()
    for trusted in (["product"], [model.layers[0]]):
        stream = keras_seq.streaming(model, pointwise=trusted)
        assert_close(streamed(stream.step, stream.initial_state(3), x), expected(model, x), 1e-5)


def test_wrong_steps_are_refused():
    model, x = made("to_one")
    stream = keras_seq.streaming(model)
    state, good = stream.initial_state(3), now(x, 0)
    for inputs, given, message in (
        (good, state[:-1], "state: expected 3 tensors"),
        (good, [s[:, :2] for s in state], "state: expected 3 tensors"),
        (x, state, r"inputs: expected shape \(None, 3\)"),
        (good[:, :2], state, r"inputs: expected shape \(None, 3\)"),
        ([good, good], state, "structure"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.step(inputs, given)
    for starts in ([True, False], [[True], [False], [True]], [1, 0, 1]):
        with pytest.raises(ValueError, match=r"starts: expected booleans of shape \(3,\), one for each row"):
            stream.step(good, state, starts)
    layer = model.layers[1]
    for inputs, given, mask, message in (
        (x, state, None, r"inputs: expected one step of shape \(b, 3\)"),
        (good, state[:-1], None, "state: expected 3 tensors of shapes"),
        (good, [s[:2] for s in state], None, "state: expected 3 tensors of shapes"),
        (good, state, np.ones(2, bool), r"mask: expected shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.step(inputs, given, mask)
    with pytest.raises(ValueError, match="expected a built layer"):
        keras_seq.LSTM(3).initial_state(1)
    narx = MODELS["open_loop"][0]().layers[-1]
    with pytest.raises(ValueError, match="targets: expected"):
        narx.step(good, narx.initial_state(3))
    closed = narx.close_loop()
    closed.build((None, None, D))
    with pytest.raises(ValueError, match="targets: expected None in closed loop"):
        closed.step(good, closed.initial_state(3), targets=np.ones((3, 2)))

"""Models of tokens one token at a time, as others run them: `begin` and `step` of a SavedModel and as files of LiteRT."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import check_names_no_device, difference, litert, needs_litert
from token_models import SHAPE, WORDS, ids, made, pictures

import keras_seq
from keras_seq.models import ImageCaptioner, Seq2Seq

pytestmark = pytest.mark.filterwarnings("ignore:.*Interpreter is deprecated", "ignore:.*receptive field")
deep = pytest.mark.deep


def stacked():
    layers = [keras_seq.LSTM(4, return_sequences=True), keras_seq.TCN(3, dilations=[1, 2], return_sequences=True)]
    return Seq2Seq(WORDS, WORDS, decoder=keras_seq.Stacked(layers), embedding_size=5)


# how each is made, and what `begin` reads
SUBJECTS = {
    "LanguageModel": (None, "rows"),
    "Seq2Seq": (None, "tokens"),
    "Seq2Seq, without attention": (stacked, "tokens"),
    "ImageCaptioner": (None, "images"),
    "ImageCaptioner, each_step": (
        lambda: ImageCaptioner(WORDS, SHAPE, keras_seq.LSTMCell(4), features_as="each_step", embedding_size=5),
        "images",
    ),
}


def subject(name):
    """A model with random weights, and the name of what `begin` reads."""
    make, read = SUBJECTS[name]
    # larger weights make chaos of rounding in a memory of many units
    return made(name, 0.1 if name == "Seq2Seq" else 0.5, make), read


def first_states(model):
    """The `begin` of a language model, which has no file of its own."""
    return lambda rows: [s.numpy() for s in model.memory.initial_state(rows)]


def check(model, read, begin, step, sizes):
    """What the two give for tokens after one another is what the model gives for all of them at once.

    Gives what is carried into the last step, the state and the constants by their names.
    """
    for rows, steps in sizes:
        given = {"rows": np.int32(rows), "tokens": ids(rows, steps), "images": pictures(rows)}[read]
        before = [] if read == "rows" else [given]
        tokens = np.pad(ids(rows, steps, seed=1)[:, : steps - 1], ((0, 0), (1, 0)), constant_values=WORDS.start)
        count = len(keras.tree.flatten(model.begin(*(before or [None]), rows)[0]))
        found, said = begin(**{read: given}), []
        state, constants = found[:count], {f"constant_{i}": v for i, v in enumerate(found[count:])}
        for t in range(steps):
            carried = {f"state_{i}": v for i, v in enumerate(state)}
            logits, *state = step(tokens=tokens[:, t], **carried, **constants)
            said.append(np.asarray(logits))
        expected = np.asarray(model([*before, tokens] if before else tokens))
        assert np.ptp(expected, axis=1).max() > 0.01
        assert difference([np.stack(said, 1)], [expected]) < 1e-5
    return carried, constants


def check_unknown_tokens(step, carried, constants):
    """A file, which can raise no error, has NaN for the logits of a row whose token is none of the vocabulary's."""
    for wrong in (len(WORDS), -1):
        tokens = np.array([wrong, *[WORDS.start] * (len(carried["state_0"]) - 1)], "int32")
        assert np.isnan(step(tokens=tokens, **carried, **constants)[0]).all(axis=1).tolist() == [
            t == wrong for t in tokens
        ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("LanguageModel", marks=deep),
        pytest.param("Seq2Seq", marks=deep),
        "ImageCaptioner, each_step",
    ],
)
def test_steps_of_a_saved_model(name, tmp_path):
    """For any number of rows and any length, in what loads without keras_seq."""
    model, read = subject(name)
    model.export(tmp_path / "saved", verbose=False)
    check_names_no_device(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    begin = loaded.initial_state if read == "rows" else loaded.begin

    def step(tokens, **carried):
        return loaded.step(tf.constant(tokens), *carried.values())

    check(model, read, lambda **given: list(begin(tf.constant(given[read]))), step, [(3, 5), (2, 9)])


@needs_litert
@deep
@pytest.mark.parametrize("name", SUBJECTS)
def test_steps_in_litert(name, tmp_path):
    """A step takes any number of rows; where `begin` loops over a source, that takes one."""
    model, read = subject(name)
    further = {"input_signature": [tf.TensorSpec((3, None), "int32", read)]} if read == "tokens" else {}
    model.export(tmp_path / "step.tflite", format="litert", endpoint="step")
    if read == "rows":
        begin = first_states(model)
    else:
        model.export(tmp_path / "begin.tflite", format="litert", endpoint="begin", **further)
        begin = litert(tmp_path / "begin.tflite")
    step = litert(tmp_path / "step.tflite")
    check_unknown_tokens(step, *check(model, read, begin, step, [(3, 5), (3 if further else 2, 9)]))


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("LanguageModel", {"format": "litert"}, "decoder: expected 'greedy' in the format 'litert', got 'sample'"),
        ("LanguageModel", {"endpoint": "begin"}, r"endpoint: expected one of \['serve', 'step'\], got 'begin'"),
        ("Seq2Seq", {"endpoint": "texts"}, r"endpoint: expected one of \['serve', 'begin', 'step'\], got 'texts'"),
        ("ImageCaptioner", {"endpoint": None}, r"endpoint: expected one of \['serve', 'begin', 'step'\], got None"),
    ],
)
def test_exports_that_are_refused(kind, wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        made(kind).export(tmp_path / "never.tflite", **wrong)
    assert not list(tmp_path.iterdir())

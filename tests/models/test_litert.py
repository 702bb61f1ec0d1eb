"""Models of tokens as LiteRT files: what they write, and a step of theirs, by built-in operations."""

import numpy as np
import pytest
import tensorflow as tf
from exported import difference, litert
from token_models import INPUTS, ids, made, pictures

import keras_seq.models

pytestmark = pytest.mark.filterwarnings("ignore:.*Interpreter is deprecated")
# what each writes from, the name and the shape of that for three rows; of LanguageModel a prompt
READ = {"LanguageModel": ("prompt", (3, None)), "Seq2Seq": ("tokens", (3, None)), "ImageCaptioner": ("images", None)}
GREEDY = {"LanguageModel": {"decoder": "greedy"}}


def given(kind, model):
    """What is written from, two lengths of it where it has a length."""
    if kind == "ImageCaptioner":
        return [pictures()]
    start = model.vocabulary.start if kind == "LanguageModel" else model.source.start
    return [np.pad(ids(steps=n)[:, : n - 1], ((0, 0), (1, 0)), constant_values=start) for n in (4, 7)]


def written(kind, model, inputs):
    return model.generate_tokens(*([None, inputs] if kind == "LanguageModel" else [inputs])).numpy()


@pytest.mark.deep
@pytest.mark.parametrize("kind", INPUTS)
def test_written_tokens(kind, tmp_path):
    """Greedily, from inputs of any length."""
    model, (name, shape) = made(kind), READ[kind]
    further = {} if shape is None else {"input_signature": [tf.TensorSpec(shape, "int32", name)]}
    model.export(tmp_path / "writer.tflite", format="litert", **GREEDY.get(kind, {}), **further)
    run = litert(tmp_path / "writer.tflite")
    for inputs in given(kind, model):
        expected = written(kind, model, inputs)
        assert kind == "ImageCaptioner" or len(np.unique(expected)) > 2
        np.testing.assert_array_equal(run(**{name: inputs})[0], expected)


@pytest.mark.deep
def test_a_step_of_a_language_model(tmp_path):
    """Of any number of rows."""
    model = made("LanguageModel")
    model.export(tmp_path / "step.tflite", format="litert", endpoint="step")
    run = litert(tmp_path / "step.tflite")
    for rows in (1, 3):
        tokens, state = ids(rows)[:, 0], model.memory.initial_state(rows)
        found = run(tokens=tokens, **{f"state_{i}": s.numpy() for i, s in enumerate(state)})
        logits, state = model.next_token(tokens, state)
        assert difference(found, [np.asarray(v) for v in (logits, *state)]) < 1e-6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"format": "litert"}, "decoder: expected 'greedy' in the format 'litert', got 'sample'"),
        ({"endpoint": "texts"}, "endpoint: expected 'serve' or 'step', got 'texts'"),
    ],
)
def test_exports_that_are_refused(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        keras_seq.models.LanguageModel.export(made("LanguageModel"), tmp_path / "never.tflite", **wrong)
    assert not list(tmp_path.iterdir())

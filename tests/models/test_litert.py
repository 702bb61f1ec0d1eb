"""Models of tokens as LiteRT files, by built-in operations: what they write. Steps of theirs: test_endpoints.py."""

import numpy as np
import pytest
import tensorflow as tf
from exported import litert, needs_litert
from token_models import INPUTS, ids, made, pictures

pytestmark = [needs_litert, pytest.mark.filterwarnings("ignore:.*Interpreter is deprecated")]
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

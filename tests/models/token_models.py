"""The three models that write tokens, small, with random weights, and what they are trained on."""

import keras
import numpy as np

import keras_seq
from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq, Vocabulary

WORDS = Vocabulary(list("abcdefgh"), "characters")
SIZE, ROWS, STEPS, SHAPE = len(WORDS), 3, 5, (8, 8, 3)

MAKE = {
    "LanguageModel": lambda: LanguageModel(
        WORDS, keras_seq.GRU(6, return_sequences=True), embedding_size=5, max_length=9, seed=1
    ),
    "Seq2Seq": lambda: Seq2Seq(WORDS, WORDS, embedding_size=5, max_length=9),
    "ImageCaptioner": lambda: ImageCaptioner(
        WORDS, SHAPE, keras_seq.GRUCell(6), features_as="attention", embedding_size=5, max_length=9
    ),
}
INPUTS = {  # what is read, by its name in errors
    "LanguageModel": ["tokens"],
    "Seq2Seq": ["source tokens", "target tokens"],
    "ImageCaptioner": ["images", "tokens"],
}


def made(kind, scale=0.7, make=None):
    model = (make or MAKE[kind])()
    rng = np.random.default_rng(3)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(scale=scale, size=weight.shape))
    model.seed_generator.state.assign([11, 0])
    return model


def ids(rows=ROWS, steps=STEPS, seed=0):
    found = np.random.default_rng(seed).integers(WORDS.end + 1, SIZE, (rows, steps)).astype("int32")
    found[0, steps - 1 :] = WORDS.pad
    return found


def pictures(rows=ROWS):
    return np.random.default_rng(5).integers(0, 256, (rows, *SHAPE)).astype("uint8")


def batch(kind, rows=ROWS):
    """`(inputs by name, targets)`."""
    arrays = [pictures(rows) if name == "images" else ids(rows, seed=i) for i, name in enumerate(INPUTS[kind])]
    return dict(zip(INPUTS[kind], arrays, strict=True)), ids(rows, seed=9)


def read(inputs):
    """As the model takes them."""
    arrays = tuple(inputs.values())
    return arrays if len(arrays) > 1 else arrays[0]


def writes(kind, model):
    """`generate(**options)` of three rows that differ, and what its prompt is called."""
    if kind == "LanguageModel":
        return lambda **options: model.generate(["ab", "", "hg"], **{"decoder": "greedy", **options})
    first = ["abc", "d", "hgfe"] if kind == "Seq2Seq" else pictures()
    return lambda **options: model.generate(first, **options)


def weights(model):
    """All but random numbers and what metrics count."""
    values = [*model.trainable_variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(v) for v in values]

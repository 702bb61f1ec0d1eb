"""Models as SavedModels with the endpoints that the server asks."""

import itertools
import json
import os
import pathlib
import warnings

import keras
import numpy as np
import tensorflow as tf

APART = "what `model.export(path)` writes is served with sequences of one length at a time"
VOCABULARY = pathlib.Path("assets.extra", "vocabulary.json")
"""Where in a SavedModel's folder the vocabulary stands; TensorFlow leaves assets.extra to whoever writes it."""


def export(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write a SavedModel: of a `LanguageModel`, a `Seq2Seq` with attention, an `ImageCaptioner`, or a model of one sequence."""
    from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq

    writers = {LanguageModel: export_writer, Seq2Seq: export_reader, ImageCaptioner: export_captioner}
    next((w for kind, w in writers.items() if isinstance(model, kind)), export_predictor)(model, path)


def export_predictor(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """One endpoint, `predict(sequences (b, t, ..), lengths (b,))`: steps from its length on are hidden by a mask.

    Raises:
        ValueError: a model of several inputs or outputs, or of one number of rows; one whose answer has other steps than its
            input, or depends on padding though a mask hides it.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"model: expected one input and one output, got {len(model.inputs)} and {len(model.outputs)}")
    (x,) = model.inputs
    if x.shape[0] is not None:
        raise ValueError(f"model: expected one of any number of rows, got one of {x.shape[0]}")

    def predict(sequences, lengths):
        mask = tf.sequence_mask(lengths, tf.shape(sequences)[1])
        shown = tf.reshape(mask, tf.concat([tf.shape(mask), tf.ones(len(x.shape) - 2, "int32")], axis=0))
        sequences = tf.where(shown, sequences, tf.zeros((), x.dtype))  # as `Embedding(mask_zero=True)` wants it
        with warnings.catch_warnings():  # Keras says of every model that it takes no mask; its layers do
            warnings.filterwarnings("ignore", r".*\(of type (Sequential|Functional|Model)\)")
            return model(sequences, mask=mask, training=False)

    if x.shape[1] is None:
        _check_padding(model, predict, x)

    signature = [tf.TensorSpec(x.shape, x.dtype, name="sequences"), tf.TensorSpec((None,), tf.int32, name="lengths")]
    _write(model, path, "predict", predict, signature)


def _check_padding(model, predict, x):
    """A ValueError if the answer to five steps depends on whether four others follow that a mask hides, or has not five."""
    real = tf.cast(tf.random.stateless_uniform((1, 5, *(n or 1 for n in x.shape[2:])), (1, 2), 1, 2), x.dtype)
    padded = tf.concat([real, tf.ones_like(real[:, :4])], axis=1)
    alone, beside = model(real), predict(padded, tf.constant([5]))
    if model.outputs[0].shape[1:2] == (None,):
        if alone.shape[1] != 5:
            raise ValueError(f"model: expected one that gives 5 steps for 5, got {alone.shape[1]}; {APART}")
        beside = beside[:, :5]
    if np.abs(alone - beside).max() > 1e-2 * np.abs(alone).max() + 1e-6:
        raise ValueError(
            f"model: expected one whose answers do not depend on padding that a mask hides, got one that does; {APART}"
        )


def export_writer(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """What the language model's own `export` writes, and its vocabulary."""
    model.export(path, verbose=False)
    config = {
        name: value for name, value in model.vocabulary.get_config().items() if name in ("words", "split", "special")
    }
    file = pathlib.Path(path) / VOCABULARY
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(config), encoding="utf-8")


def export_reader(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """One endpoint, `read(texts (b,)) -> texts (b,), their pieces (b, t), those that were read (b, s), weights (b, t, s)`."""
    if not model.attends:
        raise ValueError("model: expected one that attends, got one without attention")

    def read(texts):
        source = model.tokens(texts)
        target = model.generate_tokens(source)
        state, constants = model.begin(source, tf.shape(source)[0])
        before = tf.fill((tf.shape(source)[0], 1), model.target.start)
        fed, seen = tf.concat([before, tf.cast(target, tf.int32)[:, :-1]], axis=1), [state["coverage"]]
        for t in range(model.max_length):
            _, state = model.next_token(fed[:, t], state, constants)
            seen.append(state["coverage"])
        weights = tf.stack([after - before for before, after in itertools.pairwise(seen)], axis=1)
        pieces = [_pieces(v, tokens) for v, tokens in ((model.source, source), (model.target, target))]
        return model.target.decode(target), *pieces, weights

    _write(model, path, "read", read, [tf.TensorSpec((None,), tf.string, name="texts")])


def export_captioner(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """One endpoint, `describe(images (b, h, w, c)) -> sentences (b,), their words (b, t), weights (b, t, h', w')`.

    Of a captioner without attention, what its own `export` writes.
    """
    if not model.attends:
        return model.export(path, verbose=False)
    from keras_seq import RNN

    reading = RNN(model.memory.cell, return_sequences=True, return_internals=True, dtype=model.dtype_policy)

    def describe(images):
        tokens = model.generate_tokens(images)
        before = tf.fill((tf.shape(images)[0], 1), model.vocabulary.start)
        fed = tf.concat([before, tf.cast(tokens, tf.int32)[:, :-1]], axis=1)
        states, constants = model.start(model.features(images))
        _, internals = reading(model.embedding(fed), initial_state=states, constants=constants)
        weights = tf.reshape(internals["alignment"], (-1, model.max_length, *model.map_shape))
        return model.vocabulary.decode(tokens), _pieces(model.vocabulary, tokens, end=False), weights

    pictures = tf.TensorSpec((None, *model.image_shape), tf.uint8, name="images")
    _write(model, path, "describe", describe, [pictures])


def _pieces(vocabulary, tokens, end=True):
    """The strings of tokens, END as the vocabulary spells it, padding (and END, if not wanted) as empty strings."""
    silent = (vocabulary.pad,) if end else (vocabulary.pad, vocabulary.end)
    return tf.gather(tf.constant(["" if i in silent else t for i, t in enumerate(vocabulary.tokens)]), tokens)


def _write(model, path, name, function, signature):
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(name, function, input_signature=signature)
    archive.write_out(path, verbose=False)

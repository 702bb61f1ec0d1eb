"""Small models for the page: they learn in a minute or two each, and are written as SavedModels."""

import functools
import os
import pathlib
import time
from collections.abc import Sequence

import keras
import numpy as np

import keras_seq
from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq, Vocabulary
from serving.export import export

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", ROOT.parent / "shared" / "data"))


def train(folder: pathlib.Path, names: Sequence[str] = (), quick: bool = False) -> list[pathlib.Path]:
    """Train and export these of MODELS, or all; `quick` is enough to try the server. The folders that were written."""
    written = []
    for name in names or MODELS:
        keras.utils.set_random_seed(1)
        path = folder / name
        model = MODELS[name](quick)
        if name == "waves":
            keras_seq.streaming(model).export(path)
        else:
            export(model, path)
        print(f"written: {path}", flush=True)
        written.append(path)
    return written


@functools.cache
def waves(quick):
    """What comes next in a wave of any period from 8 to 40 steps."""
    model = keras.Sequential([keras.Input((None, 1)), keras_seq.GRU(32, return_sequences=True), keras.layers.Dense(1)])
    rng = np.random.default_rng(1)
    period, phase = rng.uniform(8, 40, (256, 1)), rng.uniform(0, 6.3, (256, 1))
    x = np.sin(2 * np.pi * np.arange(101) / period + phase).astype("float32")[..., None]
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=not quick)
    model.fit(x[:, :-1], x[:, 1:], 64, epochs=1 if quick else 60, verbose=0)
    return model


def text():
    """Shakespeare's plays where they are, else the project's own guides."""
    plays = DATA / "tinyshakespeare" / "input.txt"
    if plays.is_file():
        return plays.read_text(encoding="utf-8")
    return "\n".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "docs").glob("*.md")))


def writer(quick):
    """A language model of characters, as in examples/shakespeare.py."""
    read = text()[: 20_000 if quick else None]
    vocabulary = Vocabulary.of([read], split="characters")
    model = LanguageModel(vocabulary, keras_seq.LSTM(16 if quick else 256, return_sequences=True), 64)
    data, epochs = model.streams(read, 32, 64), 1 if quick else 3
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * len(data), alpha=0.01)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), jit_compile=not quick)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0)
    return model


def dates(quick):
    """Dates as people write them into ISO form, as in examples/date_translation.py."""
    human, iso = drawn_dates(256 if quick else 16_000)
    units, epochs = (8, 1) if quick else (64, 4)
    encoder = keras_seq.Bidirectional(keras_seq.GRU(units, return_sequences=True))
    cell = keras_seq.AttentionCell(keras_seq.GRUCell(units), output_units=units)
    model = Seq2Seq(
        *(Vocabulary.of(texts, split="characters") for texts in (human, iso)),
        encoder,
        keras_seq.RNN(cell, return_sequences=True),
        embedding_size=32,
        max_length=11,
        pad_to=(40, 11),
    )
    inputs, targets = model.example(human, iso)
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * len(human) // 64)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), jit_compile=not quick)
    model.fit([x.numpy() for x in inputs], targets.numpy(), 64, epochs=epochs, verbose=0)
    return model


def drawn_dates(count):
    """Days drawn at random, in a form drawn at random: two lists of strings."""
    import datetime

    from keras_seq.datasets.dates import CASES, FIRST, FORMS, LAST, LEADS, write_date

    rng = np.random.default_rng(1)
    days = [FIRST + datetime.timedelta(int(n)) for n in rng.integers((LAST - FIRST).days + 1, size=count)]
    leads = [LEADS[i] if rng.random() < 0.4 else "" for i in rng.integers(len(LEADS), size=count)]
    forms, cases = ([list(of)[i] for i in rng.integers(len(of), size=count)] for of in (FORMS, CASES))
    human = [write_date(*chosen) for chosen in zip(days, forms, leads, cases, strict=True)]
    return human, [day.isoformat() for day in days]


def captions(quick):
    """Scenes of one or two objects in words, as in examples/captioning.py, with one sentence for each: how true they become."""
    count, units, epochs = (256, 8, 1) if quick else (4096, 96, 10)
    pictures, sentences = drawn_scenes(count, seed=1)
    sentences = [true[0] for true in sentences]
    model = ImageCaptioner(
        Vocabulary.of(sentences),
        pictures.shape[1:],
        keras_seq.LSTMCell(units, recurrent_dropout=0.3),
        features_as="attention",
        embedding_size=16,
        max_length=11,
    )
    tokens = model.vocabulary.encode(sentences).numpy()
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * count // 64)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0), jit_compile=False)
    start = time.perf_counter()
    model.fit([pictures, tokens[:, :-1]], tokens[:, 1:], 64, epochs=epochs, verbose=0)
    spent = time.perf_counter() - start
    for held_out, meaning in (("pairs", "pairs never seen together"), ("kinds", "a kind of object never seen")):
        shown, true = drawn_scenes(20 if quick else 500, seed=2, held_out=held_out)
        right = np.mean([said == t[0] for said, t in zip(model.generate(shown), true, strict=True)])
        print(
            f"captions, after {spent:.0f} s: of {len(shown)} scenes with {meaning} {right:.1%} are described to the word"
        )
    return model


def drawn_scenes(count, seed, held_out=None):
    """Pictures (n, 48, 48, 3), and for each five sentences, the first of a form that the picture decides."""
    from keras_seq.datasets.scenes import describe, draw_scene, sample_scene

    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, held_out=held_out) for _ in range(count)]
    return np.stack([draw_scene(objects, rng) for objects in scenes]), [describe(objects) for objects in scenes]


MODELS = {"waves": waves, "forecast": waves, "writer": writer, "dates": dates, "captions": captions}
"""What the page shows: a stream and its model, a text, attention, and a scene in words."""

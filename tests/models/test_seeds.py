"""Seeds: the same text by every road, whatever the model's own random numbers; and these, where no seed is given."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from token_models import MAKE, WORDS, batch, made, pictures, writes

HOT = {"temperature": 2.0, "max_length": 9}


def source(kind):
    return (
        None if kind == "LanguageModel" else pictures() if kind == "ImageCaptioner" else batch(kind)[0]["source tokens"]
    )


@pytest.mark.parametrize("kind", MAKE)
def test_a_seed_gives_one_text_by_every_road_and_touches_nothing(kind):
    """Eagerly, in a graph, compiled, as a tensor; a row for itself as among others."""
    model, prompt = (
        made(kind),
        np.array([[WORDS.start, 5, WORDS.pad], [WORDS.start, 0, 0], [WORDS.start, 7, 4]], "int32"),
    )
    state, given = model.seed_generator.state, {"decoder": "sample", **HOT}
    expected = model.generate_tokens(source(kind), prompt, seed=5, **given).numpy()
    assert len(np.unique(expected)) > 4
    np.testing.assert_array_equal(model.compiled_tokens(source(kind), prompt, seed=5, **given), expected)
    in_graph = tf.function(
        lambda seed: model.generate_tokens(source(kind), prompt, seed=seed, **given), autograph=False
    )
    np.testing.assert_array_equal(in_graph(tf.constant(5)), expected)
    alone = source(kind)
    alone = alone if alone is None else alone[:1]
    np.testing.assert_array_equal(model.compiled_tokens(alone, prompt[:1], seed=5, **given), expected[:1])
    assert np.any(model.compiled_tokens(source(kind), prompt, seed=6, **given) != expected)
    np.testing.assert_array_equal(state, [11, 0])
    state.assign([3, 8])
    np.testing.assert_array_equal(model.compiled_tokens(source(kind), prompt, seed=5, **given), expected)


@pytest.mark.parametrize("kind", MAKE)
def test_without_one_the_model_is_asked_for_the_next(kind):
    model = made(kind)
    write = writes(kind, model)
    first = [write(decoder="sample", **HOT) for _ in range(2)]
    assert first[0] != first[1]
    np.testing.assert_array_equal(model.seed_generator.state, [11, 2])
    model.seed_generator.state.assign([11, 0])
    assert [write(decoder="sample", **HOT) for _ in range(2)] == first
    generator = keras.random.SeedGenerator(11)
    assert [write(decoder="sample", seed=generator, **HOT) for _ in range(2)] == first
    np.testing.assert_array_equal(model.seed_generator.state, [11, 2])


@pytest.mark.deep
def test_streams_are_what_generate_gives():
    """With a seed, with limits; and each draws by itself, however they are read in turn."""
    model = made("LanguageModel")
    allowed = np.ones(len(WORDS), bool)
    allowed[5:7] = False
    for options in (
        {"decoder": "greedy", "min_length": 6},
        {"seed": 3, "temperature": 2.0},
        {"seed": 3, "temperature": 2.0, "min_length": 9},
        {"seed": 4, "top_k": 3, "top_p": 0.9, "allowed": allowed},
    ):
        options = {"decoder": "sample", "max_length": 9, **options}
        for prompt in ("", "ab"):
            (text,) = model.generate([prompt], **options)
            assert prompt + "".join(model.stream(prompt, **options)) == text
    alone = ["".join(model.stream("ab", seed=s, **HOT)) for s in range(4)]
    streams = [model.stream("ab", seed=s, **HOT) for s in range(4)]
    found = [""] * 4
    for _ in range(9):
        found = [text + next(stream, "") for text, stream in zip(found, streams, strict=True)]
    assert found == alone
    assert len(set(alone)) > 1
    np.testing.assert_array_equal(model.seed_generator.state, [11, 0])


@pytest.mark.deep
def test_exported_with_a_seed(tmp_path):
    model, prompt = made("LanguageModel"), np.array([[WORDS.start, 5], [WORDS.start, 0]], "int32")
    model.export(tmp_path / "seeded", options={"seed": 5, **HOT}, verbose=False)
    served = tf.saved_model.load(tmp_path / "seeded")
    expected = model.generate_tokens(None, prompt, "sample", seed=5, **HOT).numpy()
    for _ in range(2):
        np.testing.assert_array_equal(served.serve(tf.constant(prompt)), expected)
    model.export(tmp_path / "free", options=HOT, verbose=False)
    free = tf.saved_model.load(tmp_path / "free")
    assert np.any(free.serve(tf.constant(prompt)) != free.serve(tf.constant(prompt)))

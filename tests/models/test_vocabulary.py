"""Sentences to tokens and back."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.models import Vocabulary
from keras_seq.models.vocabulary import END, PAD, START, UNKNOWN

SENTENCES = ["A red square, left of a blue circle!", "a  blue circle", "the Été is red"]


def test_words_by_frequency_then_alphabet():
    assert Vocabulary.of(SENTENCES).words == ["a", "blue", "circle", "red", "is", "left", "of", "square", "the", "été"]


def test_encode_and_decode():
    vocabulary = Vocabulary.of(SENTENCES)
    tokens = vocabulary.encode(SENTENCES).numpy()
    assert tokens.dtype == np.int32
    assert tokens.tolist()[1] == [START, 4, 5, 6, END] + [PAD] * 5
    assert [s.decode() for s in vocabulary.decode(tokens).numpy()] == [
        "a red square left of a blue circle",
        "a blue circle",
        "the été is red",
    ]
    assert vocabulary.plain(SENTENCES)[0] == "a red square left of a blue circle"


def test_edges_by_choice_and_empty_sentences():
    vocabulary = Vocabulary.of(SENTENCES)
    assert vocabulary.encode(["", ""], end=False).numpy().tolist() == [[START], [START]]
    assert vocabulary.encode(["a", ""], start=False).numpy().tolist() == [[4, END], [END, PAD]]
    assert vocabulary.decode([[START, 4, END, 5]]).numpy().tolist() == [b"a"]


def test_unknown_words_are_counted():
    vocabulary = Vocabulary.of(SENTENCES)
    with pytest.warns(UserWarning, match="2 words are not in the vocabulary"):
        tokens = vocabulary.encode(["a green dog", "a circle"])
    assert tokens.numpy()[0].tolist() == [START, 4, UNKNOWN, UNKNOWN, END]


def test_rare_words_left_out_are_counted():
    with pytest.warns(UserWarning, match="6 of 10 words left out, at 6 of 15 places, the first 'is'"):
        assert Vocabulary.of(SENTENCES, max_words=4).words == ["a", "blue", "circle", "red"]


def test_in_a_data_pipeline_and_a_graph():
    vocabulary = Vocabulary.of(SENTENCES)
    pipeline = tf.data.Dataset.from_tensor_slices(SENTENCES).batch(3).map(vocabulary.encode)
    assert (next(iter(pipeline)).numpy() == vocabulary.encode(SENTENCES).numpy()).all()
    back = tf.function(vocabulary.decode)(vocabulary.encode(SENTENCES))
    assert back.numpy().tolist() == vocabulary.decode(vocabulary.encode(SENTENCES)).numpy().tolist()


def test_characters_as_they_are():
    vocabulary = Vocabulary.of(["Hé\n", "lo "], split="characters")
    assert vocabulary.words == ["\n", " ", "H", "l", "o", "é"]
    tokens = vocabulary.encode(["oHé\n", " "], end=False)
    assert tokens.numpy().tolist() == [[START, 8, 6, 9, 4], [START, 5, PAD, PAD, PAD]]
    assert [t.decode() for t in vocabulary.decode(tokens).numpy()] == ["oHé\n", " "]
    with pytest.warns(UserWarning, match="1 characters are not in the vocabulary and become"):
        assert vocabulary.decode(vocabulary.encode(["Ho!"])).numpy().tolist() == [b"Ho[UNK]"]


def test_a_list_with_special_tokens_of_its_own():
    """Keeps its numbers, wherever these stand in it."""
    special = ("<pad>", "<unk>", "<s>", "</s>")
    vocabulary = Vocabulary(["<s>", "Ab", "</s>", "<pad>", "b,", "<unk>"], split="spaces", special=special)
    assert (vocabulary.pad, vocabulary.unknown, vocabulary.start, vocabulary.end, len(vocabulary)) == (3, 5, 0, 2, 6)
    with pytest.warns(UserWarning, match="become <unk>"):
        tokens = vocabulary.encode(["Ab  b, ab", "b,"])
    assert tokens.numpy().tolist() == [[0, 1, 4, 5, 2], [0, 4, 2, 3, 3]]
    assert vocabulary.decode(tokens).numpy().tolist() == [b"Ab b, <unk>", b"b,"]
    begun = vocabulary.encode(["Ab b,", "b,"], end=False)  # padding where nothing has ended
    assert begun.numpy().tolist() == [[0, 1, 4], [0, 4, 3]]
    assert vocabulary.decode(begun).numpy().tolist() == [b"Ab b,", b"b,"]
    again = Vocabulary.from_config(vocabulary.get_config())
    assert (again.tokens, again.pad, again.special) == (vocabulary.tokens, 3, special)


def test_config_survives():
    for split in ("words", "spaces", "characters"):
        vocabulary = Vocabulary.of(SENTENCES, split=split)
        again = Vocabulary.from_config(vocabulary.get_config())
        assert (again.words, again.split, again.special) == (vocabulary.words, split, vocabulary.special)


@pytest.mark.parametrize("tokens", [[[4, 99]], [[-1]], [[4, 14]]])
def test_tokens_that_are_none_are_named(tokens):
    with pytest.raises(ValueError, match=r"tokens: expected integers from 0 to \d+, got"):
        Vocabulary.of(SENTENCES).decode(tokens)
    with pytest.raises(TypeError, match="tokens: expected a tensor of integers, got one of float"):
        Vocabulary.of(SENTENCES).decode(np.asarray(tokens) + 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "letters"}, "split: expected one of"),
        ({"special": ("", "?", "<s>", "<s>")}, "special: expected four different strings"),
        ({"special": ("", "?", "<s>")}, "special: expected four different strings"),
        ({"words": ["", "[UNK]", "[START]", "a"]}, r"words: expected none or all .* got no \['\[END\]'\]"),
        ({"words": ["[UNK]", "[START]", "[END]", "a"]}, r"words: expected none or all .* got no \[''\]"),
        ({"words": ["", "[UNK]", "[START]", "[END]"]}, "words: expected one or more"),
    ],
    ids=str,
)
def test_wrong_special_tokens_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Vocabulary(**{"words": ["a"], **arguments})


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("abc", TypeError),
        ([1], TypeError),
        ([], ValueError),
        (["a", "a"], ValueError),
        (["[END]"], ValueError),
        ([""], ValueError),
    ],
)
def test_wrong_words_are_named(words, error):
    with pytest.raises(error, match="words"):
        Vocabulary(words)

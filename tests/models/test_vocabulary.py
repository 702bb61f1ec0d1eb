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


def test_config_survives():
    vocabulary = Vocabulary.of(SENTENCES)
    assert Vocabulary.from_config(vocabulary.get_config()).words == vocabulary.words


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

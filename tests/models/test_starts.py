"""How models of tokens start: their vectors, the bias of their readout, and every initializer that is given."""

import keras
import numpy as np
import pytest
from keras import initializers

import keras_seq
from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq, Vocabulary

WORDS = [f"w{i}" for i in range(400)]
TEXTS = ["w0 w1 w1", "w1 w2", " ".join(WORDS)]
SPACES = Vocabulary.of(TEXTS, split="spaces")


def seq2seq(vocabulary=SPACES, **kwargs):
    encoder, decoder = keras_seq.LSTM(3, return_sequences=True), keras_seq.LSTM(4, return_sequences=True)
    return Seq2Seq(vocabulary, vocabulary, encoder, decoder, **kwargs)


def captioner(vocabulary=SPACES, **kwargs):
    return ImageCaptioner(vocabulary, (8, 8, 1), keras_seq.LSTMCell(4), **kwargs)


def language_model(vocabulary=SPACES, **kwargs):
    return LanguageModel(vocabulary, keras_seq.LSTM(16, return_sequences=True), 16, **kwargs)


def tied(vocabulary=SPACES, **kwargs):
    return language_model(vocabulary, tied=True, **kwargs)


MODELS = [seq2seq, captioner, language_model, tied]


def vectors(model):
    layers = (getattr(model, name, None) for name in ("source_embedding", "target_embedding", "embedding"))
    return [layer.embeddings.numpy() for layer in layers if layer is not None]


def bias(model):
    return (model.bias if getattr(model, "tied", False) else model.readout.bias).numpy()


@pytest.mark.parametrize("make", MODELS)
def test_vectors_are_of_the_size_that_learns(make):
    deviation = 0.5 if make is tied else 1.0
    found = vectors(make())
    for values in found:
        assert np.std(values) == pytest.approx(deviation, rel=0.03)
        assert abs(np.mean(values)) < 0.05 * deviation
    if make is seq2seq:  # of one initializer, drawn apart
        assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("make", MODELS)
def test_the_readout_starts_with_the_frequencies(make):
    # padding, unknown, START and END, w1, w0, w2, then each once
    counts = [0, 0, 0, 3, 4, 2, 2, *[1] * 397]
    assert SPACES.tokens[4:7] == ["w1", "w0", "w2"]
    assert SPACES.counts == counts
    shares = np.exp(bias(make()))
    np.testing.assert_allclose(shares, (np.array(counts) + 1) / (np.sum(counts) + len(counts)), rtol=1e-5)
    np.testing.assert_array_equal(bias(make(Vocabulary(WORDS, "spaces"))), 0)


@pytest.mark.parametrize("make", MODELS)
def test_given_initializers_are_used_and_survive(make):
    given = {"embeddings_initializer": initializers.RandomUniform(0.5, 0.75), "kernel_initializer": "zeros"}
    for model in (made := make(**given), type(made).from_config(made.get_config())):
        for values in vectors(model):
            assert 0.5 <= values.min() < 0.51 < 0.74 < values.max() <= 0.75
        dense = [*getattr(model, "bridges", ()), *([] if make is tied else [model.readout])]
        assert all(np.all(layer.kernel.numpy() == 0) for layer in dense)
        assert isinstance(model.kernel_initializer, initializers.Zeros)
    assert type(made).from_config(made.get_config()).get_config() == made.get_config()


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("name", ["embeddings_initializer", "kernel_initializer"])
@pytest.mark.parametrize("wrong", ["he_norml", 3, keras.layers.Dense], ids=str)
def test_what_is_no_initializer_is_refused_by_name(make, name, wrong):
    with pytest.raises(ValueError, match=f"{name}: expected a name or an object of keras.initializers, got"):
        make(**{name: wrong})


def test_configs_of_before_make_models():
    """Those without the newer arguments, and vocabularies without counts."""
    config = language_model().get_config()
    for name in ("embeddings_initializer", "kernel_initializer"):
        del config[name]
    del config["vocabulary"]["config"]["counts"]
    model = LanguageModel.from_config(config)
    assert np.std(vectors(model)[0]) > 0.9
    np.testing.assert_array_equal(bias(model), 0)


def test_vocabularies_count():
    with pytest.warns(UserWarning, match="2 of 4 words left out"):
        vocabulary = Vocabulary.of(iter(["a a b", "a c d", "b"]), max_words=2, split="spaces")
    assert vocabulary.tokens == ["", "[UNK]", "[START]", "[END]", "a", "b"]
    assert vocabulary.counts == [0, 2, 0, 3, 3, 2]  # what is left out is unknown; each text ends
    own = Vocabulary.of(["<s> a </s>", "<p> <u> b b"], split="spaces", special=("<p>", "<u>", "<s>", "</s>"))
    assert dict(zip(own.tokens, own.counts, strict=True)) == {"b": 2, "<s>": 1, "</s>": 3, "<p>": 1, "<u>": 1, "a": 1}
    assert Vocabulary.from_config(own.get_config()).counts == own.counts
    assert Vocabulary(["a"]).counts is None


@pytest.mark.parametrize(
    ("counts", "error"),
    [
        ("12345", TypeError),
        ([1.0] * 5, TypeError),
        ([True] * 5, TypeError),
        ([1] * 4, ValueError),
        ([-1] * 5, ValueError),
    ],
    ids=str,
)
def test_wrong_counts_are_named(counts, error):
    with pytest.raises(error, match="counts: expected a"):
        Vocabulary(["a"], counts=counts)

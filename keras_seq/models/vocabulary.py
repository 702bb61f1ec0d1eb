"""Words and their numbers, saved with the model that uses them."""

import collections
import warnings

import keras
import tensorflow as tf

PAD, UNKNOWN, START, END = range(4)
_SPECIAL = ["", "[UNK]", "[START]", "[END]"]


def words_of(sentences):
    """The words of each sentence, ragged: lower case, without punctuation, split at white space."""
    plain = tf.strings.regex_replace(tf.strings.lower(sentences, encoding="utf-8"), r"[[:punct:]]", "")
    return tf.strings.split(plain)


@keras.saving.register_keras_serializable(package="keras_seq")
class Vocabulary(keras.layers.Layer):
    """Sentences to tokens and back.

    Tokens: 0 is PAD, 1 stands for every word outside the vocabulary, 2 is START, 3 END, then the words in the order given.
    Words are in lower case and without punctuation. TensorFlow runs it, whatever the Keras backend: in `tf.data`, eagerly
    and in a SavedModel.

    Args:
        words: list of the words, without the four special tokens.
        **kwargs: `name`.

    Raises:
        TypeError: words that are not a list of strings.
        ValueError: no words, empty ones or the same one twice.

    Example:

    ```python
    from keras_seq.models import Vocabulary
    vocabulary = Vocabulary.of(["a red square", "a blue circle"])
    tokens = vocabulary.encode(["A red circle."])       # [[2 4 7 6 3]], with START and END
    sentences = vocabulary.decode(tokens)               # [b'a red circle']
    ```
    """

    def __init__(self, words, **kwargs):
        super().__init__(**kwargs)
        if isinstance(words, str) or not all(isinstance(w, str) for w in words):
            raise TypeError(f"words: expected a list of strings, got {words!r:.80}")
        words = list(words)
        if not words or len(set(words) - set(_SPECIAL)) < len(words):
            raise ValueError(
                f"words: expected one or more, each once, none empty or of {_SPECIAL[1:]}, got {words!r:.80}"
            )
        self.words = words
        shared = {"vocabulary": _SPECIAL[2:] + words, "oov_token": _SPECIAL[1], "mask_token": _SPECIAL[0]}
        self.to_token = keras.layers.StringLookup(**shared)
        self.to_word = keras.layers.StringLookup(**shared, invert=True)
        # strings do not compile under XLA, but they do not pass through a model's step: it takes tokens
        self.to_token.supports_jit = self.to_word.supports_jit = True
        self.built = True

    @classmethod
    def of(cls, sentences, max_words=None):
        """The vocabulary of these sentences, the most frequent words first (ties in the order of the alphabet).

        With `max_words` the rarest are left out; a warning counts them.
        """
        counts = collections.Counter(w.decode() for w in words_of(list(sentences)).flat_values.numpy())
        words = sorted(counts, key=lambda w: (-counts[w], w))
        rare = words[max_words:] if max_words else []
        if rare:
            warnings.warn(
                f"vocabulary: {len(rare)} of {len(words)} words left out, at {sum(counts[w] for w in rare)} of "
                f"{sum(counts.values())} places, the first {rare[0]!r}",
                stacklevel=2,
            )
        return cls(words[: len(words) - len(rare)])

    def __len__(self):
        return len(_SPECIAL) + len(self.words)

    def plain(self, sentences):
        """The sentences as the vocabulary reads them: its standard spelling, a list of strings."""
        return [b" ".join(words).decode() for words in words_of(list(sentences)).to_list()]

    def encode(self, sentences, start=True, end=True):
        """int32 tokens (b, longest) of strings (b,), padded with PAD on the right.

        Run eagerly, it counts the words outside the vocabulary in a warning.
        """
        tokens = tf.cast(self.to_token(words_of(sentences)), tf.int32)
        if tf.executing_eagerly():
            unknown = int(tf.reduce_sum(tf.cast(tokens.flat_values == UNKNOWN, tf.int32)))
            if unknown:
                warnings.warn(f"sentences: {unknown} words are not in the vocabulary and become [UNK]", stacklevel=2)
        edge = tf.ones_like(tokens[:, :1].to_tensor(shape=(None, 1)), tf.int32)
        tokens = tf.concat([edge * START] * start + [tokens] + [edge * END] * end, axis=1)
        return tokens.to_tensor(PAD) if isinstance(tokens, tf.RaggedTensor) else tokens

    def decode(self, tokens):
        """Strings (b,) of tokens (b, t): the words before the first END, without START and PAD."""
        tokens = tf.cast(tokens, tf.int64)
        ended = tf.cumsum(tf.cast(tokens == END, tf.int32), axis=1) > 0
        shown = tf.where(ended | (tokens == START), tf.cast(PAD, tf.int64), tokens)
        joined = tf.strings.reduce_join(self.to_word(shown), axis=1, separator=" ")
        return tf.strings.strip(tf.strings.regex_replace(joined, " +", " "))

    def call(self, sentences):
        return self.encode(sentences)

    def get_config(self):
        return {**super().get_config(), "words": self.words}

"""Words or characters and their numbers, saved with the model that uses them."""

from __future__ import annotations

import collections
import itertools
import numbers
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_seq.arguments import one_of, positive_integer, tensor
from keras_seq.decoding.tokens import checked
from keras_seq.typing import Config, Tensor

PAD, UNKNOWN, START, END = range(4)
SPECIAL = ("", "[UNK]", "[START]", "[END]")
SPLITS = ("words", "spaces", "characters")


def split_text(texts, split="words"):
    """The parts of each string, ragged: see `Vocabulary`."""
    if split == "characters":
        return tf.strings.unicode_split(texts, "UTF-8")
    if split == "words":
        texts = tf.strings.regex_replace(tf.strings.lower(texts, encoding="utf-8"), r"[[:punct:]]", "")
    return tf.strings.split(texts)


def _counts(given: Sequence[int], size: int) -> list[int]:
    if not isinstance(given, (list, tuple)) or any(
        isinstance(n, bool) or not isinstance(n, numbers.Integral) for n in given
    ):
        raise TypeError(
            f"counts: expected a list of whole numbers, one for each of the {size} tokens, got {given!r:.80}"
        )
    if len(given) != size or min(given) < 0:
        raise ValueError(f"counts: expected a number of at least 0 for each of the {size} tokens, got {given!r:.80}")
    return [int(n) for n in given]


def strings(name: str, texts: Any, count: int | None = None, each: str = "row") -> Any:
    """The texts as a tensor of strings (b,); an error that names the argument if they are none, or not `count`, one for `each`.

    One rule for all that takes texts: a list of strings, or an array or a tensor of them. One text alone is a list of one.
    """
    texts = _strings(name, texts)
    if None not in (count, texts.shape[0]) and texts.shape[0] != count:
        raise ValueError(f"{name}: expected {count}, one for each {each}, got {texts.shape[0]}")
    return texts


def _strings(name, texts):
    expected = f"{name}: expected a list of strings, got"
    if tf.is_tensor(texts):
        if texts.dtype != tf.string or texts.shape.rank not in (1, None):
            raise TypeError(f"{expected} {texts.dtype.name} of shape {texts.shape}")
        return texts
    if isinstance(texts, (str, bytes, dict)) or not hasattr(texts, "__iter__"):
        raise TypeError(f"{expected} {texts!r:.80}")
    texts = list(texts)
    wrong = [text for text in texts if not isinstance(text, (str, bytes))]
    if wrong:
        raise TypeError(f"{expected} one with {wrong[0]!r:.80}")
    if not texts:
        raise ValueError(f"{name}: expected at least one string, got none")
    return tf.constant(texts)


def _unused(words, character):
    """The shortest row of this character that is none of the words."""
    return next(row for n in itertools.count(1) if (row := character * n) not in words)


@keras.saving.register_keras_serializable(package="keras_seq")
class Vocabulary(keras.layers.Layer):
    """Text to tokens and back.

    Tokens: 0 is padding, 1 stands for what is not in the vocabulary, 2 is the start, 3 the end of a text, then the words in
    the order given; the attributes `pad`, `unknown`, `start` and `end` say so. A list that has its own special tokens,
    such as one from elsewhere, keeps its order instead. TensorFlow runs it, whatever the Keras backend: in `tf.data`,
    eagerly and in a SavedModel.

    Args:
        words: list of the words, without the four special tokens or with all of them.
        split: what a word is: "words", in lower case and without punctuation, between white space; "spaces", whatever
            stands between white space; "characters", each character of the text as it is.
        special: how the tokens for padding, unknown, start and end are written, where they are.
        counts: how often each token, in their order and the special ones among them, is asked for in the texts, END once
            in each; the readout of a new model starts with these frequencies. `of` counts; None where they are not known.
        **kwargs: `name`.

    Raises:
        TypeError: words that are not a list of strings; counts that are no whole numbers.
        ValueError: no words, empty ones or the same one twice; some of the special tokens among them but not all, or two of
            them equal; an unknown split; counts below 0, or not one for each token; tokens to decode that are none of the
            vocabulary, where their values are known.

    Example:

    ```python
    from keras_seq.models import Vocabulary
    vocabulary = Vocabulary.of(["a red square", "a blue circle"])
    tokens = vocabulary.encode(["A red circle."])       # [[2 4 7 6 3]], with START and END
    sentences = vocabulary.decode(tokens)               # [b'a red circle']
    ```
    """

    def __init__(
        self,
        words: Sequence[str],
        split: str = "words",
        special: Sequence[str] = SPECIAL,
        counts: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(words, (list, tuple)) or not all(isinstance(w, str) for w in words):
            raise TypeError(f"words: expected a list of strings, got {words!r:.80}")
        one_of("split", split, SPLITS)
        special = tuple(special) if isinstance(special, (list, tuple)) else ()
        if len(special) != 4 or len(set(special)) != 4 or not all(isinstance(s, str) for s in special):
            raise ValueError(
                f"special: expected four different strings, for padding, unknown, start and end, got {special!r}"
            )
        self.words, self.split, self.special = list(words), split, special
        within = set(special) & set(self.words)
        if within and len(within) < 4:
            missing = [s for s in special if s not in within]
            raise ValueError(f"words: expected none or all of the special tokens {special}, got no {missing}")
        self.tokens = self.words if within else [*special, *self.words]
        if len(self.tokens) == 4 or len(set(self.tokens)) < len(self.tokens) or "" in set(self.words) - set(special):
            raise ValueError(f"words: expected one or more, each once and none empty, got {words!r:.80}")
        self.counts = None if counts is None else _counts(counts, len(self.tokens))
        self.pad, self.unknown, self.start, self.end = map(self.tokens.index, special)
        # numbers from 1 on; 0 is what it does not know. The lookup takes no empty string, and none of the words twice.
        empty, outside = (_unused(self.tokens, character) for character in "\1\2")
        self.lookup = keras.layers.StringLookup(vocabulary=[t or empty for t in self.tokens], oov_token=outside)
        # strings do not compile under XLA, but they do not pass through a model's step: it takes tokens
        self.lookup.supports_jit = True
        self.built = True

    @classmethod
    def of(
        cls, texts: Iterable[str], max_words: int | None = None, split: str = "words", special: Sequence[str] = SPECIAL
    ) -> Vocabulary:
        """The vocabulary of these texts, the most frequent words first (ties in the order of the alphabet).

        Args:
            texts: list of strings.
            max_words: positive integer: the rarest beyond so many are left out; a warning counts them. None for all.
            split, special: as in the constructor.

        Raises:
            TypeError, ValueError: texts that are no list of strings, or have no words; a max_words that is no positive
                integer.
        """
        given = strings("texts", texts)
        if max_words is not None:
            max_words = positive_integer("max_words", max_words)
        found = split_text(given, one_of("split", split, SPLITS)).flat_values.numpy().tolist()
        if not found:
            raise ValueError(f"texts: expected at least one word in them, got none in {len(given)} texts")
        counts = collections.Counter(word.decode() for word in found)
        words = sorted(counts, key=lambda w: (-counts[w], w))
        rare = words[max_words:] if max_words else []
        if rare:
            warnings.warn(
                f"vocabulary: {len(rare)} of {len(words)} words left out, at {sum(counts[w] for w in rare)} of "
                f"{sum(counts.values())} places, the first {rare[0]!r}",
                stacklevel=2,
            )
        made = cls(words[: len(words) - len(rare)], split=split, special=special)
        counts.update({made.tokens[made.unknown]: sum(counts[w] for w in rare), made.tokens[made.end]: len(given)})
        made.counts = [counts[token] for token in made.tokens]
        return made

    def __len__(self):
        return len(self.tokens)

    @property
    def separator(self) -> str:
        return "" if self.split == "characters" else " "

    def plain(self, texts: Sequence[str]) -> Any:
        """The texts as the vocabulary reads them: its standard spelling, a list of strings."""
        words = split_text(strings("texts", texts), self.split).to_list()
        return [self.separator.encode().join(row).decode() for row in words]

    def encode(self, texts: Any, start: bool = True, end: bool = True) -> Tensor:
        """int32 tokens (b, longest) of strings (b,), padded on the right.

        Run eagerly, it counts what is outside the vocabulary in a warning.

        Raises:
            TypeError, ValueError: texts that are no list of strings, nor an array or a tensor of them.
        """
        found = tf.cast(self.lookup(split_text(strings("texts", texts), self.split)), tf.int32)
        known = found.flat_values > 0
        tokens = found.with_flat_values(tf.where(known, found.flat_values - 1, self.unknown))
        if tf.executing_eagerly():
            unknown = int(tf.reduce_sum(tf.cast(~known, tf.int32)))
            if unknown:
                what = "characters" if self.split == "characters" else "words"
                warnings.warn(
                    f"sentences: {unknown} {what} are not in the vocabulary and become {self.special[1]}", stacklevel=2
                )
        edge = tf.ones_like(tokens[:, :1].to_tensor(shape=(None, 1)), tf.int32)
        tokens = tf.concat([edge * self.start] * start + [tokens] + [edge * self.end] * end, axis=1)
        return tokens.to_tensor(self.pad) if isinstance(tokens, tf.RaggedTensor) else tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """Strings (b,) of integer tokens (b, t): the words before the first end, without start and padding."""
        tokens = tensor("tokens", tokens, "integers")
        if tokens.shape.rank not in (2, None):
            raise ValueError(f"tokens: expected shape (b, t), got {tuple(tokens.shape)}")
        tokens = tf.cast(self.check("tokens", tokens)[0], tf.int32)
        ended = tf.cumsum(tf.cast(tokens == self.end, tf.int32), axis=1) > 0
        hidden = ended | (tokens == self.start) | (tokens == self.pad)
        words = tf.where(hidden, "", tf.gather(tf.constant(self.tokens), tokens))
        if self.split == "characters":
            return tf.strings.reduce_join(words, axis=1)
        joined = tf.strings.reduce_join(words, axis=1, separator=" ")
        return tf.strings.strip(tf.strings.regex_replace(joined, " +", " "))

    def check(self, name: str, tokens: Tensor) -> Any:
        """`(tokens, wrong)`: an error for tokens that are none of the vocabulary, where one can be raised.

        That is a ValueError where their values are known, a failed assertion (`InvalidArgumentError`) when a graph runs, both
        with what was expected and what came. Under XLA, which drops assertions, the `wrong` ones, booleans like the tokens,
        become padding, and the caller makes NaN of what comes of them. Elsewhere `wrong` is None.
        """
        if isinstance(tokens, keras.KerasTensor):
            return tokens, None
        tokens, wrong = checked(name, tokens, len(self))
        return tokens if wrong is None else ops.where(wrong, self.pad, tokens), wrong

    def call(self, texts: Any) -> Tensor:
        return self.encode(texts)

    def get_config(self) -> Config:
        config = {"words": self.words, "split": self.split, "special": list(self.special), "counts": self.counts}
        return {**super().get_config(), **config}

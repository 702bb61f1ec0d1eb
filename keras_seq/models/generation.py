"""How models write: begin, then one token after the other, by any decoder."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from keras_seq.arguments import described, needs_tensorflow, one_of, positive_integer
from keras_seq.decoding import beam, beam_search, greedy, sample, sampling
from keras_seq.decoding.random import key_of
from keras_seq.decoding.tokens import DecodingConstraints, number
from keras_seq.engine import dropped
from keras_seq.models.vocabulary import strings
from keras_seq.typing import Config, Tensor

DECODERS = {"greedy": greedy, "sample": sample, "beam": beam_search}
NUMBERS = {**sampling.NUMBERS, **beam.NUMBERS}
LIMITS = ("end", "pad", "max_length", "max_lengths", "min_length")
FIXED = ("width", "n_best", "top_k", "no_repeat", "max_length", "end", "pad")
"""Options that a program is compiled for; the others it is given as tensors."""
PROGRAMS = 32
"""So many compiled programs a model keeps, those used last."""

_lock = threading.Lock()  # held while a model's random numbers are asked for the next


class TextGenerator:
    """A model that writes tokens of its `vocabulary`, at most `max_length` of them.

    A subclass says how:

        begin(inputs, batch) -> state, constants        nests of tensors, rows first
        next_token(tokens (rows,), state, constants) -> logits (rows, v), state

    `constants` are what does not change while it writes. Every argument of its constructor is an attribute, and
    `seed_generator` has the random numbers of dropout, and those of `sample` without a seed.
    """

    def get_config(self) -> Config:
        config = {**super().get_config(), **described(self)}
        schedule = keras.optimizers.schedules.LearningRateSchedule
        return {k: keras.saving.serialize_keras_object(v) if isinstance(v, schedule) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(
            **{
                k: keras.saving.deserialize_keras_object(v) if isinstance(v, dict) and "class_name" in v else v
                for k, v in config.items()
            }
        )

    @property
    def writable(self) -> np.ndarray:
        """Booleans (v,): the tokens that may be written, all but padding and the start token."""
        words = np.arange(len(self.vocabulary))
        return (words != self.vocabulary.pad) & (words != self.vocabulary.start)

    def check_inputs(self, inputs: Tensor) -> None:
        """A ValueError for what `begin` cannot take, where it is known."""

    def generate_tokens(
        self, inputs: Any, prompt: Tensor | None = None, decoder: str = "greedy", **options: Any
    ) -> Any:
        """Tokens, int32, by a decoder of `keras_seq.decoding`; in a graph or eagerly.

        Args:
            inputs: what the model writes from, as `begin` takes it.
            prompt: tokens (b, p) that each row starts with, padded on the right, the first one the start token, as
                `vocabulary.encode(texts, end=False)` gives them; None for the start token alone.
            decoder: "greedy", "sample" or "beam".
            **options: of that decoder, such as `temperature`, `width`, `max_length`; `allowed` by default is `writable`, and
                `seed` the model's own random numbers. With a seed these are neither read nor changed.

        Returns:
            What the decoder returns: tokens (b, max_length), or for "beam" `(tokens (b, n_best, max_length), scores)`.

        Raises:
            ValueError: an unknown decoder; what the decoder refuses.
        """
        check_options(decoder, options)
        decode = DECODERS[decoder]
        if prompt is None:
            prompt = self._starts(inputs)
        self.vocabulary.check("prompt", prompt)
        state, constants = self.begin(inputs, ops.shape(prompt)[0])
        settings = {
            "end": self.vocabulary.end,
            "pad": self.vocabulary.pad,
            "max_length": self.max_length,
            "allowed": self.writable,
        }
        if decoder == "sample" and options.get("seed") is None:
            options = {**options, "seed": self.seed_generator}
        if decoder == "beam":
            settings["width"] = 5
        settings.update(options)
        if decoder == "beam":
            width = positive_integer("width", settings["width"])
            constants = tree.map_structure(lambda x: ops.repeat(x, width, axis=0), constants)
        return decode(lambda tokens, s: self.next_token(tokens, s, constants), state, prompt, **settings)

    def compiled_tokens(
        self, inputs: Any, prompt: Tensor | None = None, decoder: str = "greedy", **options: Any
    ) -> Any:
        """`generate_tokens`, compiled under XLA: once for all values of options but those in `FIXED`, and functions."""
        needs_tensorflow(f"{type(self).__name__}.generate")
        check_options(decoder, options)
        self.check_inputs(inputs)
        if prompt is None:
            prompt = self._starts(inputs)
        self.vocabulary.check("prompt", prompt)
        fixed, given = self._apart(decoder, prompt, options)
        return self._compiled(self.generate_tokens, {"decoder": decoder, **fixed}, given)(inputs, prompt)

    def _starts(self, inputs):
        return ops.full((_rows(inputs), 1), self.vocabulary.start, dtype="int32")

    def _apart(self, decoder, prompt, options):
        """`(options that a program is compiled for, options that it is given)`, the latter checked, as tensors."""
        limits = {"end": self.vocabulary.end, "pad": self.vocabulary.pad, "max_length": self.max_length}
        DecodingConstraints(prompt, **{**limits, **{n: options[n] for n in LIMITS if n in options}})
        fixed, given = {}, {}
        for name, value in options.items():
            if name == "seed" and decoder == "sample":
                continue
            if name in FIXED or value is None or callable(value):
                fixed[name] = value.item() if isinstance(value, np.generic) else value
                continue
            if name in NUMBERS:
                value = number(name, value, *NUMBERS[name])
                if name == "coverage_penalty" and value == 0:
                    continue
            value = tf.convert_to_tensor(value)
            given[name] = tf.cast(value, tf.int32) if value.dtype.is_integer else value
        if decoder == "sample":
            given["seed"] = self._key(options.get("seed"))
        return fixed, given

    def _key(self, seed):
        """What random numbers are drawn from, (2,): of a seed, or by the model's own generator."""
        with _lock:
            return key_of(self.seed_generator if seed is None else seed)

    def _compiled(self, function, fixed, given):
        """`function(.., **fixed, **given)`, compiled under XLA; the `PROGRAMS` used last are kept, in memory only."""
        program = self._programs(function, tuple(sorted(fixed.items(), key=lambda item: item[0])), tuple(sorted(given)))
        return functools.partial(program, given)

    @property
    def _programs(self):
        if "_kept_programs" not in self.__dict__:
            self.__dict__.setdefault("_kept_programs", functools.lru_cache(PROGRAMS)(_program))
        return self.__dict__["_kept_programs"]

    def generate_strings(
        self, inputs: Any, prompts: Sequence[str] | None, decoder: str, options: dict[str, Any]
    ) -> list[Any]:
        """Strings that begin with these prompts, one for each row, or None; of a beam with `n_best` above 1, lists of them."""
        rows = _rows(inputs)
        begun = strings("prompts", [""] * rows if prompts is None else prompts, rows)
        return self.compiled_texts(inputs, self.vocabulary.encode(begun, end=False), decoder, options)

    def compiled_texts(self, inputs: Any, prompt: Tensor, decoder: str, options: dict[str, Any]) -> list[Any]:
        """The strings of `compiled_tokens`; of a beam with `n_best` above 1, lists of them."""
        found = self.compiled_tokens(inputs, prompt, decoder, **options)
        if decoder == "beam":
            found = found[0] if options.get("n_best", 1) > 1 else found[0][:, 0]
        return self.texts(found)

    def dropped(self, x: Tensor, training: Any) -> Tensor:
        """`x` with a share `dropout` of its elements dropped in training; fast under XLA, where Keras's layer is not."""
        return dropped(x, self.dropout, self.seed_generator) if training and self.dropout else x

    def texts(self, tokens: Tensor) -> list[Any]:
        """Strings of tokens (b, t), or of the n best (b, n, t): a list of b strings, or of b lists of n."""
        if len(tokens.shape) == 3:
            return [self.texts(row) for row in tokens]
        return [s.decode() for s in self.vocabulary.decode(tokens).numpy()]


def check_options(decoder, options):
    """A ValueError for no decoder, a TypeError that names an option which that decoder does not have."""
    one_of("decoder", decoder, DECODERS)
    parameters = inspect.signature(DECODERS[decoder]).parameters.values()
    refuse_options(decoder, options, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY])


def refuse_options(decoder, options, known):
    """A TypeError that names the first of the options which the decoder does not know."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"{unknown[0]}: unknown option of {decoder!r}; expected some of {list(known)}")


def _program(function, fixed, given):
    """A function of a dict of what is given, the names of which are known, and of what else is read."""

    def program(given, *inputs):
        return function(*inputs, **dict(fixed), **given)

    return tf.function(program, autograph=False, jit_compile=True, reduce_retracing=True)


def _rows(inputs):
    return ops.shape(tree.flatten(inputs)[0])[0]

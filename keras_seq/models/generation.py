"""How models write: begin, then one token after the other, by any decoder."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from keras_seq.cells.arguments import described, positive_integer
from keras_seq.cells.floats import long_type
from keras_seq.decoding import beam_search, greedy, sample
from keras_seq.engine import dropped

DECODERS = {"greedy": greedy, "sample": sample, "beam": beam_search}


@keras.saving.register_keras_serializable(package="keras_seq")
class TokenCrossEntropy(keras.losses.SparseCategoricalCrossentropy):
    """The cross-entropy per token (nats), in float32 at least.

    Keras casts targets to the type of the loss, by default that of `keras.config.floatx()`: in bfloat16 token 257 is 256.
    """

    def __init__(self, dtype=None, **kwargs):
        super().__init__(dtype=dtype or long_type(keras.config.floatx()), **kwargs)


class Writer:
    """A model that writes tokens of its `vocabulary`, at most `max_length` of them.

    A subclass says how:

        begin(inputs, batch) -> state, constants        nests of tensors, rows first
        next_token(tokens (rows,), state, constants) -> logits (rows, v), state

    `constants` are what does not change while it writes. Every argument of its constructor is an attribute, and
    `seed_generator` has the random numbers of dropout and of `sample`.
    """

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As any Keras model's; the default loss is the cross-entropy per token (nats), padding left out."""
        if loss is None:
            loss = TokenCrossEntropy(from_logits=True, ignore_class=self.vocabulary.pad, name="cross_entropy")
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def get_config(self):
        config = {**super().get_config(), **described(self)}
        schedule = keras.optimizers.schedules.LearningRateSchedule
        return {k: keras.saving.serialize_keras_object(v) if isinstance(v, schedule) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config):
        return cls(
            **{
                k: keras.saving.deserialize_keras_object(v) if isinstance(v, dict) and "class_name" in v else v
                for k, v in config.items()
            }
        )

    def generate_tokens(self, inputs, prompt=None, decoder="greedy", **options):
        """Tokens, int32, by a decoder of `keras_seq.decoding`; in a graph or eagerly.

        Args:
            inputs: what the model writes from, as `begin` takes it.
            prompt: tokens (b, p) that each row starts with, padded on the right, the first one the start token, as
                `vocabulary.encode(texts, end=False)` gives them; None for the start token alone.
            decoder: "greedy", "sample" or "beam".
            **options: of that decoder, such as `temperature`, `width`, `max_length`; `allowed` by default forbids padding
                and the start token.

        Returns:
            What the decoder returns: tokens (b, max_length), or for "beam" `(tokens (b, n_best, max_length), scores)`.

        Raises:
            ValueError: an unknown decoder; what the decoder refuses.
        """
        decode = DECODERS.get(decoder)
        if decode is None:
            raise ValueError(f"decoder: expected one of {list(DECODERS)}, got {decoder!r}")
        batch = _rows(inputs if prompt is None else prompt)
        if prompt is None:
            prompt = ops.full((batch, 1), self.vocabulary.start, dtype="int32")
        self.vocabulary.check("prompt", prompt)
        state, constants = self.begin(inputs, batch)
        words = ops.arange(len(self.vocabulary), dtype="int32")
        settings = {
            "end": self.vocabulary.end,
            "pad": self.vocabulary.pad,
            "max_length": self.max_length,
            "allowed": ops.logical_and(words != self.vocabulary.pad, words != self.vocabulary.start),
        }
        if decoder == "sample":
            settings["seed"] = self.seed_generator
        if decoder == "beam":
            settings["width"] = 5
        settings.update(options)
        if decoder == "beam":
            width = positive_integer("width", settings["width"])
            constants = tree.map_structure(lambda x: ops.repeat(x, width, axis=0), constants)
        return decode(lambda tokens, s: self.next_token(tokens, s, constants), state, prompt, **settings)

    def compiled_tokens(self, inputs, prompt=None, decoder="greedy", **options):
        """`generate_tokens`, compiled under XLA: once for each decoder and its options that are no arrays, seeds aside."""
        seed = options.pop("seed", None) if decoder == "sample" else None
        if seed is not None:
            random = self.seed_generator.state
            before = random.numpy()
            random.assign([seed, 0])
            try:
                return self.compiled_tokens(inputs, prompt, decoder, **options)
            finally:
                random.assign(before)
        options = {n: v.item() if isinstance(v, np.generic) else v for n, v in options.items()}
        plain = {n: v for n, v in options.items() if v is None or isinstance(v, (bool, int, float)) or callable(v)}
        tensors = {n: tf.convert_to_tensor(v) for n, v in options.items() if n not in plain}
        key = (decoder, *sorted(plain.items(), key=lambda item: item[0]))
        if key not in self._compiled:

            def tokens(inputs, prompt, tensors):
                return self.generate_tokens(inputs, prompt, decoder, **plain, **tensors)

            self._compiled[key] = tf.function(tokens, autograph=False, jit_compile=True, reduce_retracing=True)
        return self._compiled[key](inputs, prompt, tensors)

    def written(self, inputs, prompts, decoder, options):
        """Strings that begin with these prompts, one for each row; of a beam with `n_best` above 1, lists of them."""
        rows = _rows(inputs)
        if len(prompts) != rows:
            raise ValueError(f"prompts: expected {rows}, one for each row, got {len(prompts)}")
        return self.compiled_texts(inputs, self.vocabulary.encode(prompts, end=False), decoder, options)

    def compiled_texts(self, inputs, prompt, decoder, options):
        """The strings of `compiled_tokens`; of a beam with `n_best` above 1, lists of them."""
        found = self.compiled_tokens(inputs, prompt, decoder, **options)
        if decoder == "beam":
            found = found[0] if options.get("n_best", 1) > 1 else found[0][:, 0]
        return self.texts(found)

    @property
    def _compiled(self):
        """Compiled functions by what they were compiled for; made when first asked for, never saved."""
        return self.__dict__.setdefault("_compiled_functions", {})

    def dropped(self, x, training):
        """`x` with a share `dropout` of its elements dropped in training; fast under XLA, where Keras's layer is not."""
        return dropped(x, self.dropout, self.seed_generator) if training and self.dropout else x

    def texts(self, tokens):
        """Strings of tokens (b, t), or of the n best (b, n, t): a list of b strings, or of b lists of n."""
        if len(tokens.shape) == 3:
            return [self.texts(row) for row in tokens]
        return [s.decode() for s in self.vocabulary.decode(tokens).numpy()]


def _rows(inputs):
    return ops.shape(tree.flatten(inputs)[0])[0]

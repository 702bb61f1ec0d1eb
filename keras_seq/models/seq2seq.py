"""From one sequence of tokens to another: an encoder, a bridge, and a decoder that may read what was encoded."""

from __future__ import annotations

import itertools
import numbers
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq.arguments import needs_tensorflow, one_of, positive_integer, rate
from keras_seq.cells import AttentionCell, GRUCell
from keras_seq.decoding.random import key_of, uniform
from keras_seq.decoding.sampling import drawing
from keras_seq.decoding.tokens import only, undefined
from keras_seq.engine import capture_every
from keras_seq.layers import GRU, RNN, Bidirectional
from keras_seq.layers.sublayers import (
    build_part,
    call_with_states,
    check_part,
    check_reads_no_constants,
    has_flag,
    mask_after,
    reads_constants,
)
from keras_seq.masking import last_real
from keras_seq.models.endpoints import FILES, Endpoint, one_token, write
from keras_seq.models.generation import TextGenerator
from keras_seq.models.starts import Starts
from keras_seq.models.training import TokenTraining, as_pair
from keras_seq.models.vocabulary import Vocabulary, strings
from keras_seq.typing import Initializer, Tensor

Schedule = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="keras_seq")
class Seq2Seq(Starts, TextGenerator, TokenTraining, keras.Model):
    """A sequence of one vocabulary translated into one of another (Sutskever et al. 2014; Cho et al. 2014).

        m_1 .. m_s, s = encoder(E_x x_1 .. x_s);   s_0 = tanh(s W + b)  (the bridge, one for each state of the decoder)
        h_t, s_t = decoder(E_y y_{t-1}, s_{t-1}; m_1 .. m_s),   P(y_t) = softmax(h_t V + b),   y_0 = START

    With attention the decoder is a layer whose cell is an `AttentionCell`, or a stack with one or several; it then reads the
    outputs m of the encoder, padding masked. (Of several the mean counts as what was read.) Without, the states alone carry
    the source over. It is a Keras model of `(source tokens (b, s), target tokens (b, t))` to logits (b, t, v), trained with
    teacher forcing: inputs START y_1 .. y_n, targets y_1 .. y_n END.

        model.compile("adam")
        model.fit(dataset.batch(64).map(model.example))     # of pairs of strings

    Scheduled sampling (Bengio et al. 2015): with `teacher_forcing` e below 1, at each place of a training batch the decoder
    is fed the true token with probability e, else one drawn from what it said itself, as `generate` samples: never padding
    or START. The tokens are chosen in a first pass, without dropout, inside the compiled training step; the gradient is that
    of the second pass, on these tokens. No gradient goes through the choice, as in the paper. Where END is drawn before the
    true text has ended, the row goes on after it.

    Where it starts (docs/learning.md): vectors of tokens from N(0, 1) and a readout that says how frequent each word is. Of a
    made-up language of 2,200 words, three epochs over 1,200 pairs of sentences bring 4.6 nats for each held-out word; from
    Keras's starts 5.7, the frequencies alone 5.6. Recipe: Adam from 2e-3, falling as a cosine, `global_clipnorm=1.0`.

    Tokens that are none of their vocabulary move no weight: they are an error, in a graph when it runs; under XLA such a row
    has NaN for logits, the loss is NaN, and the step is not taken.

    Args:
        source: the `Vocabulary` that is read.
        target: the one that is written.
        encoder: a sequence layer of keras_seq with return_sequences=True, default `Bidirectional(GRU(64))`.
        decoder: a sequence layer of keras_seq that can be run by steps, with return_sequences=True; default
            `RNN(AttentionCell(GRUCell(64), output_units=64))`.
        embedding_size: width of the vectors of tokens, on both sides.
        dropout: share of these and of the decoder's outputs dropped in training.
        teacher_forcing: e, a number in [0, 1], or a function of the training step such as those of
            `keras.optimizers.schedules` and `InverseSigmoidDecay`.
        max_length: the most tokens that `generate` gives, END included.
        pad_to: positive integer, or a pair for source and target: token arrays are padded to multiples of it, so that not
            every batch has a shape of its own to be compiled for.
        embeddings_initializer: of the vectors of tokens; None for N(0, 1).
        kernel_initializer: of the bridges and the readout. The readout's bias starts from the vocabulary's `counts`.
        **kwargs: `name`, `dtype`: of all parts that are made here; an encoder or a decoder that is given keeps its own.

    Raises:
        TypeError, ValueError: each names the argument, what was expected and what came; tokens that are none of their
            vocabulary too, where their values are known, else `tf.errors.InvalidArgumentError`.

    Example:

    ```python
    from keras_seq.models import Seq2Seq, Vocabulary
    model = Seq2Seq(Vocabulary(["a", "b"], "characters"), Vocabulary(["A", "B"], "characters"), embedding_size=8)
    inputs, targets = model.example(["ab", "ba", "aab"], ["BA", "AB", "BAA"])    # what `fit` takes
    texts = model.generate(["abb", "b"], decoder="beam", width=3)                # two strings
    weights = model.alignment(["abb"], ["BB"])                                   # what was read: (1, 3, 4)
    ```
    """

    def __init__(
        self,
        source: Vocabulary,
        target: Vocabulary,
        encoder: keras.layers.Layer | None = None,
        decoder: keras.layers.Layer | None = None,
        embedding_size: int = 64,
        dropout: float = 0.0,
        teacher_forcing: float | Callable[[Any], Any] = 1.0,
        max_length: int = 50,
        pad_to: int = 8,
        embeddings_initializer: Initializer = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, vocabulary in (("source", source), ("target", target)):
            if not isinstance(vocabulary, Vocabulary):
                raise TypeError(f"{name}: expected a keras_seq.models.Vocabulary, got {vocabulary!r}")
        if encoder is None:
            encoder = GRU(64, return_sequences=True, dtype=self.dtype_policy)
            encoder = Bidirectional(encoder, dtype=self.dtype_policy)
        if decoder is None:
            cell = AttentionCell(GRUCell(64, dtype=self.dtype_policy), output_units=64, dtype=self.dtype_policy)
            decoder = RNN(cell, return_sequences=True, dtype=self.dtype_policy)
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            check_part(name, part)
            if not part.return_sequences:
                raise ValueError(f"{name}: expected return_sequences=True, got {part.name} without")
            for flag, reason in (("stateful", "each source begins anew"), ("unroll", "sequences are of any length")):
                if has_flag(part, flag):
                    raise ValueError(f"{name}: expected {flag}=False, as {reason}, got {part.name} with True")
        if decoder.not_stepwise:
            raise ValueError(f"decoder: expected a layer that can be run step by step; {decoder.not_stepwise}")
        if getattr(encoder, "subsampling", 1) != 1:
            raise ValueError(f"encoder: expected as many outputs as inputs, got {encoder.name}, one of several")
        check_reads_no_constants("encoder", encoder)
        if not decoder.state_size:
            raise ValueError(
                f"decoder: expected a layer with states or attention, which read the source, got {decoder.name}"
            )
        if not isinstance(teacher_forcing, Schedule):
            teacher_forcing = _share("teacher_forcing", teacher_forcing)
        self.source, self.target, self.encoder, self.decoder = source, target, encoder, decoder
        self.embedding_size = positive_integer("embedding_size", embedding_size)
        self.dropout = rate("dropout", dropout)
        self.teacher_forcing = teacher_forcing
        self.max_length = positive_integer("max_length", max_length)
        self.pad_to = pad_to
        pair = pad_to if isinstance(pad_to, (tuple, list)) else (pad_to, pad_to)
        if len(pair) != 2:
            raise ValueError(f"pad_to: expected a positive integer or two of them, got {pad_to!r}")
        self._multiples = tuple(positive_integer("pad_to", n) for n in pair)

        self.keep_initializers(embeddings_initializer, kernel_initializer)
        self.source_embedding, self.target_embedding = self.new_embedding(source), self.new_embedding(target)
        self.seed_generator = keras.random.SeedGenerator()
        self.attends = reads_constants(decoder)
        self._build_parts()

    @property
    def vocabulary(self) -> Vocabulary:
        """Of what it writes."""
        return self.target

    def _build_parts(self):
        """Build every part now, so that weights can be loaded into a model that has not run yet."""
        self.source_embedding.build((None, None))
        self.target_embedding.build((None, None))
        words = (None, None, self.embedding_size)
        build_part("encoder", self.encoder, words)
        build_part("decoder", self.decoder, words, [(None, None, self.encoder.output_width)])
        # the sizes are known when the decoder is built
        self.bridges = [self.new_dense(n, "tanh") for n in self.decoder.state_size]
        self.readout = self.new_readout(self.target)
        states = sum(self.encoder.state_size) or self.encoder.output_width
        for bridge in self.bridges:
            bridge.build((None, states))
        self.readout.build((None, None, self.decoder.output_width))
        self.training_step = self.add_weight(name="training_step", shape=(), dtype="int32", trainable=False)
        self.built = True

    # -- the model of (source, target) -----------------------------------------------------------------------------------

    def encode(self, tokens: Tensor, training: bool | None = False) -> tuple[list[Tensor], list[Tensor] | None]:
        """`(initial states of the decoder, constants)` from source tokens (b, s)."""
        tokens, wrong = self.source.check("source tokens", tokens)
        states, constants = self._encoded(tokens, training)
        return [undefined(s, wrong) for s in states], constants

    def _encoded(self, tokens, training):
        mask = ops.not_equal(tokens, self.source.pad)
        words = self.dropped(self.source_embedding(tokens), training)
        memory, states = call_with_states(self.encoder, words, mask=mask)
        mask = mask_after(self.encoder, words, mask)
        found = ops.concatenate(states, axis=-1) if states else last_real(memory, mask)
        constants = [memory, mask] if self.attends else None
        return [bridge(found) for bridge in self.bridges], constants

    def call(self, inputs: Tensor, training: bool = False) -> Any:
        source, target = inputs
        source, wrong_source = self.source.check("source tokens", source)
        target, wrong_target = self.target.check("target tokens", target)
        states, constants = self._encoded(source, training)
        if training and self.teacher_forcing != 1.0:
            target = self._mixed(target, states, constants)
        words = self.dropped(self.target_embedding(target), training)
        mask = ops.not_equal(target, self.target.pad)
        outputs, _ = call_with_states(self.decoder, words, states, mask, constants)
        logits = self.readout(self.dropped(outputs, training))
        return undefined(undefined(logits, wrong_source), wrong_target)

    def _mixed(self, target, states, constants):
        """The target tokens, some exchanged for what the decoder, fed with these, draws itself, as `generate` samples."""
        share = self.teacher_forcing
        if isinstance(share, Schedule):
            share = ops.cast(share(self.training_step.value), "float32")
            self.training_step.assign_add(1)
        shape = ops.shape(target)
        rows, places = ops.arange(shape[0], dtype="int32")[:, None], ops.arange(shape[1], dtype="int32")
        # the token at place i is drawn after step i - 1
        drawn = uniform(key_of(self.seed_generator), rows, places - 1)
        true = uniform(key_of(self.seed_generator), rows, places) < share
        draw = drawing()
        state, constants = self._started(states, constants, shape[0])

        def body(index, token, mixed, *flat):
            logits, new = self.next_token(token, keras.tree.pack_sequence_as(state, list(flat)), constants)
            found = draw(only(self.writable, logits), ops.take(drawn, index, axis=1))
            given = ops.take(target, index, axis=1)
            keep = ops.logical_or(ops.take(true, index, axis=1), given == self.target.pad)
            token = ops.where(keep, given, ops.cast(found, given.dtype))
            mixed = ops.where(ops.arange(shape[1], dtype="int32") == index, token[:, None], mixed)
            return index + 1, token, mixed, *keras.tree.flatten(new)

        start = (ops.convert_to_tensor(1, dtype="int32"), target[:, 0], target, *keras.tree.flatten(state))
        mixed = ops.while_loop(lambda index, *_: index < shape[1], body, start)[2]
        return ops.stop_gradient(mixed)

    def tokens(self, source: Any, target: Any = None) -> Any:
        """int32 tokens of strings (b,), padded to multiples of `pad_to`: those of `source`, or of both."""
        source = strings("source", source)
        found = self._padded(self.source.encode(source, start=False), self.source.pad, self._multiples[0])
        if target is None:
            return found
        target = strings("target", target, source.shape[0], "source")
        # one token longer than what the model reads: its inputs are tokens[:-1], its targets tokens[1:]
        return found, self._padded(self.target.encode(target), self.target.pad, self._multiples[1], 1)

    def example(self, source: Any, target: Any = None) -> tuple[Any, Tensor]:
        """A training batch for `fit`, for use in `tf.data`: `((source tokens, tokens in), targets)`.

        Args:
            source: the texts to read, a list, an array or a tensor of b strings; or a dict of both, `source` and `target`.
            target: the texts to write, likewise.
        """
        source, target = self.tokens(*as_pair(source, target, ("source", "target")))
        return (source, target[:, :-1]), target[:, 1:]

    @staticmethod
    def _padded(tokens, pad, multiple, more=0):
        missing = (more - tf.shape(tokens)[1]) % multiple
        return tf.pad(tokens, [[0, 0], [0, missing]], constant_values=pad)

    # -- writing ---------------------------------------------------------------------------------------------------------

    def _started(self, states, constants, batch):
        """`(state, constants)` of `next_token`."""
        state = {"decoder": self.decoder.initial_state(batch, states)}
        if not self.attends:
            return state, ()
        memory, mask = constants
        # what has been read of each place; as much as can be where there is none to read
        state["coverage"] = ops.cast(ops.logical_not(mask), "float32")
        return state, self.decoder.prepare_constants([memory, mask])

    def check_inputs(self, inputs: Tensor) -> None:
        self.source.check("source tokens", inputs)

    def begin(self, inputs: Any, batch: Any) -> tuple[Any, Any]:
        return self._started(*self.encode(inputs), batch)

    def next_token(self, tokens: Tensor, state: Any, constants: Any) -> tuple[Tensor, Any]:
        further = {"constants": constants} if self.attends else {}
        with capture_every("alignment") as found:
            output, decoder = self.decoder.step(self.target_embedding(tokens), state["decoder"], **further)
        new = {"decoder": decoder}
        if self.attends:
            alignment = sum(ops.cast(weights, "float32") for weights in found) / len(found)
            new["coverage"] = state["coverage"] + alignment
        return self.readout(output), new

    def generate_tokens(
        self, inputs: Any, prompt: Tensor | None = None, decoder: str = "greedy", **options: Any
    ) -> Any:
        penalty = options.get("coverage_penalty")
        if hasattr(penalty, "shape") or penalty:
            if not self.attends:
                raise ValueError(f"coverage_penalty: expected 0 for a decoder without attention, got {penalty}")
            options = {"coverage": lambda state: state["coverage"], **options}
        return super().generate_tokens(inputs, prompt, decoder, **options)

    def generate(
        self, sources: Sequence[str], prompts: Sequence[str] | None = None, decoder: str = "greedy", **options: Any
    ) -> list[Any]:
        """Strings for strings, compiled, each stopped at END.

        Args:
            sources: list of b strings.
            prompts: how each text begins, a list of b strings, or None.
            decoder: "greedy", "sample" or "beam".
            **options: of the decoder in `keras_seq.decoding`.

        Returns:
            A list of b strings; with `n_best` above 1 of "beam", b lists of so many, the best first.
        """
        return self.generate_strings(self.tokens(strings("sources", sources)), prompts, decoder, options)

    def alignment(self, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """What an attending decoder reads while it writes these strings: weights (b, t, s), t tokens with END, s with END."""
        if not self.attends:
            raise ValueError(f"decoder: expected one with attention, got {self.decoder.name}")
        source = strings("sources", sources)
        target = strings("targets", targets, source.shape[0], "source")
        source, target = self.source.encode(source, start=False), self.target.encode(target)
        state, constants = self.begin(source, ops.shape(source)[0])
        read = [state["coverage"]]
        for t in range(target.shape[1] - 1):
            _, state = self.next_token(target[:, t], state, constants)
            read.append(state["coverage"])
        return ops.convert_to_numpy(ops.stack([b - a for a, b in itertools.pairwise(read)], axis=1))

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        endpoint: str = "serve",
        **kwargs: Any,
    ) -> Any:
        """Write a SavedModel for service, or one of its endpoints as a file of another format of Keras, "onnx" or "litert".

        The endpoints of a SavedModel, each with any number b of rows and s of source tokens, END among these:

            texts(texts, strings (b,)) -> strings (b,), written greedily
            serve(tokens, int32 (b, s)) -> tokens, int32 (b, max_length), likewise
            begin(tokens, int32 (b, s)) -> [*state, *constants]
            step(tokens, int32 (b,), *state, *constants) -> [logits (b, v), *state]

        For whoever samples or searches outside: `begin` reads the source once, then each `step` takes one token, START first.
        The constants are those of `begin` at each step; the state is what the step before gave. With attention state_0 is
        how much each source place has been read so far, (b, s).

        Args:
            filepath: folder or file to write.
            format: as in Keras.
            endpoint: what another format holds, "serve", "begin" or "step". In LiteRT the first two want to know how large b
                is: `input_signature=[tf.TensorSpec((1, None), "int32", "tokens")]`.
            **kwargs: of Keras's export, such as `verbose`.

        Raises:
            ValueError: another endpoint; what the format does not have.
        """
        needs_tensorflow("Seq2Seq.export")
        one_of("endpoint", endpoint, FILES)
        tokens = [tf.TensorSpec((None, None), tf.int32, name="tokens")]
        begin, step = one_token(self, lambda source: self.begin(source, ops.shape(source)[0]), tokens)
        endpoints: dict[str, Endpoint] = {
            "serve": (self.generate_tokens, tokens),
            "texts": (
                lambda texts: self.target.decode(self.generate_tokens(self.tokens(texts))),
                [tf.TensorSpec((None,), tf.string, name="texts")],
            ),
            "begin": begin,
            "step": step,
        }
        return write(self, endpoints, filepath, format, endpoint, kwargs)


def _share(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number in [0, 1] or a schedule of Keras, got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number in [0, 1] or a schedule of Keras, got {value!r}")
    return float(value)

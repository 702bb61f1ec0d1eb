"""What comes next in a text: an embedding, a memory, and a distribution over the vocabulary."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_seq.arguments import boolean, integer_or_none, needs_tensorflow, one_of, positive_integer, rate
from keras_seq.decoding.random import uniform
from keras_seq.decoding.sampling import drawing
from keras_seq.decoding.tokens import DecodingConstraints, broken, likeliest, undefined
from keras_seq.layers.chunks import check_runs_in_chunks, first_state, run_chunk
from keras_seq.layers.sublayers import build_part, call_with_states
from keras_seq.models.endpoints import Endpoint, one_token, write
from keras_seq.models.generation import TextGenerator, refuse_options
from keras_seq.models.starts import Starts, log_frequencies
from keras_seq.models.stream_batches import stream_batches
from keras_seq.models.training import TokenTraining
from keras_seq.models.vocabulary import Vocabulary, strings
from keras_seq.training.carries_states import CarriesStates
from keras_seq.typing import Initializer, Tensor

ENDLESS = 2**31 - 1
STREAMED = {"greedy": ("allowed", "min_length"), "sample": ("allowed", "min_length", "temperature", "top_k", "top_p")}
"""The options of the decoders that write token by token."""


@keras.saving.register_keras_serializable(package="keras_seq")
class LanguageModel(Starts, TextGenerator, TokenTraining, CarriesStates, keras.Model):
    """The distribution of the next token after those before it (Mikolov et al. 2010; Graves 2013).

        x_t = D(E w_t);   h_t, s_t = memory(x_t, s_{t-1});   P(w_{t+1} = v | w_1 .. w_t) = softmax(D(h_t) V + b)_v

    D is dropout, on what goes into the memory and what comes out of it (Zaremba et al. 2014); `tied=True` sets V = E^T
    (Press and Wolf 2017). It is a Keras model from tokens (b, t) to logits (b, t, v); padding is hidden from the memory and
    left out of the loss. The targets are the tokens one step later:

        tokens = vocabulary.encode(texts)
        model.compile("adam", jit_compile=True)
        model.fit(tokens[:, :-1], tokens[:, 1:])

    Long texts are trained on in chunks (truncated backpropagation through time; Williams and Peng 1990): given
    `(tokens, starts)` in place of tokens, as `streams` makes them, each row goes on from the state in which it was left by
    the call before, or begins anew where `starts` says so; gradients stop between. Training and everything else carry
    states of their own, for each number of rows, so that validation in `fit` disturbs nothing. They are no weights and are
    not saved: a stream begins with `starts`; with `fit(.., backup="folder")` a run that was broken off goes on where it
    stopped, its states included. Under a `tf.distribute.MirroredStrategy` (without XLA) each replica carries the
    states of its share of the rows.

        held_out = model.streams(held_out, rows=1, steps=500)
        model.fit(model.streams(text, rows=32, steps=100), validation_data=held_out, shuffle=False)

    Where it starts (docs/learning.md): vectors of tokens from N(0, 1) and a readout that says how frequent each token is.
    Shakespeare by characters, `LSTM(256)`, three epochs: 1.55 nats held out; from Keras's starts 1.68. Recipe: Adam from 4e-3,
    falling as a cosine, `global_clipnorm=1.0` (examples/shakespeare.py).

    Trained, it writes: `generate` whole texts, `stream` one piece after the other, `export` a SavedModel that does both.
    Left open by the papers: the logits keep their bias when tied; dropout between the layers of a deep memory is the
    memory's own (`Stacked(.., dropout=..)`).

    Args:
        vocabulary: a `Vocabulary`, saved with the model.
        memory: a sequence layer of keras_seq with return_sequences=True that reads forwards: a recurrent one, `Stacked`,
            `TCN`, `WaveNet`, ..
        embedding_size: positive integer, the width of x_t.
        tied: whether the matrix of the embedding is that of the logits too; the memory's output must be as wide.
        dropout: share in [0, 1) of the elements to drop in training.
        max_length: positive integer, the most tokens that `generate` gives, prompt and END included.
        seed: integer for the random numbers of dropout and sampling.
        embeddings_initializer: of the vectors of tokens; None for N(0, 1). With `tied` their deviation is
            embedding_size^(-1/4), between the 1 that the memory reads well and the embedding_size^(-1/2) at which the first
            scores are small.
        kernel_initializer: of the readout that is not tied. The readout's bias starts from the vocabulary's `counts`.
        **kwargs: `name`, `dtype`: of all parts but the memory, which keeps its own.

    Raises:
        TypeError, ValueError: each names the argument, what was expected and what came; tokens that are none of the
            vocabulary too, where their values are known, else `tf.errors.InvalidArgumentError` when a graph runs. Under XLA
            such a row has NaN for logits, the loss is NaN, and the step is not taken: no weight moves.

    Example:

    ```python
    import keras_seq
    from keras_seq.models import LanguageModel, Vocabulary
    text = "to be or not to be, that is the question. " * 4
    vocabulary = Vocabulary.of([text], split="characters")
    model = LanguageModel(vocabulary, keras_seq.GRU(16, return_sequences=True), embedding_size=8)
    model.compile("adam")
    model.fit(model.streams(text, rows=4, steps=10), shuffle=False, verbose=0)
    texts = model.generate(["to be", "that"], temperature=0.8, max_length=20)      # two strings
    ```
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        memory: keras.layers.Layer,
        embedding_size: int = 128,
        tied: bool = False,
        dropout: float = 0.0,
        max_length: int = 200,
        seed: int | None = None,
        embeddings_initializer: Initializer = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a keras_seq.models.Vocabulary, got {vocabulary!r}")
        check_runs_in_chunks("memory", memory)
        self.vocabulary, self.memory = vocabulary, memory
        self.embedding_size = positive_integer("embedding_size", embedding_size)
        self.tied = boolean("tied", tied)
        self.dropout = rate("dropout", dropout)
        self.max_length = positive_integer("max_length", max_length)
        self.seed = integer_or_none("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        deviation = self.embedding_size**-0.25 if self.tied else 1.0
        self.keep_initializers(embeddings_initializer, kernel_initializer, deviation)
        self.embedding = self.new_embedding(vocabulary)
        self._build_parts()

    def _build_parts(self):
        """Build every part now, so that weights can be loaded into a model that has not run yet."""
        self.embedding.build((None, None))
        build_part("memory", self.memory, (None, None, self.embedding_size))
        width = self.memory.output_width
        if self.tied:
            if width != self.embedding_size:
                raise ValueError(
                    f"tied: expected a memory whose output is as wide as embedding_size={self.embedding_size}, got {width}"
                )
            start = log_frequencies(self.vocabulary)
            self.bias = self.add_weight(shape=(len(self.vocabulary),), initializer=start, name="bias")
        else:
            self.readout = self.new_readout(self.vocabulary)
            self.readout.build((None, None, width))
        self.built = True

    # -- the model of tokens -------------------------------------------------------------------------------------------

    def call(self, inputs: Tensor, training: bool = False) -> Any:
        tokens, starts = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        tokens, wrong = self._checked(tokens)
        mask = ops.not_equal(tokens, self.vocabulary.pad)
        words = self.dropped(self.embedding(tokens), training)
        if starts is None:
            outputs, _ = call_with_states(self.memory, words, mask=mask)
        else:
            needs_tensorflow("LanguageModel on tokens with starts")
            training = bool(training)
            outputs = self.carry(
                lambda states: run_chunk(self.memory, words, states, mask, training),
                words.shape[0],
                starts,
                training,
                "tokens",
            )
        return undefined(self.logits(self.dropped(outputs, training)), wrong)

    def logits(self, outputs: Tensor) -> Tensor:
        """Scores (.., v) of what the memory gives (.., u)."""
        if not self.tied:
            return self.readout(outputs)
        embedding, bias = (ops.cast(w, self.compute_dtype) for w in (self.embedding.embeddings, self.bias))
        return ops.matmul(ops.cast(outputs, self.compute_dtype), ops.transpose(embedding)) + bias

    def first_states(self, rows: int) -> list[Tensor]:
        return first_state(self.memory, rows)

    def _checked(self, tokens):
        if len(tokens.shape) != 2:
            raise ValueError(f"tokens: expected shape (b, t), got {tuple(tokens.shape)}")
        return self.vocabulary.check("tokens", tokens)

    def streams(self, texts: str | Sequence[str], rows: int, steps: int) -> tf.data.Dataset:
        """The data to train on long texts by chunks, or to score them: `stream_batches` of their tokens.

        Args:
            texts: one string: it is cut into `rows` streams, each begun by START, and every token is predicted once; or a
                list of strings: documents, each from START to END, that know nothing of each other.
            rows, steps: as in `stream_batches`.

        Raises:
            TypeError, ValueError: texts that are neither; rows that the replicas of the strategy, under which the model was
                made, cannot share equally; what `stream_batches` refuses.
        """
        needs_tensorflow("LanguageModel.streams")
        strategy = getattr(self, "distribute_strategy", None)
        replicas = strategy.num_replicas_in_sync if strategy else 1
        if positive_integer("rows", rows) % replicas:
            raise ValueError(f"rows: expected a multiple of the {replicas} replicas, got {rows}")
        if not isinstance(texts, str):
            documents = self.vocabulary.encode(strings("texts", texts))
            return stream_batches(
                [d[d != self.vocabulary.pad] for d in np.asarray(documents)], rows, steps, self.vocabulary.pad
            )
        tokens = np.asarray(self.vocabulary.encode([texts], start=False, end=False))[0]
        if rows > len(tokens):
            raise ValueError(f"rows: expected at most the {len(tokens)} tokens of the text, got {rows}")
        pieces = [np.concatenate([[self.vocabulary.start], piece]) for piece in np.array_split(tokens, rows)]
        return stream_batches(pieces, rows, steps, self.vocabulary.pad)

    # -- writing -------------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> np.ndarray:
        """Booleans (v,): the tokens that may be written, all but padding, unknown and START."""
        return super().writable & (np.arange(len(self.vocabulary)) != self.vocabulary.unknown)

    def begin(self, inputs: Any, batch: Any) -> tuple[Any, Any]:
        return self.memory.initial_state(batch), ()

    def next_token(self, tokens: Tensor, state: Any, constants: Any = ()) -> tuple[Tensor, Any]:
        """`(logits (b, v), state)` after one more token per row (b,); the first state is `memory.initial_state(b)`."""
        outputs, state = self.memory.step(self.embedding(tokens), state)
        return self.logits(outputs), state

    def generate_tokens(
        self,
        inputs: Any,
        prompt: Tensor | None = None,
        decoder: str = "greedy",
        allowed: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Tokens, as `TextGenerator.generate_tokens` gives them, never padding, unknown or START; `inputs` is not used."""
        if prompt is None:
            raise ValueError("prompt: expected tokens (b, p) that begin with START, got None")
        return super().generate_tokens(None, prompt, decoder, allowed=self._allowed(allowed), **options)

    def _allowed(self, allowed):
        if allowed is None:
            return self.writable
        allowed, size = ops.convert_to_tensor(allowed), len(self.vocabulary)
        if len(allowed.shape) not in (1, 2) or allowed.shape[-1] != size or allowed.dtype != "bool":
            raise ValueError(
                f"allowed: expected booleans of shape ({size},) or (b, {size}), got {allowed.dtype} {tuple(allowed.shape)}"
            )
        return ops.logical_and(allowed, self.writable)

    def generate(self, prompts: Sequence[str] | None, decoder: str = "sample", **options: Any) -> list[Any]:
        """Texts that begin with the prompts, compiled once for each decoder, its options and the number of prompts.

        Args:
            prompts: list of strings, empty ones too.
            decoder: "sample", "greedy" or "beam".
            **options: of that decoder in `keras_seq.decoding`: `temperature`, `top_k`, `top_p`, `width`, `allowed`, ..;
                `max_length`, by default the model's, counts the prompt too.

        Returns:
            A list of strings, prompt (as the vocabulary spells it) and continuation; of a beam with `n_best` above 1, of
            lists of them.

        Raises:
            TypeError, ValueError: prompts that are no list of strings, or are longer than max_length; what the decoder
                refuses.
        """
        longest = positive_integer("max_length", options.get("max_length", self.max_length))
        tokens = self._prompt_tokens(prompts, longest)
        # always as wide as there is room for, so that no length of a prompt is compiled anew
        tokens = np.pad(tokens, ((0, 0), (0, longest + 1 - tokens.shape[1])), constant_values=self.vocabulary.pad)
        return self.compiled_texts(None, tf.constant(tokens), decoder, options)

    def _prompt_tokens(self, prompts, longest=None):
        tokens = np.asarray(self.vocabulary.encode(strings("prompts", prompts), end=False))
        if longest is not None and tokens.shape[1] - 1 > longest:
            raise ValueError(f"prompts: expected at most max_length={longest} tokens, got {tokens.shape[1] - 1}")
        return tokens

    def stream(
        self,
        prompt: str = "",
        decoder: str = "sample",
        max_length: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """What follows a prompt, piece by piece, as it is written: an iterator over strings, the prompt not among them.

        Prompt and pieces together are what `generate([prompt])` gives, by the same seed the same. The memory's state is all
        that is kept, so that a text may go on for ever. One program serves all values of the options but `top_k`.

        Args:
            prompt: a string.
            decoder: "sample" or "greedy".
            max_length: positive integer, the most tokens, the prompt's included; None to go on until END.
            seed: integer for "sample"; None for the model's own random numbers, which are asked once.
            **options: of the decoder, as in `generate`: `allowed`, `min_length`, and for "sample" `temperature`, `top_k`,
                `top_p`.

        Raises:
            TypeError, ValueError: another decoder; what `generate` refuses.
        """
        needs_tensorflow("LanguageModel.stream")
        if decoder not in STREAMED:
            raise ValueError(f"decoder: expected 'sample' or 'greedy', got {decoder!r}")
        if decoder == "greedy" and seed is not None:
            raise ValueError(f"seed: expected None for 'greedy', which draws nothing, got {seed!r}")
        refuse_options(decoder, options, STREAMED[decoder])
        if not isinstance(prompt, str):
            raise TypeError(f"prompt: expected a string, got {prompt!r:.80}")
        longest = ENDLESS if max_length is None else positive_integer("max_length", max_length)
        tokens = self._prompt_tokens([prompt], None if max_length is None else longest)
        fixed, given = self._apart(decoder, tokens, {**options, "max_length": longest, "seed": seed})
        kept = {n: v for n, v in fixed.items() if n in options}
        step = self._compiled(self._written, {"decoder": decoder, **kept}, given)
        state = self.memory.initial_state(1)
        for at in range(tokens.shape[1]):
            token, state = step(tf.constant(tokens[:, at]), state, tf.constant(at))

        def pieces(token, state):
            count = tokens.shape[1] - 1
            while count < longest and int(token[0]) not in (self.vocabulary.end, self.vocabulary.pad):
                yield self.vocabulary.separator * (count > 0) + self.vocabulary.tokens[int(token[0])]
                count += 1
                token, state = step(token, state, tf.constant(count))

        return pieces(token, state)

    def _written(self, token, state, index, decoder, seed=None, allowed=None, min_length=0, **options):
        """`(the token (1,) after that of step index, state)`; padding where there is none."""
        logits, state = self.next_token(token, state)
        limits = {"max_length": ENDLESS, "min_length": min_length, "allowed": self._allowed(allowed)}
        constraints = DecodingConstraints(token[:, None], end=self.vocabulary.end, pad=self.vocabulary.pad, **limits)
        permitted = constraints.mask_logits(logits, index)
        chosen = (
            likeliest(permitted) if decoder == "greedy" else drawing(**options)(permitted, uniform(seed, [0], index))
        )
        return ops.where(broken(logits), self.vocabulary.pad, ops.cast(chosen, "int32")), state

    # -- files ---------------------------------------------------------------------------------------------------------

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        decoder: str = "sample",
        options: Mapping[str, Any] | None = None,
        endpoint: str = "serve",
        **kwargs: Any,
    ) -> Any:
        """Write a SavedModel for service, or one of its endpoints as a file of another format of Keras, "onnx" or "litert".

        The endpoints of a SavedModel, each with any number b of rows:

            texts(prompts, strings (b,)) -> strings (b,), prompt and continuation
            serve(prompt, int32 (b, p) from START on, padded on the right) -> tokens, int32 (b, max_length)
            initial_state(rows, int32 ()) -> [tensors (rows, ..)]
            step(tokens, int32 (b,), *state) -> [logits (b, v), *state]

        Args:
            filepath: folder or file to write.
            format: as in Keras.
            decoder: of `texts` and `serve`, "sample" or "greedy"; other formats take "greedy" alone.
            options: dict of that decoder's, as in `generate`.
            endpoint: what another format holds, "serve" or "step".
            **kwargs: of Keras's export, such as `verbose`; `input_signature` for other shapes.
        """
        needs_tensorflow("LanguageModel.export")
        if decoder not in ("sample", "greedy"):
            raise ValueError(f"decoder: expected 'sample' or 'greedy', got {decoder!r}")
        one_of("endpoint", endpoint, ("serve", "step"))
        options = dict(options or {})

        def serve(prompt):
            return self.generate_tokens(None, prompt, decoder, **options)

        def texts(prompts):
            return self.vocabulary.decode(serve(self.vocabulary.encode(prompts, end=False)))

        rows = [tf.TensorSpec((), tf.int32, name="rows")]
        begin, step = one_token(self, lambda count: self.begin(None, count), rows)
        endpoints: dict[str, Endpoint] = {
            "serve": (serve, [tf.TensorSpec((None, None), tf.int32, name="prompt")]),
            "texts": (texts, [tf.TensorSpec((None,), tf.string, name="prompts")]),
            "step": step,
            "initial_state": begin,
        }
        if format != "tf_saved_model" and (endpoint, decoder) == ("serve", "sample"):
            raise ValueError(f"decoder: expected 'greedy' in the format {format!r}, got 'sample'")
        return write(self, endpoints, filepath, format, endpoint, kwargs)

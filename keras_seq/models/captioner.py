"""From a picture to a sentence: a convolutional encoder and a recurrent decoder."""

from __future__ import annotations

import math
import numbers
import os
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import initializers, layers, ops

from keras_seq.arguments import copied, named, needs_tensorflow, one_of, positive_integer, rate, tensor
from keras_seq.cells import AttentionCell, Cell, ConditionedCell, GatedCell, LSTMCell
from keras_seq.cells.floats import long_type
from keras_seq.decoding.tokens import undefined
from keras_seq.layers import RNN
from keras_seq.models.endpoints import FILES, Endpoint, one_token, write
from keras_seq.models.generation import TextGenerator
from keras_seq.models.starts import Starts
from keras_seq.models.training import TokenTraining, as_pair
from keras_seq.models.vocabulary import Vocabulary, strings
from keras_seq.typing import DType, Initializer, Tensor

_FEATURES_AS = ("initial_state", "each_step", "attention")


def small_encoder(
    image_shape: Sequence[int],
    features: int | None = 256,
    smallest: int = 6,
    dtype: DType = None,
    kernel_initializer: Initializer = "glorot_uniform",
) -> keras.Model:
    """A convolutional network from pictures (b, height, width, channels) of 0 .. 255 to features.

    Blocks of convolution, batch normalisation and ReLU, each halving the picture until it is at most `smallest` high and
    wide; then a dense layer over all that is left, so that places are not lost, normalised likewise: features (b, n). With
    features None the feature map (b, h, w, 64) itself, after one more convolution, for attention to its places.

    Args:
        image_shape: (height, width, channels).
        features: n, or None.
        smallest: as above.
        dtype: of its layers; None for the global policy.
        kernel_initializer: of all kernels; the normalisation makes their size no matter.

    Raises:
        TypeError, ValueError: an image_shape that is not three positive integers; a number that is no positive integer; what is
            no initializer.

    Example:

    ```python
    from keras_seq.models import small_encoder
    print(small_encoder((48, 48, 3)).output_shape)                   # (None, 256)
    print(small_encoder((48, 48, 3), features=None).output_shape)    # (None, 6, 6, 64)
    ```
    """
    kernel_initializer = named(initializers, "kernel_initializer", kernel_initializer)
    image_shape = _picture_shape("image_shape", image_shape)
    features = None if features is None else positive_integer("features", features)
    smallest = positive_integer("smallest", smallest)
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1, dtype=dtype)(inputs)

    def normalised(x):
        return layers.ReLU(dtype=dtype)(layers.BatchNormalization(momentum=0.9, dtype=dtype)(x))

    def convolution(filters, **kwargs):
        return layers.Conv2D(filters, 3, padding="same", data_format="channels_last", **of_all(), **kwargs)

    def of_all():
        return {"use_bias": False, "kernel_initializer": copied(kernel_initializer), "dtype": dtype}

    for i in range(max(1, math.ceil(math.log2(max(image_shape[:2]) / smallest)))):
        x = normalised(convolution(min(32 * 2**i, 64), strides=2)(x))
    if features is None:
        return keras.Model(inputs, normalised(convolution(64)(x)), name="encoder")
    flat = layers.Flatten(data_format="channels_last", dtype=dtype)(x)
    features = normalised(layers.Dense(features, **of_all())(flat))
    return keras.Model(inputs, features, name="encoder")


def _picture_shape(name, value):
    """(height, width, channels) as a tuple; an error that names the argument if it is none."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected (height, width, channels), got {value!r}")
    if len(value) != 3:
        raise ValueError(f"{name}: expected (height, width, channels), got {value!r}")
    return tuple(positive_integer(name, n) for n in value)


@keras.saving.register_keras_serializable(package="keras_seq")
class ImageCaptioner(Starts, TextGenerator, TokenTraining, keras.Model):
    """A picture described in words: CNN encoder, recurrent decoder (Vinyals et al. 2015; Karpathy and Fei-Fei 2015).

        v = encoder(picture);   h_t, s_t = cell(E w_{t-1}, s_{t-1}),   P(w_t) = softmax(h_t V + b),   w_0 = START

        "initial_state"  s_0 = tanh(v W_s + b_s)
        "each_step"      W_v v added to what the cell projects
        "attention"      the cell reads the places v_1 .. v_s of the encoder's feature map, each with its two coordinates in
                         [-1, 1] (Xu et al. 2015; the coordinates are ours), and s_0 = tanh(W_s mean_j v_j + b_s)

    Trained with teacher forcing: inputs START w_1 .. w_n, targets w_1 .. w_n END; padding is masked in the memory and in
    the loss; tokens that are none of the vocabulary move no weight (see Raises). It is a Keras model of `(pictures, tokens)`
    to logits (b, t, v):

        captioner.compile("adam")
        captioner.fit(dataset.map(captioner.example).padded_batch(64))

    Where it starts (docs/learning.md): vectors of words from N(0, 1) and a readout that says how frequent each word is. Of the
    drawn scenes of examples/captioning.py 90 % of the sentences are true to the word, from Keras's starts 82 to 87 %. Recipe:
    AdamW from 4e-3, falling as a cosine, `global_clipnorm=1.0`, recurrent dropout of 0.4; without XLA on a CPU.

    Args:
        vocabulary: a `Vocabulary`, saved with the model.
        image_shape: (height, width, channels) of the pictures, values 0 .. 255.
        cell: the memory, a `keras_seq.Cell`; default `LSTMCell(256)`. For "attention" it is put in an
            `AttentionCell(cell, output_units=its width)`, or is one.
        encoder: any Keras model from pictures to features (b, n), or to a feature map (b, h, w, n), which attention reads and
            the others average over its places; it gets the values 0 .. 255 as floats. Default: `small_encoder`.
        features_as: how the features enter, "initial_state", "each_step" (needs a `keras_seq.GatedCell`) or "attention".
        embedding_size: width of the word vectors.
        dropout: share of the word vectors' and outputs' elements dropped in training.
        max_length: the most tokens that `generate` gives, END included.
        attention_penalty: number of at least 0, l of the doubly stochastic regularisation of Xu et al.: adds
            l sum_j (1 - sum_t a_tj)^2 to the loss, the mean over the batch, so that no place is left out of sight.
        embeddings_initializer: of the vectors of tokens; None for N(0, 1).
        kernel_initializer: of the bridges and the readout. The readout's bias starts from the vocabulary's `counts`.
        **kwargs: `name`, `dtype`: of all parts that are made here; a cell or an encoder that is given keeps its own.

    Raises:
        TypeError, ValueError: each names the argument, what was expected and what came; pictures of another size or channel
            count than `image_shape` too, and tokens that are none of the vocabulary where their values are known, else
            `tf.errors.InvalidArgumentError`. Under XLA such a row has NaN for logits, the loss is NaN, and the step is not
            taken.

    Example:

    ```python
    import numpy as np
    from keras_seq.models import ImageCaptioner, Vocabulary
    captioner = ImageCaptioner(Vocabulary.of(["a red square", "a blue circle"]), (24, 24, 3), features_as="attention")
    pictures = np.zeros((2, 24, 24, 3), "uint8")
    sentences = captioner.generate(pictures, decoder="beam", width=3)   # two strings
    weights = captioner.alignment(pictures, sentences)                  # where it looked: (2, words, height, width)
    ```
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        image_shape: Sequence[int],
        cell: Cell | None = None,
        encoder: keras.layers.Layer | None = None,
        features_as: str = "initial_state",
        embedding_size: int = 128,
        dropout: float = 0.0,
        max_length: int = 30,
        attention_penalty: float = 0.0,
        embeddings_initializer: Initializer = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a keras_seq.models.Vocabulary, got {vocabulary!r}")
        image_shape = _picture_shape("image_shape", image_shape)
        one_of("features_as", features_as, _FEATURES_AS)
        cell = LSTMCell(256, dtype=self.dtype_policy) if cell is None else cell
        kind = GatedCell if features_as == "each_step" else Cell
        if not isinstance(cell, kind):
            raise TypeError(
                f"cell: expected a keras_seq.{kind.__name__} with features_as={features_as!r}, got {cell!r}"
            )
        if features_as == "initial_state" and cell.constant_names:
            raise ValueError(
                f"cell: expected one that reads no constants with features_as={features_as!r}, got {cell!r}"
            )
        self.attends = features_as == "attention"
        self.vocabulary = vocabulary
        self.image_shape = image_shape
        self.cell = cell
        if encoder is None:
            form: dict[str, Any] = {"features": None} if self.attends else {}
            encoder = small_encoder(self.image_shape, dtype=self.dtype_policy, **form)
        if not isinstance(encoder, keras.Layer):
            raise TypeError(f"encoder: expected a Keras model or layer, got {encoder!r}")
        self.encoder = encoder
        self.features_as = features_as
        self.embedding_size = positive_integer("embedding_size", embedding_size)
        self.dropout = rate("dropout", dropout)
        self.max_length = positive_integer("max_length", max_length)
        self.attention_penalty = _penalty("attention_penalty", attention_penalty, self.attends)

        self.keep_initializers(embeddings_initializer, kernel_initializer)
        self.embedding = self.new_embedding(vocabulary)
        decoder = ConditionedCell(cell, dtype=self.dtype_policy) if features_as == "each_step" else cell
        if self.attends and not isinstance(cell, AttentionCell):
            decoder = AttentionCell(cell, output_units=cell.output_size, dtype=self.dtype_policy)
        shown = bool(self.attention_penalty)
        self.memory = RNN(decoder, return_sequences=True, return_internals=shown, dtype=self.dtype_policy)
        self.seed_generator = keras.random.SeedGenerator()
        self._build_parts()

    def _build_parts(self):
        """Build every part now, so that weights can be loaded into a model that has not run yet."""
        shape = self.encoder.compute_output_shape((None, *self.image_shape))
        if len(shape) not in ((4,) if self.attends else (2, 4)) or shape[-1] is None:
            expected = "(b, h, w, n)" if self.attends else "(b, n) or (b, h, w, n)"
            raise ValueError(f"encoder: expected outputs {expected} with n known, got shape {tuple(shape)}")
        self.map_shape = tuple(shape[1:-1])
        if self.attends and None in self.map_shape:
            raise ValueError(f"encoder: expected outputs (b, h, w, n) of known size, got shape {tuple(shape)}")
        constants = [(None, None, shape[-1] + 2)] if self.attends else [(None, shape[-1])]
        self.embedding.build((None, None))
        self.memory.build(
            (None, None, self.embedding_size),
            constants_shape=None if self.features_as == "initial_state" else constants,
        )
        initial = self.memory.state_size if self.features_as != "each_step" else []  # known when the cell is built
        self.bridges = [self.new_dense(n, "tanh") for n in initial]
        self.readout = self.new_readout(self.vocabulary)
        for bridge in self.bridges:
            bridge.build((None, shape[-1]))
        self.readout.build((None, None, self.memory.output_width))
        self.built = True

    # -- the model of (pictures, tokens) -------------------------------------------------------------------------------

    def check_images(self, images: Tensor) -> None:
        """A ValueError unless the pictures are (b, height, width, channels) as the model was made for."""
        if len(images.shape) != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images: expected shape {('b', *self.image_shape)}, got {tuple(images.shape)}")

    def _shown(self, images):
        """The pictures as a tensor; a warning where they seem to be on another scale than 0 .. 255."""
        images = tensor("images", images, "numbers")
        self.check_images(images)
        if images.shape[0] == 0:
            raise ValueError("images: expected at least one picture, got none")
        if images.dtype.is_floating and 0 < (most := float(tf.reduce_max(images))) <= 1:
            warnings.warn(f"images: expected values 0 .. 255, got floats of at most {most:.3g}", stacklevel=3)
        return images

    def features(self, images: Tensor, training: bool = False) -> Tensor:
        """Features of pictures (b, height, width, channels): (b, n), or for attention the feature map (b, h, w, n)."""
        self.check_images(images)
        features = self.encoder(ops.cast(images, self.compute_dtype), training=training)
        return features if self.attends or len(features.shape) == 2 else ops.mean(features, axis=(1, 2))

    def start(self, features: Tensor) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """`(initial states or None, constants)` of the memory, from the features."""
        if self.features_as == "each_step":
            return None, [features]
        if not self.attends:
            return [bridge(features) for bridge in self.bridges], None
        down, across = (ops.linspace(-1.0, 1.0, n, dtype=long_type(features.dtype)) for n in self.map_shape)
        places = ops.cast(ops.stack(ops.meshgrid(down, across, indexing="ij"), axis=-1), features.dtype)
        places = ops.broadcast_to(places[None], (*ops.shape(features)[:3], 2))
        count = math.prod(self.map_shape)
        memory = ops.reshape(ops.concatenate([features, places], axis=-1), (-1, count, features.shape[-1] + 2))
        return [bridge(ops.mean(features, axis=(1, 2))) for bridge in self.bridges], [memory]

    def call(self, inputs: Tensor, training: bool = False) -> Any:
        images, tokens = inputs
        tokens, wrong = self.vocabulary.check("tokens", tokens)
        states, constants = self.start(self.features(images, training))
        words = self.dropped(self.embedding(tokens), training)
        mask = ops.not_equal(tokens, self.vocabulary.pad)
        outputs = self.memory(words, initial_state=states, mask=mask, training=training, constants=constants)
        if self.attention_penalty:
            outputs, internals = outputs
            read = internals["alignment"]
            seen = ops.sum(read * ops.cast(mask, read.dtype)[:, :, None], axis=1)
            missing = ops.sum(ops.square(1 - seen), axis=-1)
            # of the type that Keras gives the loss, to which it is added
            penalty = ops.cast(ops.mean(missing), keras.config.floatx())
            self.add_loss(self.attention_penalty * penalty)
        return undefined(self.readout(self.dropped(outputs, training)), wrong)

    def example(self, image: Any, captions: Any = None) -> tuple[Any, Tensor]:
        """One training example for `fit`, for use in `tf.data`: `((picture, tokens in), targets)`.

        Args:
            image: a picture (height, width, channels); or a dict of both, `image` and `captions`, as TFDS gives them.
            captions: its sentences, a list, an array or a tensor of n strings: one of them is drawn at random.
        """
        image, captions = as_pair(image, captions, ("image", "captions"))
        sentences = strings("captions", captions)
        choice = tf.random.uniform((), maxval=tf.size(sentences), dtype=tf.int32)
        tokens = self.vocabulary.encode(sentences[choice][None])[0]
        return (image, tokens[:-1]), tokens[1:]

    # -- sentences -----------------------------------------------------------------------------------------------------

    def begin(self, inputs: Any, batch: Any) -> tuple[Any, Any]:
        states, constants = self.start(self.features(inputs))
        return self.memory.initial_state(batch, states), self.memory.prepare_constants(constants or ())

    def next_token(self, tokens: Tensor, state: Any, constants: Any) -> tuple[Tensor, Any]:
        output, state = self.memory.step(self.embedding(tokens), state, constants=constants)
        return self.readout(output), state

    def generate(
        self, images: Tensor, prompts: Sequence[str] | None = None, decoder: str = "greedy", **options: Any
    ) -> list[Any]:
        """Sentences for pictures, compiled, each stopped at END.

        Args:
            images: (b, height, width, channels), values 0 .. 255.
            prompts: how each sentence begins, a list of b strings, or None.
            decoder: "greedy", "sample" or "beam".
            **options: of the decoder in `keras_seq.decoding`.

        Returns:
            A list of b strings; with `n_best` above 1 of "beam", b lists of so many, the best first.
        """
        return self.generate_strings(self._shown(images), prompts, decoder, options)

    def alignment(self, images: Tensor, sentences: Sequence[str]) -> np.ndarray:
        """Where attention looks while it writes these sentences: weights (b, t, h, w), t words with END, of the feature map."""
        if not self.attends:
            raise ValueError(f"features_as: expected 'attention', got {self.features_as!r}")
        images = self._shown(images)
        tokens = self.vocabulary.encode(strings("sentences", sentences, images.shape[0], "picture"))
        states, constants = self.start(self.features(images))
        shown = RNN(self.memory.cell, return_sequences=True, return_internals=True, dtype=self.dtype_policy)
        _, internals = shown(self.embedding(tokens[:, :-1]), initial_state=states, constants=constants)
        weights = ops.convert_to_numpy(internals["alignment"])
        return weights.reshape(*weights.shape[:2], *self.map_shape)

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        endpoint: str = "serve",
        **kwargs: Any,
    ) -> Any:
        """Write a SavedModel for service, or one of its endpoints as a file of another format of Keras, "onnx" or "litert".

        The endpoints of a SavedModel, each with any number b of rows:

            sentences(images, uint8 (b, height, width, channels)) -> strings (b,), written greedily
            serve(images) -> tokens, int32 (b, max_length), likewise
            begin(images) -> [*state, *constants]
            step(tokens, int32 (b,), *state, *constants) -> [logits (b, v), *state]

        For whoever samples or searches outside: `begin` looks at the pictures once, then each `step` takes one token, START
        first. The constants are those of `begin` at each step; the state is what the step before gave.

        Args:
            filepath: folder or file to write.
            format: as in Keras.
            endpoint: what another format holds, "serve", "begin" or "step".
            **kwargs: of Keras's export, such as `verbose`; `input_signature` for other shapes.

        Raises:
            ValueError: another endpoint; what the format does not have.
        """
        needs_tensorflow("ImageCaptioner.export")
        one_of("endpoint", endpoint, FILES)
        pictures = [tf.TensorSpec((None, *self.image_shape), tf.uint8, name="images")]
        begin, step = one_token(self, lambda images: self.begin(images, ops.shape(images)[0]), pictures)
        endpoints: dict[str, Endpoint] = {
            "serve": (self.generate_tokens, pictures),
            "sentences": (lambda images: self.vocabulary.decode(self.generate_tokens(images)), pictures),
            "begin": begin,
            "step": step,
        }
        return write(self, endpoints, filepath, format, endpoint, kwargs)


def _penalty(name, value, attends):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number of at least 0, got {value!r}")
    if not 0 <= value < math.inf or (value and not attends):
        raise ValueError(
            f"{name}: expected {'a number of at least 0' if attends else '0 without attention'}, got {value!r}"
        )
    return float(value)

"""From a picture to a sentence: a convolutional encoder and a recurrent decoder."""

import math

import keras
import tensorflow as tf
from keras import layers, ops

from keras_seq.cells import Cell, ConditionedCell, GatedCell, LSTMCell
from keras_seq.cells.arguments import positive_integer, rate
from keras_seq.decoding import greedy
from keras_seq.layers import RNN
from keras_seq.models.vocabulary import END, PAD, START, Vocabulary

_FEATURES_AS = ("initial_state", "each_step")


def small_encoder(image_shape, features=256, smallest=6):
    """A convolutional network from pictures (b, height, width, channels) of 0 .. 255 to features (b, n).

    Blocks of convolution, batch normalisation and ReLU, each halving the picture until it is at most `smallest` high and
    wide; then a dense layer over all that is left, so that places are not lost, normalised likewise.

    Args:
        image_shape: (height, width, channels).
        features: n.
        smallest: as above.

    Example:

    ```python
    from keras_seq.models import small_encoder
    print(small_encoder((48, 48, 3)).output_shape)   # (None, 256)
    ```
    """
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)

    def normalised(x):
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    for i in range(max(1, math.ceil(math.log2(max(image_shape[:2]) / smallest)))):
        x = normalised(layers.Conv2D(min(32 * 2**i, 64), 3, strides=2, padding="same", use_bias=False)(x))
    features = normalised(layers.Dense(features, use_bias=False)(layers.Flatten()(x)))
    return keras.Model(inputs, features, name="encoder")


@keras.saving.register_keras_serializable(package="keras_seq")
class ImageCaptioner(keras.Model):
    """A picture described in words: CNN encoder, recurrent decoder (Vinyals et al. 2015; Karpathy and Fei-Fei 2015).

        v = encoder(picture)
        s_0 = tanh(v W_s + b_s)  ("initial_state")   or   W_v v added to what the cell projects  ("each_step")
        h_t, s_t = cell(E w_{t-1}, s_{t-1}),   P(w_t) = softmax(h_t V + b),   w_0 = START

    Trained with teacher forcing: inputs START w_1 .. w_n, targets w_1 .. w_n END; padding is masked in the memory and in
    the loss. It is a Keras model of `(pictures, tokens)` to logits (b, t, v):

        captioner.compile("adam")
        captioner.fit(dataset.map(captioner.example).padded_batch(64))

    Args:
        vocabulary: a `Vocabulary`, saved with the model.
        image_shape: (height, width, channels) of the pictures, values 0 .. 255.
        cell: the memory, a `keras_seq.Cell`; default `LSTMCell(256)`.
        encoder: any Keras model from pictures to features (b, n), or to a feature map (b, h, w, n), which is averaged over
            places; it gets the values 0 .. 255 as floats. Default: `small_encoder(image_shape)`.
        features_as: how the features enter, "initial_state" or "each_step" (needs a `keras_seq.GatedCell`).
        embedding_size: width of the word vectors.
        dropout: share of the word vectors' and outputs' elements dropped in training.
        max_length: the most tokens that `generate` gives, END included.
        **kwargs: `name`, `dtype`.

    Raises:
        TypeError, ValueError: each names the argument, what was expected and what came; pictures of another size or channel
            count than `image_shape` too.

    Example:

    ```python
    import numpy as np
    from keras_seq.models import ImageCaptioner, Vocabulary
    captioner = ImageCaptioner(Vocabulary.of(["a red square", "a blue circle"]), (24, 24, 3))
    sentences = captioner.generate(np.zeros((2, 24, 24, 3), "uint8"))   # two strings
    ```
    """

    def __init__(
        self,
        vocabulary,
        image_shape,
        cell=None,
        encoder=None,
        features_as="initial_state",
        embedding_size=128,
        dropout=0.0,
        max_length=30,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a keras_seq.models.Vocabulary, got {vocabulary!r}")
        if len(tuple(image_shape)) != 3:
            raise ValueError(f"image_shape: expected (height, width, channels), got {image_shape!r}")
        if features_as not in _FEATURES_AS:
            raise ValueError(f"features_as: expected one of {_FEATURES_AS}, got {features_as!r}")
        cell = LSTMCell(256) if cell is None else cell
        kind = GatedCell if features_as == "each_step" else Cell
        if not isinstance(cell, kind):
            raise TypeError(
                f"cell: expected a keras_seq.{kind.__name__} with features_as={features_as!r}, got {cell!r}"
            )
        self.vocabulary = vocabulary
        self.image_shape = tuple(positive_integer("image_shape", n) for n in image_shape)
        self.cell = cell
        self.encoder = small_encoder(self.image_shape) if encoder is None else encoder
        self.features_as = features_as
        self.embedding_size = positive_integer("embedding_size", embedding_size)
        self.dropout = rate("dropout", dropout)
        self.max_length = positive_integer("max_length", max_length)

        self.embedding = layers.Embedding(len(vocabulary), self.embedding_size, mask_zero=True)
        self.drop = layers.Dropout(self.dropout)
        decoder = ConditionedCell(cell) if features_as == "each_step" else cell
        self.memory = RNN(decoder, return_sequences=True)
        self.bridges = [] if features_as == "each_step" else [layers.Dense(n, "tanh") for n in cell.state_size]
        self.readout = layers.Dense(len(vocabulary))
        self._build_parts()
        self._greedy = None

    def _build_parts(self):
        """Build every part now, so that weights can be loaded into a model that has not run yet."""
        features = self._pool_shape(self.encoder.compute_output_shape((None, *self.image_shape)))
        constants = [features] if self.features_as == "each_step" else None
        self.embedding.build((None, None))
        self.memory.build((None, None, self.embedding_size), constants_shape=constants)
        for bridge in self.bridges:
            bridge.build(features)
        self.readout.build((None, None, self.cell.output_size))
        self.built = True

    @staticmethod
    def _pool_shape(shape):
        if len(shape) not in (2, 4) or shape[-1] is None:
            raise ValueError(f"encoder: expected outputs (b, n) or (b, h, w, n) with n known, got shape {tuple(shape)}")
        return (None, shape[-1])

    # -- the model of (pictures, tokens) -------------------------------------------------------------------------------

    def check_images(self, images):
        """A ValueError unless the pictures are (b, height, width, channels) as the model was made for."""
        if len(images.shape) != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images: expected shape {('b', *self.image_shape)}, got {tuple(images.shape)}")

    def features(self, images, training=False):
        """Features (b, n) of pictures (b, height, width, channels)."""
        self.check_images(images)
        features = self.encoder(ops.cast(images, self.compute_dtype), training=training)
        return ops.mean(features, axis=(1, 2)) if len(features.shape) == 4 else features

    def start(self, features):
        """`(initial states or None, constants)` of the memory, from the features."""
        if self.features_as == "each_step":
            return None, [features]
        return [bridge(features) for bridge in self.bridges], None

    def call(self, inputs, training=False):
        images, tokens = inputs
        states, constants = self.start(self.features(images, training))
        words = self.drop(self.embedding(tokens), training=training)
        outputs = self.memory(
            words, initial_state=states, mask=ops.not_equal(tokens, PAD), training=training, constants=constants
        )
        return self.readout(self.drop(outputs, training=training))

    def example(self, element):
        """One training example for `fit`, for use in `tf.data`: `((picture, tokens in), targets)`.

        Args:
            element: a dict of `image`, a picture (height, width, channels), and `captions`, its sentences, strings (n,):
                one of them is drawn at random.
        """
        image, sentences = element["image"], element["captions"]
        choice = tf.random.uniform((), maxval=tf.size(sentences), dtype=tf.int32)
        tokens = self.vocabulary.encode(sentences[choice][None])[0]
        return (image, tokens[:-1]), tokens[1:]

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As any Keras model's; the default loss is the cross-entropy per word (nats), padding left out."""
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD, name="cross_entropy")
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    # -- sentences -----------------------------------------------------------------------------------------------------

    def generate_tokens(self, images, prompt=None):
        """Greedy tokens (b, max_length) for pictures, in a graph or eagerly; `prompt` (b, p) starts with START."""
        features = self.features(images)
        states, constants = self.start(features)
        cell = self.memory.cell
        constants = cell.prepare(tuple(constants or ()))
        if states is None:
            states = cell.get_initial_state(batch_size=ops.shape(features)[0])
        if prompt is None:
            prompt = ops.full((ops.shape(features)[0], 1), START, dtype="int32")

        def step(token, states):
            output, states = cell.step(cell.project(self.embedding(token)), tuple(states), constants)
            return self.readout(output), list(states)

        return greedy(step, list(states), prompt, end=END, max_length=self.max_length, pad=PAD)

    def generate(self, images, prompts=None):
        """Sentences for pictures, greedily, compiled, each stopped at END.

        Args:
            images: (b, height, width, channels), values 0 .. 255.
            prompts: how each sentence begins, a list of b strings, or None.

        Returns:
            A list of b strings.
        """
        images = tf.convert_to_tensor(images)
        self.check_images(images)
        prompts = [""] * images.shape[0] if prompts is None else list(prompts)
        if len(prompts) != images.shape[0]:
            raise ValueError(f"prompts: expected {images.shape[0]}, one per picture, got {len(prompts)}")
        if self._greedy is None:
            self._greedy = tf.function(self.generate_tokens, autograph=False, jit_compile=True, reduce_retracing=True)
        tokens = self._greedy(images, self.vocabulary.encode(prompts, end=False))
        return [s.decode() for s in self.vocabulary.decode(tokens).numpy()]

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Write a SavedModel for service; other formats as in Keras.

        Its endpoints take pictures, uint8 (b, height, width, channels) with any b: `serve` gives tokens, int32
        (b, max_length), and `sentences` strings (b,).
        """
        if format != "tf_saved_model":
            return super().export(filepath, format=format, **kwargs)
        pictures = [tf.TensorSpec((None, *self.image_shape), tf.uint8, name="images")]
        archive = keras.export.ExportArchive()
        archive.track(self)
        archive.add_endpoint("serve", self.generate_tokens, input_signature=pictures)
        archive.add_endpoint(
            "sentences", lambda images: self.vocabulary.decode(self.generate_tokens(images)), input_signature=pictures
        )
        return archive.write_out(filepath, **kwargs)

    def get_config(self):
        config = super().get_config()
        parts = {name: getattr(self, name) for name in ("vocabulary", "cell", "encoder")}
        plain = ("image_shape", "features_as", "embedding_size", "dropout", "max_length")
        return {
            **config,
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            **{name: getattr(self, name) for name in plain},
        }

    @classmethod
    def from_config(cls, config):
        config = {k: keras.saving.deserialize_keras_object(v) if isinstance(v, dict) else v for k, v in config.items()}
        return cls(**config)

"""Models for the tasks: ours with our defaults, ours as it started before, and the same in plain Keras with Keras's."""

import keras
import numpy as np
from keras import layers, ops

import keras_seq
from keras_seq.models import ImageCaptioner, LanguageModel, Seq2Seq, Vocabulary

BEFORE = {"embeddings_initializer": "uniform"}  # and vocabularies that do not count


def vocabularies(task, counting=True):
    """Those of the task; the last, which is written, counts what is asked for in training."""
    made = [Vocabulary(words[4:], "spaces") for words in task.vocabularies]
    if counting:
        counts = np.bincount(task.targets[task.targets > 0], minlength=len(made[-1]))
        made[-1] = Vocabulary(task.vocabularies[-1][4:], "spaces", counts=counts.tolist())
    return made


def lagged(u, y, lags):
    """What a next step is predicted from: the last inputs, the present one with them, and the last outputs (b, t, 2 lags)."""

    def behind(x, n):
        return np.pad(x, [(0, 0), (n, 0), (0, 0)])[:, : x.shape[1]]

    columns = [behind(u, n) for n in range(lags)] + [behind(y, n) for n in range(1, lags + 1)]
    return np.concatenate(columns, axis=-1)


# -- ours ----------------------------------------------------------------------------------------------------------------


def characters(task, before=False):
    starts = BEFORE if before else {}
    memory = keras_seq.LSTM(128, return_sequences=True)
    return LanguageModel(*vocabularies(task, not before), memory, embedding_size=64, **starts)


def translation(task, before=False):
    if not before:
        return Seq2Seq(*vocabularies(task))
    cell = keras_seq.AttentionCell(keras_seq.GRUCell(64), output_units=64, score_initializer="random_normal")
    return Seq2Seq(*vocabularies(task, False), decoder=keras_seq.RNN(cell, return_sequences=True), **BEFORE)


def captions(task, before=False):
    starts = BEFORE if before else {}
    return ImageCaptioner(*vocabularies(task, not before), (48, 48, 3), keras_seq.LSTMCell(128), **starts)


def plant(task):
    layer = keras_seq.NARX(10, 1, input_delays=[0, 1, 2, 3], output_delays=[1, 2, 3, 4], return_sequences=True)
    u, y = keras.Input((None, 1)), keras.Input((None, 1))
    return keras.Model([u, y], layer(u, targets=y))


def system(task, before=False):
    start = {"kernel_initializer": "he_normal"} if before else {}
    layer = keras_seq.TCN(16, kernel_size=3, return_sequences=True, **start)
    return keras.Sequential([keras.Input((None, 1)), layer, layers.Dense(1)])


def forecast(task):
    return keras.Sequential([keras.Input((None, 7)), keras_seq.GRU(32, return_sequences=True), layers.Dense(1)])


def tagging(task):
    start = keras.initializers.RandomNormal(stddev=1.0)
    return keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(task.sizes["words"], 32, embeddings_initializer=start),
            keras_seq.Bidirectional(keras_seq.LSTM(32, return_sequences=True)),
            layers.Dense(task.sizes["tags"]),
        ]
    )


def memory(task):
    return keras.Sequential([keras.Input((None, 2)), keras_seq.LSTM(32), layers.Dense(1), layers.Reshape((1, 1))])


OURS = {f.__name__: f for f in (characters, translation, captions, plant, system, forecast, tagging, memory)}
CHANGED = ("characters", "translation", "captions", "system")


# -- plain Keras ---------------------------------------------------------------------------------------------------------


def keras_characters(task):
    size = len(task.vocabularies[0])
    return keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(size, 64, mask_zero=True),
            layers.LSTM(128, return_sequences=True),
            layers.Dense(size),
        ]
    )


def keras_translation(task):
    """Attention after the decoder's loop: Keras has none within."""
    source, target = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    sizes = [len(words) for words in task.vocabularies]
    read = layers.Embedding(sizes[0], 64, mask_zero=True)(source)
    encoder = layers.Bidirectional(layers.GRU(64, return_sequences=True, return_state=True))
    places, *states = encoder(read)
    start = layers.Dense(64, "tanh")(layers.Concatenate()(states))
    written = layers.Embedding(sizes[1], 64, mask_zero=True)(target)
    outputs = layers.GRU(64, return_sequences=True)(written, initial_state=start)
    context = layers.AdditiveAttention()([outputs, layers.Dense(64)(places)], mask=[None, ops.not_equal(source, 0)])
    joined = layers.Dense(64, "tanh", use_bias=False)(layers.Concatenate()([context, outputs]))
    return keras.Model([source, target], layers.Dense(sizes[1])(joined))


def keras_captions(task):
    size = len(task.vocabularies[0])
    pictures, words = keras.Input((48, 48, 3)), keras.Input((None,), dtype="int32")
    x = layers.Rescaling(1 / 127.5, offset=-1)(pictures)
    for filters in (32, 64, 64):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dense(256, use_bias=False)(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    states = [layers.Dense(128, "tanh")(x) for _ in range(2)]
    outputs = layers.LSTM(128, return_sequences=True)(
        layers.Embedding(size, 128, mask_zero=True)(words), initial_state=states
    )
    return keras.Model([pictures, words], layers.Dense(size)(outputs))


def keras_plant(task):
    return keras.Sequential([keras.Input((None, 8)), layers.Dense(10, "tanh"), layers.Dense(1)])


def keras_system(task):
    x = inputs = keras.Input((None, 1))
    for dilation in (1, 2, 4, 8, 16, 32):
        z = x
        for _ in range(2):
            z = layers.Conv1D(16, 3, padding="causal", dilation_rate=dilation, activation="relu")(z)
        x = layers.ReLU()(layers.Add()([z, x if x.shape[-1] == 16 else layers.Dense(16)(x)]))
    return keras.Model(inputs, layers.Dense(1)(x))


def keras_forecast(task):
    return keras.Sequential([keras.Input((None, 7)), layers.GRU(32, return_sequences=True), layers.Dense(1)])


def keras_tagging(task):
    return keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(task.sizes["words"], 32),
            layers.Bidirectional(layers.LSTM(32, return_sequences=True)),
            layers.Dense(task.sizes["tags"]),
        ]
    )


def keras_memory(task):
    return keras.Sequential([keras.Input((None, 2)), layers.LSTM(32), layers.Dense(1), layers.Reshape((1, 1))])


KERAS = {
    "characters": keras_characters,
    "translation": keras_translation,
    "captions": keras_captions,
    "plant": keras_plant,
    "system": keras_system,
    "forecast": keras_forecast,
    "tagging": keras_tagging,
    "memory": keras_memory,
}

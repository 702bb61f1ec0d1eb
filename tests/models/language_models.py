"""Language models of any memory, with random weights, and what their tests share."""

import keras
import numpy as np

import keras_seq
from keras_seq.models import LanguageModel, Vocabulary

TEXT = "to be or not to be, that is the question. " * 3
CHARACTERS = Vocabulary.of([TEXT], split="characters")
PAD, START, END = CHARACTERS.pad, CHARACTERS.start, CHARACTERS.end
SIZE, WIDTH = len(CHARACTERS), 5


def sequences(layer, *arguments, **named):
    return layer(*arguments, return_sequences=True, **named)


def mixture():
    """A stack of memories that carry a state and of layers that see so many steps, some within another stack."""
    convolutions = sequences(keras_seq.TCN, 4, kernel_size=2, dilations=[1, 2])
    inner = keras_seq.Stacked(
        [keras_seq.TDNN(3, context=[-2, 0]), sequences(keras_seq.GRU, 4), keras_seq.TDNN(4, delays=1)]
    )
    return keras_seq.Stacked([convolutions, sequences(keras_seq.LSTM, 4), inner], skips="dense")


MEMORIES = {
    "LSTM": lambda: sequences(keras_seq.LSTM, 6, learn_initial_state=True),
    "cell": lambda: sequences(keras_seq.RNN, keras_seq.PeepholeLSTMCell(6)),
    "Keras's cell": lambda: sequences(keras_seq.RNN, keras.layers.GRUCell(6)),
    "Jordan": lambda: sequences(keras_seq.Jordan, 6, outputs=4),
    "residual": lambda: keras_seq.Stacked(keras_seq.GRU, [6, 6], skips="residual", return_sequences=True),
    "TCN": lambda: sequences(keras_seq.TCN, 6, dilations=[1, 2]),
    "WaveNet": lambda: keras_seq.WaveNet(4, dilations=[1, 2]),
    "mixture": mixture,
}


def made(memory=None, vocabulary=CHARACTERS, scale=0.5, **arguments):
    memory = MEMORIES.get(memory, MEMORIES["LSTM"])() if memory is None or isinstance(memory, str) else memory
    model = LanguageModel(vocabulary, memory, **{"embedding_size": WIDTH, "max_length": 12, "seed": 1, **arguments})
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(scale=scale, size=weight.shape))
    return model


def drawn(rows, steps, seed=0):
    return np.random.default_rng(seed).integers(END + 1, SIZE, (rows, steps)).astype("int32")


def in_chunks(model, tokens, starts, steps):
    """Logits of tokens (b, t) given in chunks; `starts` (chunks, b)."""
    chunks = np.split(tokens, tokens.shape[1] // steps, axis=1)
    return np.concatenate([model((c, s)).numpy() for c, s in zip(chunks, np.array(starts, bool), strict=True)], axis=1)


def nats(logits, targets):
    """-ln softmax(logits) of targets that are no padding, by NumPy in float64."""
    logits, targets = np.asarray(logits, "float64"), np.asarray(targets)
    logits = logits - logits.max(-1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(p, targets[..., None], axis=-1)[..., 0][targets != PAD])

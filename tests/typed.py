"""A user's program as mypy reads it in lint: it passes, but for the lines that are marked, each of which must be an error."""

from typing import Any, assert_type

import keras

import keras_seq
from keras_seq.decoding import greedy
from keras_seq.models import Seq2Seq, Vocabulary

lstm = keras_seq.LSTM(
    32, "relu", return_sequences=True, peepholes=True, zoneout=[0.1, 0.0], dtype="float32", name="memory"
)
assert_type(lstm, keras_seq.LSTM)
keras_seq.LSTM("32")  # type: ignore[arg-type]
keras_seq.LSTM()  # type: ignore[call-arg]
keras_seq.LSTM(32, return_sequence=True)  # type: ignore[call-arg]
keras_seq.LSTM(32, use_cudnn="never")  # type: ignore[arg-type]
keras_seq.PeepholeLSTM(32, peepholes=False)  # type: ignore[call-arg]
keras_seq.GRU(32, recurrent_activation=keras.activations.sigmoid, reset_after=False, stateful=True)
keras_seq.GRU(32, dropout="much")  # type: ignore[arg-type]
keras_seq.Elman(8, outputs=2, blocked=False)
keras_seq.Elman(8, outputs=2.5)  # type: ignore[arg-type]

narx = keras_seq.NARX(8, 1, input_delays=[1, 3], closed=True)
assert_type(narx.open_loop(return_state=True), keras_seq.NARX)
keras_seq.NARX(8, 1, opened=True)  # type: ignore[call-arg]
assert_type(keras_seq.AR(outputs=1).close_loop(), keras_seq.AR)
keras_seq.AR(outputs=1, input_delays=2)  # type: ignore[call-arg]

keras_seq.RNN(keras_seq.LSTMCell(4), truncate=20, dtype="mixed_bfloat16")
keras_seq.RNN(keras_seq.LSTMCell(4), truncated=20)  # type: ignore[call-arg]
keras_seq.Cell(zoneouts=0.1)  # type: ignore[call-arg]
keras_seq.Bidirectional(keras_seq.GRU(4), lambda a, b: a + b)
keras_seq.TDNN(4, context=[-2, 0], activation=None)


class Own(keras_seq.LSTM):
    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)


assert_type(Own.from_config(Own(4).get_config()), Own)


class Leaky(keras_seq.GatedCell):
    def step(self, projected, states, constants=()):
        (h,) = states
        h = h / 2 + self.activation(projected + keras_seq.dot(h, self.recurrent_kernel)) / 2
        keras_seq.expose(hidden=h)
        return h, (h,)


keras_seq.RNN(Leaky(4))

words = Vocabulary.of(["to be", "or not"], max_words=3)
assert_type(words, Vocabulary)
model = Seq2Seq(words, words, keras_seq.GRU(4, return_sequences=True), pad_to=4)
texts = model.generate(["to be"], decoder="beam", width=3)
model.generate(["to be"], decoder=3)  # type: ignore[arg-type]
greedy(lambda tokens, state: (tokens, state), (), [[1]], end=2, max_length=5)
greedy(lambda tokens, state: (tokens, state), (), [[1]], end=2)  # type: ignore[call-arg]

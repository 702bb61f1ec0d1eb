"""Training and inference steps of our layers, of Keras's, and of torch's: what is timed."""

import json
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import keras_seq

GRID = ((1, 100, 32, 64), (16, 200, 64, 128), (32, 128, 128, 256), (64, 100, 512, 512), (8, 1000, 64, 128))


class MinimalGatedCell(keras_seq.GatedCell):
    """The README's example of a cell of one's own."""

    gates = ("forget", "candidate")

    def step(self, projected, states, constants=()):
        (h,) = states
        x_f, x_g = self.split(projected)
        u_f, u_g = self.split(self.recurrent_kernel)
        f = ops.sigmoid(x_f + keras_seq.dot(h, u_f))
        h = (1 - f) * h + f * self.activation(x_g + keras_seq.dot(f * h, u_g))
        return h, (h,)


def layers_of(ours, keras_own, **arguments):
    return lambda u: (
        ours(u, return_sequences=True, **arguments),
        keras_own(u, return_sequences=True, **arguments),
    )


def of_cell(cell, **arguments):
    """Our layer and Keras's over the very same step."""
    return lambda u: (
        keras_seq.RNN(cell(u, **arguments), return_sequences=True),
        keras.layers.RNN(cell(u, **arguments), return_sequences=True),
    )


class WholeJordanCell(keras_seq.JordanCell):
    """As many outputs as units."""

    def __init__(self, units):
        super().__init__(units, units)


PLAIN = {
    "LSTM": layers_of(keras_seq.LSTM, keras.layers.LSTM),
    "GRU": layers_of(keras_seq.GRU, keras.layers.GRU),
    "GRU, reset before": layers_of(keras_seq.GRU, keras.layers.GRU, reset_after=False),
    "SimpleRNN": layers_of(keras_seq.SimpleRNN, keras.layers.SimpleRNN),
}
VARIANTS = {
    "PeepholeLSTM": of_cell(keras_seq.PeepholeLSTMCell),
    "CoupledLSTM": of_cell(keras_seq.CoupledLSTMCell),
    "NoForgetLSTM": of_cell(keras_seq.NoForgetLSTMCell),
    "LSTM, normalised": of_cell(keras_seq.LSTMCell, normalize=True),
    "Jordan": of_cell(WholeJordanCell),
    "own cell (README)": of_cell(MinimalGatedCell),
}
MEMORIES = PLAIN | VARIANTS
# the same mathematics elsewhere
TORCH = {
    "LSTM": "torch.nn.LSTM",
    "GRU": "torch.nn.GRU",
    "SimpleRNN": "torch.nn.RNN",
    "PeepholeLSTM": "torchrecurrent.PeepholeLSTM",
    "NoForgetLSTM": "torchrecurrent.OriginalLSTM",
    "own cell (README)": "torchrecurrent.MGU",
}


def training_step(layer, cotangent):
    """The forward pass, and the gradients of the inputs and of all weights for this cotangent of all outputs."""

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) * cotangent)
        return tape.gradient(loss, [x, *layer.trainable_variables])

    return step


def data(size, units=None):
    """Random inputs (b, t, d) and a cotangent (b, t, u)."""
    b, t, d, u = size
    rng = np.random.default_rng(0)
    return (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((b, t, d), (b, t, units or u)))


def compiled(function, x, jit=True):
    """`(a function without arguments that runs it to the end, seconds of the first call)`."""
    traced = tf.function(function, jit_compile=jit, input_signature=[tf.TensorSpec(x.shape, x.dtype)])

    def run():
        tf.nest.flatten(traced(x))[-1].numpy()

    start = time.perf_counter()
    run()
    return run, time.perf_counter() - start


def contestants(name, size):
    """`(whose, pass, jit or graph) -> (a function that runs the step once, seconds of its first call)`."""
    x, cotangent = data(size)
    layers = dict(zip(("ours", "keras"), MEMORIES[name](size[-1]), strict=True))
    for layer in layers.values():
        layer.build(x.shape)
    layers["keras"].set_weights(layers["ours"].get_weights())
    return {
        (whose, kind, mode): compiled(function, x, mode == "jit")
        for whose, layer in layers.items()
        for mode in ("jit", "graph")
        for kind, function in (("train", training_step(layer, cotangent)), ("infer", layer))
    }


class Torch:
    """A process that has torch, told what to run; it says the milliseconds of each run."""

    def __init__(self, python=sys.executable):
        worker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_worker.py")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([python, worker], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.versions = self._ask(None)

    def _ask(self, question):
        try:
            if question is not None:
                self.process.stdin.write(json.dumps(question) + "\n")
                self.process.stdin.flush()
            return json.loads(self.process.stdout.readline() or "null")
        except BrokenPipeError:
            return None

    def contestant(self, name, size, kind):
        """A function that runs the peer of this memory once; None where there is none."""
        if self.versions is None or name not in TORCH:
            return None
        question = [TORCH[name], size, kind]
        return (lambda: self._ask(question)) if self._ask(question) is not None else None

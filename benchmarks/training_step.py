"""Training and inference steps of our layers beside Keras's, in turn in one process.

    python benchmarks/training_step.py                 # two sizes, LSTM, GRU, a cell of one's own: three minutes
    python benchmarks/training_step.py --sizes 1,100,32,64 16,200,64,128 --runs 15

A training step is the forward pass over (b, t, d) random inputs, and the gradients of all weights and of the inputs for a
random cotangent of all outputs. Each contestant is compiled by XLA (jit) and as a plain graph; Keras counts with the
better of its two. Where Keras has no such layer, `keras.layers.RNN` runs the very same cell. All contestants run in turn,
so that what else the machine does falls on all alike.
"""

import argparse
import os
import platform
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import keras_seq


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


def of_cell(cell):
    """Our layer and Keras's over the very same step."""
    return lambda u: (
        keras_seq.RNN(cell(u), return_sequences=True),
        keras.layers.RNN(cell(u), return_sequences=True),
    )


MEMORIES = {
    "SimpleRNN": layers_of(keras_seq.SimpleRNN, keras.layers.SimpleRNN),
    "LSTM": layers_of(keras_seq.LSTM, keras.layers.LSTM),
    "GRU": layers_of(keras_seq.GRU, keras.layers.GRU),
    "GRU, reset before": layers_of(keras_seq.GRU, keras.layers.GRU, reset_after=False),
    "PeepholeLSTM": of_cell(keras_seq.PeepholeLSTMCell),
    "CoupledLSTM": of_cell(keras_seq.CoupledLSTMCell),
    "NoForgetLSTM": of_cell(keras_seq.NoForgetLSTMCell),
    "own cell (README)": of_cell(MinimalGatedCell),
}


def training_step(layer, cotangent):
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) * cotangent)
        return tape.gradient(loss, [x, *layer.trainable_variables])

    return step


def contestants(name, size):
    """`(whose, pass, jit or graph) -> a function without arguments that runs the step once`."""
    b, t, d, u = size
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(b, t, d)), tf.float32)
    cotangent = tf.constant(rng.normal(size=(b, t, u)), tf.float32)
    layers = dict(zip(("ours", "keras"), MEMORIES[name](u), strict=True))
    for layer in layers.values():
        layer.build(x.shape)
    layers["keras"].set_weights(layers["ours"].get_weights())
    found = {}
    for whose, layer in layers.items():
        for jit in (True, False):
            for kind, function in (("train", training_step(layer, cotangent)), ("infer", layer)):
                compiled = tf.function(function, jit_compile=jit, input_signature=[tf.TensorSpec(x.shape)])
                found[whose, kind, "jit" if jit else "graph"] = lambda f=compiled: tf.nest.flatten(f(x))[-1].numpy()
    return found


def measure(found, runs):
    """Milliseconds of each run of each contestant, run in turn after two rounds of warm-up."""
    times = {key: [] for key in found}
    for round_ in range(runs + 2):
        for key, function in found.items():
            start = time.perf_counter()
            function()
            if round_ >= 2:
                times[key].append(1e3 * (time.perf_counter() - start))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["16,200,64,128", "32,128,128,256"], metavar="B,T,D,U")
    parser.add_argument(
        "--memories", nargs="+", default=["LSTM", "GRU", "GRU, reset before", "own cell (README)"], choices=MEMORIES
    )
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores; TensorFlow {tf.__version__}, Keras {keras.__version__}")
    print("ratio: least time of the better of Keras's two over the better of our two; milliseconds: least (median)\n")
    modes = " | ".join(f"{mode:16}" for mode in ("ours jit", "ours graph", "keras jit", "keras graph"))
    print(f"| {'B,T,D,U':16} | {'memory':18} | pass  | ratio | {modes} |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.sizes:
        for name in options.memories:
            times = measure(contestants(name, tuple(map(int, size.split(",")))), options.runs)
            for kind in ("train", "infer"):
                least = {w: min(min(times[w, kind, m]) for m in ("jit", "graph")) for w in ("ours", "keras")}
                cells = [
                    f"{min(times[w, kind, m]):7.2f} ({np.median(times[w, kind, m]):6.2f})"
                    for w in ("ours", "keras")
                    for m in ("jit", "graph")
                ]
                ratio = least["keras"] / least["ours"]
                print(f"| {size:16} | {name:18} | {kind} | {ratio:5.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

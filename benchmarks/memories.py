"""Every memory's training step beside that of our LSTM, in turn in one process.

    python benchmarks/memories.py                              # (b, t, d, u) = (16, 200, 64, 128): about five minutes
    python benchmarks/memories.py --sizes 32,128,128,256 --runs 10

A training step is the forward pass over (b, t, d) random inputs, and the gradients of all weights and of the inputs for a
random cotangent of all outputs; XLA. Each round runs every memory once and the LSTM before each, so that what else the
machine does falls on all alike; the ratio is that of the least times.
"""

import argparse
import os
import platform
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from training_step import MinimalGatedCell, training_step

import keras_seq

PEEPHOLES = {"peepholes": True}
MEMORIES = {
    "LSTM": lambda u, **f: keras_seq.LSTM(u, **f),
    "SimpleRNN": lambda u, **f: keras_seq.SimpleRNN(u, **f),
    "SimpleRNN, readout of u": lambda u, **f: keras_seq.SimpleRNN(u, outputs=u, **f),
    "Elman": lambda u, **f: keras_seq.Elman(u, outputs=u, **f),
    "Elman, blocked=False": lambda u, **f: keras_seq.Elman(u, outputs=u, blocked=False, **f),
    "Jordan": lambda u, **f: keras_seq.Jordan(u, u, **f),
    "Jordan, blocked=False": lambda u, **f: keras_seq.Jordan(u, u, blocked=False, **f),
    "Jordan, targets": lambda u, **f: keras_seq.Jordan(u, u, **f),
    "ResidualRNN": lambda u, **f: keras_seq.ResidualRNN(u, **f),
    "ResidualRNN, recurrent=False": lambda u, **f: keras_seq.ResidualRNN(u, recurrent=False, **f),
    "NARX(u, u), 2 delays, open": lambda u, **f: keras_seq.NARX(u, u, 2, 2, **f),
    "NARX(u, u), 2 delays, closed": lambda u, **f: keras_seq.NARX(u, u, 2, 2, closed=True, **f),
    "GRU": lambda u, **f: keras_seq.GRU(u, **f),
    "GRU, reset before": lambda u, **f: keras_seq.GRU(u, reset_after=False, **f),
    "LSTM V (peepholes)": lambda u, **f: keras_seq.PeepholeLSTM(u, **f),
    "LSTM NIG": lambda u, **f: keras_seq.LSTM(u, input_gate=False, **PEEPHOLES, **f),
    "LSTM NFG": lambda u, **f: keras_seq.LSTM(u, forget_gate=False, **PEEPHOLES, **f),
    "LSTM NOG": lambda u, **f: keras_seq.LSTM(u, output_gate=False, **PEEPHOLES, **f),
    "LSTM NIAF": lambda u, **f: keras_seq.LSTM(u, candidate_activation="linear", **PEEPHOLES, **f),
    "LSTM NOAF": lambda u, **f: keras_seq.LSTM(u, cell_activation="linear", **PEEPHOLES, **f),
    "LSTM CIFG": lambda u, **f: keras_seq.LSTM(u, coupled=True, **PEEPHOLES, **f),
    "LSTM FGR": lambda u, **f: keras_seq.LSTM(u, full_gate_recurrence=True, **PEEPHOLES, **f),
    "LSTM, layer normalisation": lambda u, **f: keras_seq.LSTM(u, normalize=True, **f),
    "LSTM, projection to u/2": lambda u, **f: keras_seq.LSTM(u, projection=u // 2, **f),
    "LSTM, clipped cell": lambda u, **f: keras_seq.LSTM(u, cell_clip=3.0, **f),
    "LSTM, recurrent dropout": lambda u, **f: keras_seq.LSTM(u, recurrent_dropout=0.1, **f),
    "LSTM, zoneout": lambda u, **f: keras_seq.LSTM(u, zoneout=0.1, **f),
    "LSTM, internals": lambda u, **f: keras_seq.LSTM(u, return_internals=True, **f),
    "own cell (README)": lambda u, **f: keras_seq.RNN(MinimalGatedCell(u), **f),
}


class _First:
    """A layer of which the first result counts; with true outputs where it wants them."""

    def __init__(self, layer, targets):
        self.layer, self.targets = layer, targets

    @property
    def trainable_variables(self):
        return self.layer.trainable_variables

    def __call__(self, x, training):
        results = self.layer(x, training=training, **self.targets)
        return results[0] if isinstance(results, tuple) else results


def compiled(name, size):
    """A function that runs one training step, the number of parameters, and the seconds that compiling took."""
    b, t, d, u = size
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(b, t, d)), tf.float32)
    layer = MEMORIES[name](u, return_sequences=True)
    layer.build(x.shape)
    wanted = "targets" in name or "open" in name
    targets = {"targets": tf.constant(rng.normal(size=(b, t, u)), tf.float32)} if wanted else {}
    first = _First(layer, targets)
    cotangent = tf.constant(rng.normal(size=(b, t, layer.cell.output_size)), tf.float32)
    step = tf.function(training_step(first, cotangent), jit_compile=True, input_signature=[tf.TensorSpec(x.shape)])
    start = time.perf_counter()
    step(x)
    return lambda: step(x)[-1].numpy(), layer.count_params(), time.perf_counter() - start


def timed(function):
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["16,200,64,128"], metavar="B,T,D,U")
    parser.add_argument("--memories", nargs="+", default=list(MEMORIES), choices=MEMORIES)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores; TensorFlow {tf.__version__}, Keras {keras.__version__}; XLA")
    for size in options.sizes:
        size = tuple(map(int, size.split(",")))
        steps, parameters, seconds = {}, {}, {}
        for name in options.memories:
            print(f"compiling {name}", end="\033[K\r", flush=True)
            steps[name], parameters[name], seconds[name] = compiled(name, size)
        lstm = compiled("LSTM", size)[0]
        times, beside = ({name: [] for name in steps} for _ in range(2))
        for round_ in range(options.runs + 1):
            print(f"round {round_} of {options.runs}", end="\033[K\r", flush=True)
            for name, step in steps.items():
                pair = timed(lstm), timed(step)
                if round_:
                    beside[name].append(pair[0])
                    times[name].append(pair[1])
        print(f"\n(b, t, d, u) = {size}; time: least (median) ms; ratio: to the LSTM's least beside it\n")
        print(f"| {'memory':30} | parameters | {'time':15} | ratio | compile |")
        print("|---|---|---|---|---|")
        for name in steps:
            ratio = min(times[name]) / min(beside[name])
            time_ = f"{min(times[name]):6.1f} ({np.median(times[name]):6.1f})"
            print(f"| {name:30} | {parameters[name]:10,} | {time_:15} | {ratio:5.2f} | {seconds[name]:5.1f} s |")


if __name__ == "__main__":
    main()

"""What an `OnlineLearner` learns and how fast it steps.

    python benchmarks/online.py                      # both tables: some minutes

1. A delayed echo: a stream of random signs, of which the learner says what came some steps before. Squared error of
   predictions made before the answer is shown, averaged over the last tenth of the samples so far; 1 is that of no memory.
   Real-time recurrent learning beside the same memory with the same start whose gradient is that of the current step alone
   (k = 1): an Elman network with and without gradients through its context. Medians over seeds.
2. Steps per second of `OnlineLearner.learn`, by each rule, beside a Python loop over `train_on_batch` of a stateful layer
   with one step to a batch, in turn, the best of several runs.
"""

import argparse
import os
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from timing import in_turn, table

import keras_seq
from keras_seq.training import OnlineLearner

warnings.filterwarnings("ignore", ".*lets no gradient through its states")


def echo(samples, delay, seed):
    """A stream of signs (samples, 1, 1), and what came `delay` steps before."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], samples + delay).astype("float32").reshape(-1, 1, 1)
    return signs[delay:], signs[:-delay]


def learner(blocked, units, seed):
    keras.utils.set_random_seed(seed)  # the same start, whatever the gradient
    cell = keras_seq.ElmanCell(units, outputs=1, blocked=blocked)
    found = OnlineLearner(cell, features=1)
    found.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0), "mse", jit_compile=True)
    return found


def errors(blocked, delay, samples, units, seed):
    """The squared error of each prediction."""
    model = learner(blocked, units, seed)
    return np.array(
        [float(model.learn(x, y)[0, 0] - y[0, 0]) ** 2 for x, y in zip(*echo(samples, delay, seed), strict=True)]
    )


def learned(options):
    """The first table."""
    marks = [options.samples * n // 10 for n in (1, 3, 10)]
    rows = []
    for delay in options.delays:
        for name, blocked in (("RTRL", False), ("k = 1", True)):
            runs = [errors(blocked, delay, options.samples, options.units, seed) for seed in range(options.seeds)]
            means = [[np.mean(e[mark - mark // 10 : mark]) for mark in marks] for e in runs]
            rows.append((delay, name, *(f"{m:.3f}" for m in np.median(means, axis=0))))
            print(*rows[-1], flush=True)
    return table(("delay", "gradient", *(f"after {mark:,}" for mark in marks)), rows)


def stepping(function, stream, count):
    """A run of so many steps."""

    def run():
        for x, y in zip(*(part[:count] for part in stream), strict=True):
            function(x, y)

    return run


def speed(options):
    """The second table."""
    stream, rows = echo(options.steps, 3, 0), []
    for units in (8, 32):
        for jit in (False, True):
            functions = {}
            for rule in ("rtrl", "snap1", "uoro"):
                model = OnlineLearner(keras_seq.SimpleRNNCell(units, outputs=1, seed=1), 1, rule=rule)
                model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit)
                functions[rule] = stepping(model.learn, stream, options.steps)
            for name, layer in (("keras_seq", keras_seq.SimpleRNN), ("Keras", keras.layers.SimpleRNN)):
                loop = keras.Sequential(
                    [keras.Input(batch_shape=(1, 1, 1)), layer(units, stateful=True), keras.layers.Dense(1)]
                )
                loop.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit)
                functions[name] = stepping(lambda x, y, m=loop: m.train_on_batch(x[None], y), stream, options.steps)
            times = {name: min(t) for name, t in in_turn(functions, runs=5, warm_up=1).items()}
            rows.append(
                (units, "XLA" if jit else "graph", *(f"{1e3 * options.steps / t:,.0f}" for t in times.values()))
            )
            print(*rows[-1], flush=True)
    columns = ("units", "mode", "RTRL", "SnAp-1", "UORO", "train_on_batch, keras_seq", "train_on_batch, Keras")
    return table(columns, rows)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10000)
    parser.add_argument("--delays", nargs="+", type=int, default=[1, 2, 3, 5, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500, help="of a run that is timed")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    print(f"{learned(options)}\n\n{speed(options)}\n\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

"""Recurrences without a loop over time: milliseconds beside the loop, and how many levels depend on one another.

python benchmarks/scans.py            # five minutes; prints two tables
python benchmarks/scans.py --lengths 1024 8192 --runs 3
"""

import argparse
import operator
import time

import keras
import numpy as np
import tensorflow as tf
import timing
from hlo import Program

import keras_seq
from keras_seq.engine import pairs

ROWS, WIDTH = 2, 64
CELLS = {
    "MinGRU": keras_seq.MinGRUCell,
    "MinLSTM": keras_seq.MinLSTMCell,
    "LRU": keras_seq.LRUCell,
    "LinearRNN, diagonal": keras_seq.LinearRNNCell,
    "LinearRNN, full": lambda units: keras_seq.LinearRNNCell(units, transition="full"),
}


def layer_of(cell):
    layer = keras_seq.RNN(cell, return_sequences=True)
    layer.build((ROWS, None, WIDTH))
    return layer


def step_of(layer, jit, train):
    """A compiled function from sequences to what a call of the layer, or a training step of it, gives."""

    def run(x):
        if not train:
            return layer(x)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(x, training=True) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    return tf.function(run, jit_compile=jit)


def looped(make):
    """The same cell, whose states nobody knows before they are there."""
    cell = make(WIDTH)
    cell.states_before = lambda forced: None
    return cell


def least(function, x, runs):
    """The least milliseconds of a call."""
    keras.tree.map_structure(np.asarray, function(x))
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        keras.tree.map_structure(np.asarray, function(x))
        seconds.append(time.perf_counter() - begun)
    return 1000 * min(seconds)


def by_pairs(times):
    """A compiled function of a recurrence by pairs: coefficients, what comes in, and the first state, to all states."""

    def run(a, b, initial):
        return pairs.recurrence_by_pairs(a, b, initial, times)

    return tf.function(run, jit_compile=True)


def levels(length, rows=1, width=4):
    """Kernels that depend on one another, one after the other, in the program that XLA makes of the recurrence by pairs."""
    a, b = (tf.random.uniform((length, rows, width)) for _ in range(2))
    return Program(by_pairs(operator.mul).experimental_get_compiler_ir(a, b, b[0])(stage="optimized_hlo")).depth()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 8192, 65536])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    options = parser.parse_args()
    rows = []
    for name in options.cells:
        for length in options.lengths:
            x = tf.random.normal((ROWS, length, WIDTH))
            for jit in (True, False):
                figures = []
                for train in (False, True):
                    pair = []
                    for cell in (CELLS[name](WIDTH), looped(CELLS[name])):
                        pair.append(least(step_of(layer_of(cell), jit, train), x, options.runs))
                    figures += [f"{pair[0]:.1f}", f"{pair[1]:.1f}", f"{pair[1] / pair[0]:.1f}"]
                rows.append([name, str(length), "XLA" if jit else "graph", *figures])
                print(rows[-1], flush=True)
    print(f"\n{ROWS} rows of {WIDTH} units, milliseconds, least of {options.runs}\n")
    columns = ["cell", "steps", "mode", "at once", "loop", "ratio", "training at once", "loop", "ratio"]
    print(timing.table(columns, rows))
    print("\nKernels one after the other, recurrence by pairs (XLA, processors)\n")
    print(timing.table(["steps", "levels"], [[str(n), str(levels(n))] for n in (64, 256, 1024, 4096, 16384)]))


if __name__ == "__main__":
    main()

"""Newton's method over all steps beside the loop: iterations, levels that wait for one another, milliseconds.

python benchmarks/newton.py            # some minutes; prints one table
python benchmarks/newton.py --lengths 100 1000 --runs 2 --units 8
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
import timing
from scans import least, step_of

import keras_seq
from keras_seq.analysis import newton_report

ROWS, WIDTH = 2, 4
LAYERS = {"SimpleRNN": keras_seq.SimpleRNN, "GRU": keras_seq.GRU, "LSTM": keras_seq.LSTM}


def pair(name, units, jacobian, length):
    """`(layer by Newton's method, the same by the loop)`."""
    layers = []
    for solver in (keras_seq.Newton(jacobian=jacobian), None):
        keras.utils.set_random_seed(0)
        layers.append(LAYERS[name](units, return_sequences=True, solver=solver))
        layers[-1].build((ROWS, length, WIDTH))
    return layers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--units", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for name in options.layers:
        for units in options.units:
            jacobian = "full" if units <= 8 else "diagonal"
            for length in options.lengths:
                x = np.random.default_rng(0).normal(size=(ROWS, length, WIDTH)).astype("float32")
                solved, plain = pair(name, units, jacobian, length)
                (told,) = newton_report(solved, x, lengths=[length]).lengths
                figures = []
                for jit in (False, True):
                    for train in (False, True):
                        found = [
                            least(step_of(layer, jit, train), tf.constant(x), options.runs) for layer in (solved, plain)
                        ]
                        figures.append("{:.1f} / {:.1f}".format(*found))
                iterations = f"{told.iterations}" if told.converged else f"{told.iterations}, then the loop"
                rows.append([f"{name}({units})", jacobian, f"{length:,}", iterations, f"{told.levels:,}", *figures])
                print(rows[-1], flush=True)
    print(f"\n{ROWS} rows; milliseconds by Newton's method / by the loop, least of {options.runs}\n")
    columns = ["layer", "Jacobian", "steps", "iterations", "levels", "graph", "training", "XLA", "training"]
    print(timing.table(columns, rows))


if __name__ == "__main__":
    main()

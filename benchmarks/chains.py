"""A TreeLSTM over chains beside the LSTM: a training step of trees that have as many levels as nodes, their worst case.

python benchmarks/chains.py            # a minute; prints one table
python benchmarks/chains.py --nodes 500 --runs 2
"""

import argparse

import numpy as np
import tensorflow as tf
import timing
from scans import least

import keras_seq


def training_step(layer, jit, **further):
    """A compiled function from inputs to the gradients of the weights."""

    def run(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(x, **further) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    return tf.function(run, jit_compile=jit)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    x = tf.random.normal((options.rows, options.nodes, options.units))
    chain = tf.constant(np.tile(np.arange(-1, options.nodes - 1)[None, :, None], (options.rows, 1, 1)))
    tree = keras_seq.TreeLSTM(options.units, return_nodes=True)
    tree.build(x.shape, chain.shape)
    lstm = keras_seq.LSTM(options.units, return_sequences=True)
    lstm.build(x.shape)
    rows = []
    for jit in (False, True):
        steps = training_step(tree, jit, children=chain), training_step(lstm, jit, training=True)
        tree_ms, lstm_ms = (least(step, x, options.runs) for step in steps)
        rows.append(["XLA" if jit else "graph", f"{tree_ms:.0f}", f"{lstm_ms:.1f}", f"{tree_ms / lstm_ms:.0f}"])
    print(f"{options.rows} chains of {options.nodes:,} nodes, {options.units} units, milliseconds of a training step\n")
    print(timing.table(["mode", "TreeLSTM", "LSTM", "ratio"], rows))


if __name__ == "__main__":
    main()

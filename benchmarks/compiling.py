"""Processor seconds until the first training step, and until the first of another length, beside Keras: tracing and compiling.

python benchmarks/compiling.py            # six minutes; prints a table
python benchmarks/compiling.py --models "four bidirectional LSTMs" --runs 5

Each figure is the least of several runs, each in a process of its own, ours and Keras's in turn.
"""

import argparse
import json
import subprocess
import sys
import time

BATCH, FEATURES, LENGTHS = 8, 16, (20, 30)
TRANSLATOR, READER = "Seq2Seq with attention", "a GRU that attends at each step"


def stacks(layers):
    """What is trained, by name, of these layers."""
    return {
        "one LSTM": lambda: [layers.LSTM(32, return_sequences=True)],
        "one GRU": lambda: [layers.GRU(32, return_sequences=True)],
        "one LSTM of 128 units": lambda: [layers.LSTM(128, return_sequences=True)],
        "four bidirectional LSTMs": lambda: [
            layers.Bidirectional(layers.LSTM(32, return_sequences=True)) for _ in range(4)
        ],
    }


def sequences(whose, name):
    """`(a model, a function from a length to what it is trained on)`."""
    import keras
    import tensorflow as tf

    import keras_seq

    made = stacks(keras_seq if whose == "keras_seq" else keras.layers)[name]()
    model = keras.Sequential([keras.Input((None, FEATURES)), *made, keras.layers.Dense(3)])
    return model, lambda length: (tf.random.normal((BATCH, length, FEATURES)), tf.random.normal((BATCH, length, 3)))


def reader(whose):
    """Additive attention within the loop: our `AttentionCell`, or a cell written for `keras.layers.RNN`."""
    import keras
    import tensorflow as tf
    from keras import layers, ops

    import keras_seq

    class Cell(layers.Layer):
        """It finds what it reads in attributes, as Keras's loop hands on no constants."""

        def __init__(self, units):
            super().__init__()
            self.cell, self.state_size = layers.GRUCell(units), units
            self.query, self.score = layers.Dense(units, use_bias=False), layers.Dense(1, use_bias=False)
            self.joined = layers.Dense(units, "tanh", use_bias=False)

        def build(self, shape):
            units = self.state_size
            for part, width in (
                (self.cell, shape[-1]),
                (self.query, units),
                (self.score, units),
                (self.joined, 2 * units),
            ):
                part.build((None, width))

        def call(self, x, states, training=False):
            h, _ = self.cell(x, states)
            weights = ops.softmax(self.score(ops.tanh(self.query(h)[:, None] + self.keys))[..., 0])
            return self.joined(ops.concatenate([ops.einsum("bs,bsd->bd", weights, self.memory), h], -1)), [h]

    class Reader(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.keys, self.rnn = layers.Dense(units), layers.RNN(Cell(units), return_sequences=True)

        def build(self, x_shape, memory_shape):
            self.keys.build(memory_shape)
            self.rnn.build(x_shape)

        def call(self, x, memory):
            self.rnn.cell.memory, self.rnn.cell.keys = memory, self.keys(memory)
            return self.rnn(x)

    x, memory = keras.Input((None, FEATURES)), keras.Input((None, 64))
    if whose == "keras_seq":
        cell = keras_seq.AttentionCell(keras_seq.GRUCell(64), output_units=64)
        outputs = keras_seq.RNN(cell, return_sequences=True)(x, constants=[memory])
    else:
        outputs = Reader(64)(x, memory)

    def data(length):
        return [tf.random.normal((BATCH, length, n)) for n in (FEATURES, 64)], tf.random.normal((BATCH, length, 64))

    return keras.Model([x, memory], outputs), data


def translator(whose):
    """The plain model of benchmarks/learners.py, whose attention stands after the loop, or ours, where it is within."""
    import types

    import learners
    import numpy as np

    words = [f"w{i}" for i in range(500)]
    task = types.SimpleNamespace(vocabularies=(words, words), targets=np.arange(500))
    model = learners.translation(task) if whose == "keras_seq" else learners.keras_translation(task)
    draw = np.random.default_rng(0).integers
    return model, lambda length: ([draw(5, 400, (BATCH, length)) for _ in range(2)], draw(5, 400, (BATCH, length)))


def measured(whose, name, jit):
    """Seconds of the processors until the first step of each length is done, in this process; NaN if it fails."""
    import keras
    import tensorflow as tf

    make = {TRANSLATOR: translator, READER: reader}.get(name)
    model, data = make(whose) if make else sequences(whose, name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if name == TRANSLATOR else "mse"
    model.compile("adam", loss, jit_compile=jit)
    seconds = []
    for length in LENGTHS:
        x, y = data(length)
        begun = time.process_time()
        try:
            model.train_on_batch(x, y)
            seconds.append(time.process_time() - begun)
        except tf.errors.InvalidArgumentError:  # Keras's loop, where XLA cannot know how many steps to keep
            seconds.append(float("nan"))
    return seconds


def in_a_process(*given):
    found = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(given)], capture_output=True, text=True, check=True
    )
    return json.loads(found.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*stacks(None), READER, TRANSLATOR]
    parser.add_argument("--models", nargs="+", default=names, choices=names, metavar="MODEL", help="; ".join(names))
    parser.add_argument("--runs", type=int, default=3, help="processes for each figure (default: 3)")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(*options.one)))
        return
    print("| model | mode | keras_seq: first, other length | Keras: first, other length | ratio |")
    print("|---|---|---|---|---|")
    for name in options.models:
        for mode, jit in (("graph", False), ("XLA", True)):
            runs = {"keras_seq": [], "keras": []}
            for _ in range(options.runs):
                for whose, found in runs.items():
                    found.append(in_a_process(whose, name, jit))
            ours, theirs = ([min(times) for times in zip(*found, strict=True)] for found in runs.values())
            shown = [", ".join(f"{s:.2f}" for s in seconds) for seconds in (ours, theirs)]
            ratio = ", ".join(f"{a / b:.2f}" for a, b in zip(ours, theirs, strict=True))
            print(f"| {name} | {mode} | {shown[0]} | {shown[1]} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()

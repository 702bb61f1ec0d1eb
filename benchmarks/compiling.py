"""Seconds until the first training step, and until the first of another length: tracing and compiling, beside Keras.

python benchmarks/compiling.py            # three minutes; prints a table
python benchmarks/compiling.py --models "four bidirectional LSTMs" --runs 5

Each figure is the least of several runs, each in a process of its own, ours and Keras's in turn.
"""

import argparse
import json
import subprocess
import sys
import time

BATCH, FEATURES, LENGTHS = 8, 16, (20, 30)


def models(layers):
    """What is trained, by name, of these layers."""
    return {
        "one LSTM": lambda: [layers.LSTM(32, return_sequences=True)],
        "one GRU": lambda: [layers.GRU(32, return_sequences=True)],
        "one LSTM of 128 units": lambda: [layers.LSTM(128, return_sequences=True)],
        "four bidirectional LSTMs": lambda: [
            layers.Bidirectional(layers.LSTM(32, return_sequences=True)) for _ in range(4)
        ],
    }


def measured(whose, name, jit):
    """Seconds until the first step of each length, in this process."""
    import keras
    import tensorflow as tf

    import keras_seq

    made = models(keras_seq if whose == "keras_seq" else keras.layers)[name]()
    model = keras.Sequential([keras.Input((None, FEATURES)), *made, keras.layers.Dense(3)])
    model.compile("adam", "mse", jit_compile=jit)
    seconds = []
    for length in LENGTHS:
        x, y = tf.random.normal((BATCH, length, FEATURES)), tf.random.normal((BATCH, length, 3))
        begun = time.perf_counter()
        model.train_on_batch(x, y)
        seconds.append(time.perf_counter() - begun)
    return seconds


def in_a_process(*given):
    found = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(given)], capture_output=True, text=True, check=True
    )
    return json.loads(found.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(models(None)), help="which of the models (default: all)")
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

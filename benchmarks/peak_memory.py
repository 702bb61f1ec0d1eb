"""Peak memory of a training step of the LSTM against the number of steps, each in a process of its own.

    python benchmarks/peak_memory.py
    python benchmarks/peak_memory.py --size 16,64,128 --steps 500 1000 2000 4000

The peak is that of the whole process, TensorFlow's own half gigabyte included; the inputs and their gradient grow with t in
any case, and are the column `inputs alone`.
"""

import argparse
import os
import subprocess
import sys
import time

import growth
import timing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

WAYS = {
    "all kept": {},
    "checkpoint=True": {"checkpoint": True},
    "truncate=50": {"truncate": 50},
    "inputs alone": None,
}


def measure(way, b, t, d, u):
    """The peak memory of this process in MiB, and milliseconds of a step."""
    import tensorflow as tf

    import keras_seq

    layer = keras_seq.LSTM(u, **(WAYS[way] or {}))
    layer.build((b, t, d))

    @tf.function(jit_compile=True)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = tf.reduce_sum(x * x) if WAYS[way] is None else tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(result, [x] if WAYS[way] is None else [x, *layer.trainable_variables])

    step(tf.zeros((b, t, d)))
    times = []
    for _ in range(4):
        start = time.perf_counter()
        step(tf.random.normal((b, t, d)))[0].numpy()
        times.append(1e3 * (time.perf_counter() - start))
    return growth.peak(), min(times)


def measure_all(size, lengths, say=lambda text: None):
    """The table of all ways and lengths, for a size "b,d,u"."""
    b, d, u = size.split(",")
    rows = []
    for t in lengths:
        cells = []
        for way in WAYS:
            say(f"peak memory: {way}, t = {t}")
            command = [sys.executable, __file__, "--one", way, b, str(t), d, u]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            high, least = map(float, done.stdout.split())
            cells.append(f"{high:.0f} ({least:.1f})")
        rows.append((t, *cells))
    return timing.table(("t", *WAYS), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="16,64,128", metavar="B,D,U")
    parser.add_argument("--steps", nargs="+", type=int, default=[250, 1000, 4000])
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, *size = options.one
        print(*measure(way, *map(int, size)))
        return
    print(f"(b, d, u) = ({options.size}); peak memory of the process in MiB (a training step in ms)\n")
    print(measure_all(options.size, options.steps))


if __name__ == "__main__":
    main()

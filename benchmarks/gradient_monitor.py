"""What `GradientMonitor` costs at its default interval: a training step with and without it, in turn.

    python benchmarks/gradient_monitor.py

Milliseconds of a training step, and of a measurement, whose program is compiled before; the share that the monitor takes is
the one by `interval` of the other. Beside it, what was seen: `model.fit` over as many batches as there are from one
measurement to the next, with the monitor and without, the median of eleven pairs. Other times are the least of the runs.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from timing import in_turn, median, table

import keras_seq
from keras_seq.training import GradientMonitor

SIZES = ((8, 100, 32, 64), (16, 128, 64, 128))  # b, t, d, u
MODELS = {
    "LSTM": lambda u: [keras_seq.LSTM(u)],
    "two GRUs": lambda u: [keras_seq.GRU(u, return_sequences=True), keras_seq.GRU(u)],
    "keras.layers.LSTM": lambda u: [keras.layers.LSTM(u)],
}


class Quiet(keras.callbacks.Callback):
    """Does nothing, so that `fit` has a callback in either case."""

    def on_train_batch_end(self, batch, logs=None):
        pass

    async_safe = True


def contestants(layers, size, jit):
    """`{name: a run of training}`, a measurement with every `interval` steps, and the interval."""
    b, t, d, u = size
    model = keras.Sequential([keras.Input((t, d)), *layers(u), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit)
    x, y = np.random.default_rng(0).normal(size=(b, t, d)).astype("float32"), np.ones((b, 1), "float32")
    monitor = GradientMonitor((x, y))
    data = tf.data.Dataset.from_tensors((x, y)).repeat()

    def run(callback):
        def fit():
            model.fit(data, steps_per_epoch=monitor.interval, verbose=0, callbacks=[callback])

        return fit

    return {"without": run(Quiet()), "with": run(monitor)}, monitor


def main():
    rows = []
    for size in SIZES:
        for name, layers in MODELS.items():
            for jit in (False, True):
                functions, monitor = contestants(layers, size, jit)
                times = in_turn(functions, runs=11)
                step = min(times["without"]) / monitor.interval
                seen = median([a / b for a, b in zip(times["with"], times["without"], strict=True)]) - 1
                one = min(in_turn({"measure": monitor.measure}, runs=20)["measure"])
                share = one / (monitor.interval * step)
                row = (
                    name,
                    size,
                    "XLA" if jit else "graph",
                    f"{step:.2f}",
                    f"{one:.2f}",
                    f"{share:.1%}",
                    f"{seen:+.1%}",
                )
                rows.append(row)
                print(*row, flush=True)
    columns = ("model", "b, t, d, u", "mode", "step (ms)", "measurement (ms)", "share, interval 100", "seen")
    print(table(columns, rows))


if __name__ == "__main__":
    main()

"""How exact the gradient of CTC's loss is in float32, beside TensorFlow's: both against ours in float64.

python benchmarks/ctc_gradients.py          # a minute; prints a table
"""

import numpy as np
import tensorflow as tf
import timing

from keras_seq.decoding import ctc_loss

ROWS, SYMBOLS = 2, 30
# frames, labels, standard deviation of the logits
SIZES = [(400, 20, 1.0), (400, 150, 1.0), (400, 150, 5.0), (1500, 100, 1.0)]


def theirs(labels, logits):
    """`tf.nn.ctc_loss` of labels that fill their rows."""
    counts = tf.fill([ROWS], labels.shape[1]), tf.fill([ROWS], logits.shape[1])
    return tf.nn.ctc_loss(labels, logits, *counts, logits_time_major=False, blank_index=0)


@tf.function
def slopes(loss, labels, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss(labels, logits)
    return tape.gradient(losses, logits)


def rows():
    for frames, count, scale in SIZES:
        rng = np.random.default_rng(0)
        labels = tf.constant(rng.integers(1, SYMBOLS, size=(ROWS, count)), "int32")
        logits = tf.constant(scale * rng.normal(size=(ROWS, frames, SYMBOLS)), "float32")
        exact = slopes(ctc_loss, labels, tf.cast(logits, "float64")).numpy()
        found = [slopes(loss, labels, logits).numpy().astype("float64") for loss in (ctc_loss, theirs)]
        errors = [np.abs(x - exact).max() for x in found]
        left = [np.abs(x.sum(axis=-1)).max() for x in found]
        yield frames, count, scale, *(f"{x:.1e}" for x in (*errors, *left))


if __name__ == "__main__":
    columns = ("frames", "labels", "logits", "error, ours", "error, TensorFlow", "sum of a frame, ours", "TensorFlow")
    print(timing.table(columns, list(rows())))

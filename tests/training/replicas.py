"""A model of each kind of loss learns on several replicas what it learns on one: run under MirroredStrategy or by workers.

python replicas.py 2 masks rows      # two devices of this process
TF_CONFIG=.. python replicas.py 0 masks rows     # a worker of several
"""

import functools
import os
import sys
import unittest.mock

import keras
import numpy as np
import tensorflow as tf

import keras_seq
from keras_seq.decoding import CTCLoss
from keras_seq.training import fit_distributed, worker_strategy

RNG = np.random.default_rng(3)
LENGTHS = np.array([6, 1, 5, 6, 2, 4, 0, 0])  # real steps; in batches of four one replica has none of the last
X = RNG.normal(size=(8, 6, 3)).astype("float32") * (np.arange(6) < LENGTHS[:, None])[..., None]
Y = RNG.normal(size=(8, 6, 2)).astype("float32")
LABELS = np.where(X[..., 0] != 0, RNG.integers(1, 2, (8, 6)), 0)
WEIGHTS = np.array([4, 0, 1, 1, 0.5, 2, 0.1, 0.1], "float32")[:, None]


def memory(masked=True, units=2, **kwargs):
    inputs = keras.Input((None, 3))
    x = keras.layers.Masking()(inputs) if masked else inputs
    x = keras_seq.SimpleRNN(4, return_sequences=True, **kwargs)(x)
    return inputs, keras.layers.Dense(units, name="scores")(x)


def case(*, loss="mse", data=(X, Y), batch=4, model=memory, validates=False, **compiling):
    return loss, data, batch, model, validates, compiling


def two_outputs():
    inputs, scores = memory()
    return inputs, {"scores": scores, "last": keras.layers.Dense(1, name="last")(scores[:, -1])}


class Watches(keras.layers.Layer):
    """Keeps a moving mean of what it is given, of which it changes nothing."""

    def build(self, shape):
        self.mean = self.add_weight(shape=shape[-1:], initializer="zeros", trainable=False)

    def call(self, inputs, training=False):
        if training:
            self.mean.assign(0.5 * self.mean + 0.5 * keras.ops.mean(inputs, (0, 1)))
        return inputs


def behind(layer):
    inputs, scores = memory(False)
    return inputs, layer(scores)


TARGETS = {"scores": Y, "last": Y[:, 0, :1]}
CASES = {
    "masks": case(metrics=["mae"], weighted_metrics=["mse"], validates=True),
    "by weights": case(
        loss=lambda: keras.losses.MeanSquaredError("mean_with_sample_weight"),
        data=(X, Y, WEIGHTS),
        model=lambda: memory(False),
        weighted_metrics=["mae"],
        optimizer=lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.2, 1, 0.5)),
    ),
    "sums": case(loss=lambda: keras.losses.MeanSquaredError("sum"), batch=3),
    "rows": case(batch=5, model=lambda: memory(False), metrics=["mae"]),
    "rows and masks": case(batch=3, metrics=["mae"]),
    "ignored labels": case(
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
        data=(X, LABELS),
        model=lambda: memory(False),
    ),
    "ctc": case(loss=CTCLoss, data=(X, LABELS[:, :1]), batch=3, model=lambda: memory(units=3)),
    "added": case(
        batch=3,
        model=lambda: memory(False, recurrent_regularizer="l2", activity_regularizer=keras.regularizers.L2(0.1)),
    ),
    "two outputs": case(
        loss=lambda: {"scores": "mse", "last": "mae"},
        data=(X, TARGETS, {"scores": WEIGHTS, "last": WEIGHTS[:, 0]}),
        batch=3,
        model=two_outputs,
        loss_weights={"scores": 2.0, "last": 0.5},
    ),
    "moving means": case(model=lambda: behind(Watches()), validates=True),
    "normalized by all": case(
        batch=3, model=lambda: behind(keras.layers.BatchNormalization(momentum=0.5, synchronized=True))
    ),
    "eager": case(loss=lambda: lambda y, p: keras.ops.mean(abs(y - p), -1), batch=3, run_eagerly=True),
    # of one row: the step is left out by all, and the scale of the loss halved
    "infinite gradients": case(
        data=(X, np.where(np.arange(8)[:, None, None] == 3, np.float32(1000), Y)),
        model=lambda: memory(False),
        optimizer=lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1e37),
    ),
}


def trained(name, strategy):
    keras.utils.set_random_seed(1)
    loss, data, batch, parts, validates, compiling = CASES[name]
    data = tf.data.Dataset.from_tensor_slices(data).batch(batch)
    with strategy.scope():
        model = keras.Model(*parts())
        made = {key: value() if callable(value) else value for key, value in compiling.items()}
        settings = {"optimizer": keras.optimizers.SGD(0.1), "loss": loss() if callable(loss) else loss, **made}
        model.compile(jit_compile=False, **settings)
    history = fit_distributed(model, data, 2, validation_data=data if validates else None, verbose=0).history
    return history, [w.numpy() for w in (*model.weights, *model.optimizer.variables)]


def differences(name, strategy):
    """The largest, relative to 1 or more, of what is shown and of the weights, between the replicas and one."""
    shown, weights = trained(name, strategy)
    expected, of_one = of_one_process(name)
    assert set(shown) == set(expected)
    return (
        max(apart(shown[key], expected[key]) for key in expected),
        max(apart(a, b) for a, b in zip(weights, of_one, strict=True)),
    )


@functools.lru_cache
def of_one_process(name):
    with unittest.mock.patch.dict(os.environ):
        os.environ.pop("TF_CONFIG", None)
        return trained(name, tf.distribute.get_strategy())


def apart(a, b):
    return float(np.max(np.abs(np.subtract(a, b)) / np.maximum(1, np.abs(b))))


def two_devices():
    """A strategy of two devices of this process, in which TensorFlow must not have begun."""
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


if __name__ == "__main__":
    strategy = worker_strategy(60) if "TF_CONFIG" in os.environ else two_devices()
    for name in sys.argv[1:] or CASES:
        print(name, *differences(name, strategy), sep="\t", flush=True)

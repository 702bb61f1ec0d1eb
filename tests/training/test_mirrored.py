"""Training on two devices of one process, which runs in a process of its own."""

import subprocess
import sys

import pytest
from clusters import RUN

pytestmark = pytest.mark.deep

MIRRORED = """
import sys
import numpy as np, tensorflow as tf
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
import keras, keras_seq
from keras_seq.training import TruncatedBPTT, fit_distributed, stream_chunks
TWO = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
x, y = (np.random.default_rng(1).normal(size=(4, 8, n)).astype("float32") for n in (3, 2))

class Breaks(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt

def trained(strategy, backup=None, callbacks=(), keras_fit=False, rows=4, moving=(), **compiling):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        parts = [keras_seq.SimpleRNN(5, return_sequences=True), *moving, keras.layers.Dense(2)]
        model = TruncatedBPTT(keras.Sequential([keras.Input((None, 3)), *parts]), steps=2)
        model.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "jit_compile": False, **compiling})
    data = stream_chunks(x[:rows], y[:rows], steps=2)
    run = model.fit if keras_fit else lambda data, **more: fit_distributed(model, data, **more)
    run(data, epochs=2, verbose=0, callbacks=list(callbacks), backup=backup, backup_every=1)
    for layer in moving:
        first, second = TWO.experimental_local_results(layer.moving_mean.value)
        assert np.any(first) and np.all(first == second) == (backup is not None), (first, second)
    return [w.numpy() for w in model.weights]

def same(a, b):
    for v, w in zip(a, b, strict=True):
        np.testing.assert_allclose(v, w, atol=2e-6)

def of_all_rows(y, p):
    return keras.ops.mean((y - p) ** 2)

one, two = trained(tf.distribute.get_strategy()), trained(TWO)
same(one, two)
try:
    trained(TWO, sys.argv[1], [Breaks()], keras_fit=True)
    raise SystemExit("not broken off")
except KeyboardInterrupt:
    pass
same(two, trained(tf.distribute.get_strategy(), sys.argv[1]))  # the states of all rows go on in one replica
for backup in (None, sys.argv[1]):
    with TWO.scope():
        normalization = keras.layers.BatchNormalization()
    trained(TWO, backup, keras_fit=True, moving=[normalization])
try:
    trained(TWO, jit_compile=True)
    raise SystemExit("compiled")
except ValueError as error:
    assert "jit_compile: expected False on 2 replicas" in str(error), error
with TWO.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse", jit_compile=False)
try:
    fit_distributed(model, tf.data.Dataset.from_tensor_slices((x[:3, 0], y[:3, 0])).batch(2), verbose=0)
    raise SystemExit("one row for two")
except ValueError as error:
    assert "data: expected batches of one number of rows, at least 2, got [1] rows" in str(error), error
try:
    trained(TWO, rows=3)
    raise SystemExit("three streams")
except ValueError as error:
    assert "data: expected a multiple of 2 streams" in str(error), error
with TWO.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", of_all_rows, jit_compile=False)
try:
    fit_distributed(model, tf.data.Dataset.from_tensor_slices((x[:, 0], y[:, 0])).batch(2), verbose=0)
    raise SystemExit("one loss for all rows")
except ValueError as error:
    assert "loss: expected one whose `call` gives the loss of each row or step" in str(error), error
print("equal")
"""


def test_two_replicas_carry_states_and_keep_them_in_backups(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path / "backup")], capture_output=True, text=True, env=RUN, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "equal"

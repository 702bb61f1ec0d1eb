"""Two replicas on two logical CPUs, in a process of their own: they learn what one device learns of the same rows."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.deep

SCRIPT = """
import sys
import numpy as np, tensorflow as tf
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
import keras
import language_models, token_models
import keras_seq
from keras_seq.models import ImageCaptioner
from keras_seq.training import TruncatedBPTT

kind = sys.argv[1]
TWO = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
rng = np.random.default_rng(0)
TEXT = "".join(rng.choice(list("to be or not, that is question."), 120))  # four rows of three chunks of ten, no padding

def trained(strategy):
    keras.utils.set_random_seed(1)
    if kind == "TruncatedBPTT":  # streams of 14 steps in chunks of 4, the last of which is not whole
        x, y = (np.random.default_rng(1).normal(size=(4, 14, n)).astype("float32") for n in (3, 2))
        with strategy.scope():
            parts = [keras_seq.LSTM(5, return_sequences=True), keras.layers.Dense(2)]
            trainer = TruncatedBPTT(keras.Sequential([keras.Input((None, 3)), *parts]), steps=4)
            trainer.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        return trainer, trainer.fit(x, y, epochs=3, verbose=0).history["loss"]
    with strategy.scope():
        if kind in language_models.MEMORIES:
            model = language_models.made(kind, scale=0.3)
        else:
            if kind == "ImageCaptioner":  # without batch normalisation, which is of each replica's rows
                image = keras.Input(token_models.SHAPE)
                encoder = keras.Model(image, keras.layers.Conv2D(4, 3, strides=2)(image / 255))
                token_models.MAKE[kind] = lambda: ImageCaptioner(
                    token_models.WORDS, token_models.SHAPE, keras_seq.GRUCell(6), encoder, "attention", 5
                )
            model = token_models.made(kind, scale=0.3)
        model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    if kind in language_models.MEMORIES:
        data, held_out = model.streams(TEXT, 4, 10), model.streams(TEXT, 2, 20)
        history = model.fit(data, epochs=3, shuffle=False, validation_data=held_out, verbose=0).history
        again = model.fit(model.streams(TEXT, 2, 10), shuffle=False, verbose=0).history
        return model, history["loss"] + history["val_loss"] + again["loss"]
    inputs, targets = token_models.batch(kind, 4)
    targets[targets == 0] = 5
    history = model.fit(token_models.read(inputs), targets, batch_size=4, epochs=3, shuffle=False, verbose=0).history
    return model, history["loss"]

(one, losses), (two, of_both) = trained(tf.distribute.get_strategy()), trained(TWO)
np.testing.assert_allclose(of_both, losses, rtol=1e-5)
assert losses[1] < losses[0]
for a, b in zip(one.trainable_variables, two.trainable_variables, strict=True):
    np.testing.assert_allclose(b.numpy(), a.numpy(), atol=1e-4, err_msg=a.path)
if kind in language_models.MEMORIES:
    try:
        two.streams(TEXT, 3, 10)
        raise SystemExit("three rows")
    except ValueError as error:
        assert "rows: expected a multiple of the 2 replicas, got 3" in str(error), error
    kept = [TWO.experimental_local_results(v._value) for v in two._kept[True, 2]]
    assert all(len(of) == 2 and np.any(of[0].numpy() != of[1].numpy()) for of in kept if of[0].dtype != bool)
if kind == "TruncatedBPTT":
    print("equal")
    raise SystemExit
with TWO.scope():
    try:
        two.compile(jit_compile=True)
        raise SystemExit("compiled")
    except ValueError as error:
        assert "jit_compile: expected False or 'auto' under a MirroredStrategy" in str(error), error
    two.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    wrong = np.full((4, 10), -1, "int32")
    arrays = (wrong, np.zeros(4, "int32")) if kind in language_models.MEMORIES else None
    if arrays is not None:
        before = [v.numpy() for v in two.trainable_variables]
        try:
            two.fit(tf.data.Dataset.from_tensors((arrays, abs(wrong))), shuffle=False, verbose=0)
            raise SystemExit("wrong ids")
        except tf.errors.InvalidArgumentError as error:
            assert "tokens: expected integers from 0 to" in str(error), error
        assert all((v.numpy() == b).all() for v, b in zip(two.trainable_variables, before))
print("equal")
"""


@pytest.mark.parametrize("kind", ["LSTM", "mixture", "Seq2Seq", "ImageCaptioner", "TruncatedBPTT"])
def test_two_replicas_learn_what_one_device_learns(kind):
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "equal"

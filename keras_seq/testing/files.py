"""Files: a model with the cell is saved, loaded and exported."""

import contextlib
import logging
import pathlib
import tempfile

import keras
import tensorflow as tf

from keras_seq.testing.differences import assert_close
from keras_seq.testing.runs import result_names
from keras_seq.testing.table import check


def model_and_data(subject):
    """A functional model of unknown batch and length, with a mask, and a function that gives data for it."""
    layer = subject.layer("float32")
    inputs = [keras.Input((None, subject.features), name="x")]
    further = {}
    if subject.constants:
        types = ["float32" if s.dtype.is_floating else s.dtype.name for s in subject.constants]
        shapes = zip(subject.constants, types, strict=True)
        further["constants"] = [
            keras.Input(batch_shape=tuple(s.shape), dtype=t, name=f"v{i}") for i, (s, t) in enumerate(shapes)
        ]
        inputs += further["constants"]
    open_loop = subject.loops[-1]
    if open_loop:
        further["targets"] = keras.Input((None, layer.cell.output_size), name="targets")
        inputs.append(further["targets"])
    masked = keras.layers.Masking(name="masking")(inputs[0])
    model = keras.Model(inputs, keras.tree.flatten(layer(masked, **further)), name="checked_model")

    def data(b, t):
        given = subject.data(layer, b, t, open_loop=open_loop, seed=b)
        x = tf.where(given.mask[:, :, None], given.x, tf.zeros_like(given.x))
        return [x, *given.constants, *([given.targets] if open_loop else [])]

    return model, data, result_names(layer)


@contextlib.contextmanager
def _quiet():
    """Without what TensorFlow says of each export: where the files are, and that a SavedModel cannot be trained on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


SAVING = "the config loses something, or weights are made in __init__ or step: make them in build"


@check(".keras file", "a saved model is loaded in safe mode and gives the same", SAVING)
def check_keras_file(subject):
    model, data, names = model_and_data(subject)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        again = keras.models.load_model(path, safe_mode=True)
        given = data(4, 5)
        assert_close(again(given), model(given), 0.0, "after loading:", names)
        assert [w.name for w in again.weights] == [w.name for w in model.weights], "the names of the weights differ"


@check(
    "saved model",
    "an exported SavedModel gives the same at any batch and length",
    "tf.py_function or NumPy inside step, or a Python number taken from a shape",
)
def check_saved_model(subject):
    model, data, names = model_and_data(subject)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        model.export(folder, verbose=False)
        served = tf.saved_model.load(folder)
        for b, t in ((4, 5), (2, 8), (1, 1)):
            given = data(b, t)
            found = served.serve(given)
            assert_close(tf.nest.flatten(found), model(given), 1e-5, f"(b, t) = {b, t}:", names)

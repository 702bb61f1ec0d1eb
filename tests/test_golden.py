"""Files of before load as they did: see tests/golden/make.py."""

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
from golden import make

import keras_seq

ABSTRACT = {"Cell", "GatedCell", "ReadoutCell", "FeedbackCell"}
NAMES = sorted(path.stem for path in make.FOLDER.glob("*.keras"))
WITH_WEIGHTS = [name for name in NAMES if (make.FOLDER / f"{name}.weights.h5").exists()]


def check(name, model, leave_out=()):
    inputs, expected = make.stored(name)
    found = make.results(name, model, inputs)
    assert list(found) == list(expected)
    for key, y in expected.items():
        if key.split("_")[1] in leave_out:
            continue
        assert (found[key].shape, found[key].dtype) == (y.shape, y.dtype), key
        if y.dtype.kind == "f":
            np.testing.assert_allclose(found[key], y, rtol=1e-5, atol=1e-6, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], y, key)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_what_it_gave(name):
    if make.of_later_keras(name):
        pytest.skip("a file of a later Keras: read it there")
    model = keras.models.load_model(make.FOLDER / f"{name}.keras", safe_mode=True)
    check(name, model)
    assert bool(model.weights) == (name in WITH_WEIGHTS)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights_give_in_a_new_model_what_they_gave(name):
    model = make.fresh(name)
    with pytest.raises(AssertionError):
        check(name, model)
    model.load_weights(make.FOLDER / f"{name}.weights.h5")
    check(name, model, leave_out={"optimizer"})


def test_every_public_class_that_can_be_saved_has_its_files():
    packages = ["keras_seq", *(f"keras_seq.{p.name}" for p in pkgutil.iter_modules(keras_seq.__path__) if p.ispkg)]
    public = {}
    for package in map(importlib.import_module, packages):
        public.update({name: getattr(package, name) for name in getattr(package, "__all__", ())})
    wanted = {name for name, cls in public.items() if inspect.isclass(cls) and hasattr(cls, "from_config")} - ABSTRACT
    assert wanted - set(NAMES) == set(), "without golden files: add a recipe to tests/golden/make.py, and run it"
    assert set(NAMES) == set(make.RECIPES)


def test_files_are_never_written_over():
    with pytest.raises(FileExistsError, match=r"LSTM\.keras, LSTM\.weights\.h5, LSTM\.npz: golden"):
        make.make("LSTM")

"""What every test shares: where the real data lies, a seed, and forgetting what it has traced.

Two markers say in which tier a test stands: `deep` is what is long, and `mutation`, which is deep too, puts the suite itself
to the test. The examples and the benchmarks are deep. All else is quick.
"""

import ctypes
import gc
import os
import pathlib

import keras
import pytest
from tensorflow.python.framework import ops as framework

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))


def pytest_itemcollected(item):
    if item.get_closest_marker("mutation") or item.path.parent.name in ("examples", "benchmarks"):
        item.add_marker(pytest.mark.deep)


@pytest.fixture(scope="session")
def data_folder():
    """A function from a data set's name to its folder; skips the test where the folder is absent."""

    def folder(name):
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"real data {name!r} not found at {path}: set KERAS_SEQ_DATA to the folder that holds it")
        return path

    return folder


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    keras.utils.set_random_seed(20)


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What the tests of a file have traced goes with them.

    TensorFlow keeps every function that was traced with a gradient of its own, and the graphs that it holds on to, for
    ever.
    """
    before = set(framework.gradient_registry.list())
    yield
    for name in set(framework.gradient_registry.list()) - before:
        del framework.gradient_registry._registry[name]
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)

"""What every test shares: where the real data lies, and a seed."""

import os
import pathlib

# what is compiled here runs for milliseconds: a tenth of the time is saved by not polishing the machine code
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import pytest

from keras_seq.engine import loop

DATA = pathlib.Path(os.environ.get("KERAS_SEQ_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_folder():
    """A function from a data set's name to its folder; skips the test where the folder is absent."""

    def folder(name):
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"real data {name!r} not found at {path}: set KERAS_SEQ_DATA to the folder that holds it")
        return path

    return folder


# all rows of a batch in one lane, which is half as much to trace and to compile; tests of lanes ask for theirs
SHIPPED = loop.lanes
loop.lanes = lambda batch, weights: 1


@pytest.fixture
def as_shipped(monkeypatch):
    """As many lanes as users get."""
    monkeypatch.setattr(loop, "lanes", SHIPPED)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    keras.utils.set_random_seed(20)

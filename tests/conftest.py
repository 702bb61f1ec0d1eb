"""What every test shares: where the real data lies, and a seed."""

import os
import pathlib

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


@pytest.fixture
def one_lane(monkeypatch):
    """All rows of a batch in one lane: half as much to trace."""
    monkeypatch.setattr(loop, "lanes", lambda batch, weights: 1)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    keras.utils.set_random_seed(20)

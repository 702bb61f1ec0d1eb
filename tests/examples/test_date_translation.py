"""The example that translates dates, at a small size."""

import os
import pathlib
import sys

import pytest
import tensorflow_datasets as tfds

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import date_translation

SMALL = ["--examples", "96", "--batch", "32", "--epochs", "1", "--units", "8", "--embedding-size", "4", "--width", "2"]


@pytest.mark.parametrize(
    "further",
    [["--score", "dot", "--query", "after", "--input-feeding", "--teacher-forcing", "0.5"], ["--no-attention"]],
    ids=["attention", "none"],
)
def test_runs(further, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "data"))
    results = date_translation.main([*SMALL, "--no-jit", "--output", str(tmp_path), *further])
    assert list(results) == ["greedy", "beam of 2"]
    assert all(0 <= share <= 1 for share in results.values())
    said = capsys.readouterr().out
    assert "96 dates to learn from" in said
    assert "| 96 unseen dates | right to the last character |" in said
    files = set(os.listdir(tmp_path))
    assert {"history.png", "translator.keras"} <= files
    assert ("alignment_3.png" in files) == (further != ["--no-attention"])


def test_without_reading():
    assert date_translation.without_reading(["2021", "2011", "1021"], ["2021", "2000"]) == ("2021", 0.5)

"""The example that translates dates, at a small size."""

import os
import pathlib
import sys

import tensorflow_datasets as tfds

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import date_translation

SMALL = ["--examples", "96", "--batch", "32", "--epochs", "1", "--units", "8", "--embedding-size", "4", "--width", "2"]


FURTHER = ["--score", "dot", "--query", "after", "--input-feeding", "--teacher-forcing", "0.5"]


def test_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "data"))
    results = date_translation.main([*SMALL, "--no-jit", "--output", str(tmp_path), *FURTHER])
    assert list(results) == ["greedy", "beam of 2"]
    assert all(0 <= share <= 1 for share in results.values())
    said = capsys.readouterr().out
    assert "96 dates to learn from" in said
    assert "| 96 unseen dates | right to the last character |" in said
    assert {"history.png", "translator.keras", "alignment_3.png"} <= set(os.listdir(tmp_path))


def test_translator_without_attention():
    options = date_translation.options_of([*SMALL, "--no-attention"])
    vocabulary = date_translation.Vocabulary(["1", "2"], "characters")
    model = date_translation.translator(vocabulary, vocabulary, options)
    assert not model.attends
    assert model.generate(["12"]) == model.generate(["12"])


def test_without_reading():
    assert date_translation.without_reading(["2021", "2011", "1021"], ["2021", "2000"]) == ("2021", 0.5)

"""The example on spans: its readers, what it counts, and a small run on dates and on a CoNLL file."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import tagging

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP I-ORG
rejects VBZ B-VP O
German JJ B-NP I-MISC

Peter NNP B-NP I-PER
Blackburn NNP I-NP I-PER
"""


def test_conll_files_of_the_old_scheme_are_read(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(CONLL)
    sentences = tagging.read_conll(path)
    assert sentences == [
        (["EU", "rejects", "German"], [(0, 1, "ORG"), (2, 3, "MISC")]),
        (["Peter", "Blackburn"], [(0, 2, "PER")]),
    ]
    names = tagging.names_of_tags(sentences, "BIO")
    assert names == ["O", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
    x, y = tagging.arrays(sentences, {"EU": 2, "Peter": 3}, names, "BIO")
    assert x.tolist() == [[2, 1, 1], [3, 1, 0]]
    assert y.tolist() == [[3, 0, 1], [5, 6, 0]]
    path.write_text("EU I-ORG\nrejects\n")
    with pytest.raises(ValueError, match="line 2: expected a word and its tag, got 'rejects'"):
        tagging.read_conll(path)


def test_marks_and_broken_rows():
    names = ["O", "B-day", "I-day"]
    assert tagging.marked(list("on 31."), [0, 0, 0, 1, 2, 0], names) == "on [day 31]."
    assert tagging.marked(["the", "third", "day"], [0, 1, 0], names) == "the [day third] day"
    tags = np.array([[0, 1, 2, -1], [0, 2, 0, -1], [2, 0, 0, 0], [-1, -1, -1, -1]])
    assert tagging.broken(tags, names, "BIO") == 2


def test_a_small_run_on_a_conll_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    path, lines = tmp_path / "train.txt", []
    for _ in range(60):
        for _ in range(int(rng.integers(2, 5))):
            lines += rng.choice(["in O\nNew I-LOC\nYork I-LOC", "Ann I-PER", "says O"]).split("\n")
        lines.append("")
    path.write_text("\n".join(lines))
    small = ["--units", "4", "--embedding", "4", "--epochs", "8", "--learning-rate", "0.05", "--no-jit"]
    results = tagging.main(["--conll", str(path), "--scheme", "BIOES", *small])
    out = capsys.readouterr().out
    assert list(results) == ["BiLSTM", "BiLSTM-CRF"]
    assert results["BiLSTM-CRF"]["broken"] == 0
    assert results["BiLSTM-CRF"]["f1"] > 0.9
    assert "| BiLSTM-CRF |" in out
    assert "12 to test; tags O B-LOC I-LOC E-LOC S-LOC B-PER I-PER E-PER S-PER" in out

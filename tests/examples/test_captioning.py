"""The captioning example, whole, on a folder of a few pictures and on the photographs if they are there."""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.datasets.scenes import SceneObject, describe, draw_scene

PATH = pathlib.Path(__file__).parents[2] / "examples" / "captioning.py"


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        specification = importlib.util.spec_from_file_location("captioning", PATH)
        example = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(example)
        monkeypatch.setattr(sys, "argv", ["captioning.py", *map(str, arguments)])
        example.main()
        return capsys.readouterr().out

    return run


def scenes(folder, count=24):
    rng, lines = np.random.default_rng(0), []
    for i in range(count):
        item = [SceneObject("large", ("red", "blue")[i % 2], ("cross", "square")[i // 2 % 2], 24.0, 24.0, 9.0)]
        tf.io.write_file(str(folder / f"{i}.png"), tf.io.encode_png(draw_scene(item, rng)))
        lines.append({"file": f"{i}.png", "captions": describe(item), "split": ("train", "train", "test")[i % 3]})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_trains_scores_draws_exports_and_agrees_elsewhere(run, tmp_path):
    scenes(tmp_path)
    out = run(
        "--folder", tmp_path, "--side", 48, "--epochs", 2, "--batch", 8, "--units", 16, "--output", tmp_path / "out"
    )
    assert "epoch   2/2" in out
    assert "most frequent sentence" in out
    assert "says the same sentence for 8 of 8 pictures" in out
    assert {"captions.png", "history.png", "captioner.keras", "saved_model"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_photographs(run, tmp_path, data_folder):
    out = run(
        *("--folder", data_folder("coco_mini"), "--epochs", 1, "--units", 16, "--max-words", 300, "--no-jit"),
        *("--memory", "GRU", "--features-as", "each_step", "--output", tmp_path),
    )
    assert "test                                       21" in out
    assert "says the same sentence for 21 of 21 pictures" in out

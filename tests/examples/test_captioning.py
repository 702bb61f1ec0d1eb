"""The captioning example, whole, on a folder of a few pictures and on the photographs if they are there."""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

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


class CocoLike(tfds.core.GeneratorBasedBuilder):
    """A data set with the features and splits of `coco_captions`: pictures of any size, sentences in dicts."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": tfds.features.Image(), "captions": captions})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "val": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            image = np.full((20 + i, 30, 3), 10 * i, "uint8")
            yield i, {"image": image, "captions": [{"id": k, "text": f"Picture {i}."} for k in range(2)]}


def test_a_tfds_set_by_name(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    out = run(
        "--dataset", "coco_like", "--side", 16, "--epochs", 1, "--batch", 2, "--units", 8, "--output", tmp_path / "o"
    )
    assert "12 sentences, 11 tokens, pictures (16, 16, 3)" in out
    assert "says the same sentence for 3 of 3 pictures" in out

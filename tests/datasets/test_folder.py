"""A folder of captioned images, real and with every fault."""

import json
import warnings

import numpy as np
import pytest
import tensorflow as tf

from keras_seq.datasets import caption_folder


def write_image(path, colour, size=(6, 8)):
    pixels = np.broadcast_to(np.array(colour, "uint8"), (*size, 3))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tf.io.encode_png(pixels).numpy())


def write_lines(folder, lines, name="captions.jsonl"):
    (folder / name).write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def pictures(tmp_path):
    write_image(tmp_path / "images" / "red.png", (200, 10, 20))
    write_image(tmp_path / "images" / "green.png", (10, 200, 20), size=(4, 4))
    write_image(tmp_path / "images" / "blue.png", (10, 20, 200))
    write_lines(
        tmp_path,
        [
            {"file": "images/red.png", "captions": ["A red thing.", "Ein rotes Stück"], "split": "train"},
            "\n",
            {"file": "images/blue.png", "captions": ["blue"], "split": "val", "id": 3},
            {"file": "images/green.png", "captions": ["green", "very green", "grass"]},
        ],
    )
    return tmp_path


def test_splits_images_and_ragged_sentences(pictures):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = caption_folder(pictures)
    assert list(data) == ["train", "validation"]
    assert data["train"].cardinality() == 2
    assert data["train"].element_spec == {
        "image": tf.TensorSpec((None, None, 3), tf.uint8),
        "captions": tf.TensorSpec((None,), tf.string),
    }
    red, green = data["train"].as_numpy_iterator()
    assert red["image"].shape == (6, 8, 3)
    assert (red["image"] == (200, 10, 20)).all()
    assert [caption.decode() for caption in red["captions"]] == ["A red thing.", "Ein rotes Stück"]
    assert green["image"].shape == (4, 4, 3)
    assert green["captions"].tolist() == [b"green", b"very green", b"grass"]
    (blue,) = data["validation"].as_numpy_iterator()
    assert (blue["image"] == (10, 20, 200)).all()


def test_images_are_resized_and_batch(pictures):
    data = caption_folder(str(pictures), image_size=(5, 7))["train"]
    assert data.element_spec["image"].shape == (5, 7, 3)
    (batch,) = data.padded_batch(2).as_numpy_iterator()
    assert batch["image"].shape == (2, 5, 7, 3)
    assert batch["image"].dtype == np.uint8
    assert (batch["image"][1] == (10, 200, 20)).all()
    assert batch["captions"].shape == (2, 3)


def test_other_caption_file_and_grey_jpeg(pictures):
    grey = np.full((9, 9, 1), 77, "uint8")
    (pictures / "grey.jpg").write_bytes(tf.io.encode_jpeg(grey).numpy())
    write_lines(pictures, [{"file": "grey.jpg", "captions": ["fog"], "split": "test"}], name="more.jsonl")
    data = caption_folder(pictures, "more.jsonl")
    assert list(data) == ["test"]
    (example,) = data["test"].as_numpy_iterator()
    assert example["image"].shape == (9, 9, 3)
    assert (example["image"] == 77).all()


def test_what_is_left_out_is_counted_in_one_warning(pictures):
    (pictures / "notes.png").write_text("no picture")
    (pictures / "empty.png").write_bytes(b"")
    write_lines(
        pictures,
        [
            {"file": "images/gone.png", "captions": ["a"]},
            {"file": "images/red.png", "captions": ["", "kept", "  "]},
            {"file": "notes.png", "captions": ["b"]},
            {"file": "empty.png", "captions": ["b"]},
            {"file": "images", "captions": ["a folder"]},
            {"file": "images/green.png", "captions": []},
            {"file": "images/blue.png", "captions": [" "], "split": "test"},
        ],
    )
    with pytest.warns(UserWarning, match="left out") as caught:
        data = caption_folder(pictures)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    assert "captions.jsonl: left out 2 images whose file is missing (first: line 1, images/gone.png)" in message
    assert "2 files that are no image (first: line 3, notes.png)" in message
    assert "3 empty sentences (first: line 2)" in message
    assert "2 images without a sentence (first: line 6, images/green.png)" in message
    assert list(data) == ["train"]
    (kept,) = data["train"].as_numpy_iterator()
    assert kept["captions"].tolist() == [b"kept"]


GOOD = {"file": "images/red.png", "captions": ["red"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": \n', "line 2: expected a JSON object, got what cannot be read"),
        ("[1]\n", "line 2: expected a JSON object, got a list"),
        ({"captions": ["a"]}, "line 2: expected the key 'file', got 'captions'"),
        ({"file": "images/red.png", "caption": "a"}, "line 2: expected the key 'captions', got 'file', 'caption'"),
        ({"file": 3, "captions": ["a"]}, "line 2: file: expected a string, got 3"),
        ({**GOOD, "captions": "red"}, "line 2: captions: expected a list of strings, got 'red'"),
        ({**GOOD, "captions": [None]}, "line 2: captions: expected a list of strings"),
        ({**GOOD, "split": "trian"}, "line 2: split: expected one of train, val, validation, test, got 'trian'"),
    ],
)
def test_unreadable_lines_are_named(pictures, line, message):
    write_lines(pictures, [GOOD, line])
    with pytest.raises(ValueError, match=f"captions.jsonl, {message}"):
        caption_folder(pictures)


def test_bytes_that_are_no_text_are_named(pictures):
    (pictures / "captions.jsonl").write_bytes(b'{"file": "\xff\xfe", "captions": []}\n')
    with pytest.raises(ValueError, match=r"captions.jsonl, line 1: expected a JSON object"):
        caption_folder(pictures)


def test_missing_files_are_named(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"captions: .*other.jsonl"):
        caption_folder(pictures, "other.jsonl")
    with pytest.raises(FileNotFoundError, match=r"captions: .*nowhere"):
        caption_folder(tmp_path / "nowhere")
    write_lines(pictures, [])
    with pytest.raises(ValueError, match="expected at least one image with a sentence"):
        caption_folder(pictures)


@pytest.mark.parametrize(
    ("size", "error"),
    [(32, TypeError), ((32,), TypeError), ((32, 3.5), TypeError), ("ab", TypeError), ((0, 4), ValueError)],
)
def test_wrong_image_sizes_are_named(pictures, size, error):
    with pytest.raises(error, match="image_size: expected"):
        caption_folder(pictures, image_size=size)


def test_a_cut_image_fails_when_it_is_read(pictures):
    whole = (pictures / "images" / "red.png").read_bytes()
    (pictures / "images" / "red.png").write_bytes(whole[: len(whole) // 2])
    data = caption_folder(pictures)["train"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data)


def test_photographs(data_folder):
    folder = data_folder("coco_mini")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = caption_folder(folder, image_size=(64, 48))
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        own = [line for line in lines if line["split"] == name]
        examples = list(data[split].as_numpy_iterator())
        assert len(examples) == len(own) > 20
        assert [[c.decode() for c in e["captions"]] for e in examples] == [line["captions"] for line in own]
        assert {example["image"].shape for example in examples} == {(64, 48, 3)}
    raw = next(caption_folder(folder)["train"].as_numpy_iterator())["image"]
    assert raw.shape == (96, 96, 3)
    expected = raw.reshape(96, 96, 3).astype(float).mean(axis=(0, 1))
    small = next(data["train"].as_numpy_iterator())["image"].astype(float).mean(axis=(0, 1))
    np.testing.assert_allclose(small, expected, atol=1.0)

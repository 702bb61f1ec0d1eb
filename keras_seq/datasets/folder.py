"""A user's own captioned pictures: a folder of images beside a file of sentences."""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")  # JPEG, PNG, GIF, BMP: what TensorFlow decodes


def caption_folder(
    folder: str | os.PathLike[str], captions: str = "captions.jsonl", *, image_size: Sequence[int] | None = None
) -> dict[str, tf.data.Dataset]:
    """Reads a folder of images with their sentences into one `tf.data.Dataset` a split.

    The caption file holds one JSON object a line; keys other than these are ignored:

        {"file": "images/139.jpg", "captions": ["A woman stands at the table."], "split": "val"}

    `split` is `train`, `val` (or `validation`) or `test`; a line without it goes to `train`. Sentences are kept as they
    are written. Left out, with one warning that counts them: images whose file is missing or is no JPEG, PNG, GIF or
    BMP by its first bytes, empty sentences, and images left without a sentence.

    Arguments:
        folder: the folder that the image files are named from.
        captions: the name of the caption file in `folder`.
        image_size: `(height, width)` that every image is stretched or shrunk to (bilinear, with anti-aliasing); None
            leaves each as it is.

    Returns:
        A dict from split name (`train`, `validation`, `test`, those that have an image) to a finite dataset, in the
        order of the file, of dicts: `image`, uint8 (height, width, 3); `captions`, strings (n,), where n may differ
        from image to image.

    Raises:
        FileNotFoundError: where the folder or the caption file is missing.
        TypeError: where `image_size` is no pair of ints.
        ValueError: where a line cannot be read (named by file and line), where no image is left, or where `image_size`
            is not positive. An image that has a right beginning but is cut short is met only when it is read:
            `tf.errors.InvalidArgumentError`.

    Example:

    ```python
    pictures = caption_folder("my_pictures", image_size=(96, 96))
    for example in pictures["train"].take(1):
        print(example["image"].shape, example["captions"].numpy())
    ```
    """
    _check_size(image_size)
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder: expected a path, got {folder!r}")
    folder = pathlib.Path(folder)
    path = folder / captions
    if not path.is_file():
        raise FileNotFoundError(f"captions: expected a file of JSON lines at {path}, found none")

    entries: dict[str, Any] = {}
    left_out: dict[str, Any] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            file, sentences, split = _read_line(line, f"{path}, line {number}")
            kept = [sentence for sentence in sentences if sentence.strip()]
            fault = _image_fault(folder / file) or (None if kept else "images without a sentence")
            if len(kept) < len(sentences):
                left_out.setdefault("empty sentences", []).extend([number] * (len(sentences) - len(kept)))
            if fault:
                left_out.setdefault(fault, []).append(f"{number}, {file}")
            else:
                entries.setdefault(split, []).append((str(folder / file), kept))

    if left_out:
        counts = (f"{len(where)} {what} (first: line {where[0]})" for what, where in left_out.items())
        warnings.warn(f"{path}: left out {'; '.join(counts)}", stacklevel=2)
    if not entries:
        raise ValueError(f"{path}: expected at least one image with a sentence, found none")
    return {split: _dataset(entries[split], image_size) for split in dict.fromkeys(SPLITS.values()) if split in entries}


def _check_size(image_size):
    if image_size is None:
        return
    if not isinstance(image_size, (tuple, list)) or [type(n) for n in image_size] != [int, int]:
        raise TypeError(f"image_size: expected None or a pair of ints (height, width), got {image_size!r}")
    if min(image_size) < 1:
        raise ValueError(f"image_size: expected positive numbers of pixels, got {image_size!r}")


def _read_line(line, where):
    """The file, the sentences and the split that one line names."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: expected a JSON object, got what cannot be read: {error}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a JSON object, got a {type(entry).__name__}")
    for key in ("file", "captions"):
        if key not in entry:
            raise ValueError(f"{where}: expected the key {key!r}, got {', '.join(map(repr, entry)) or 'no key'}")
    file, sentences, split = entry["file"], entry["captions"], entry.get("split", "train")
    if not isinstance(file, str):
        raise ValueError(f"{where}: file: expected a string, got {file!r}")
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise ValueError(f"{where}: captions: expected a list of strings, got {sentences!r}")
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"{where}: split: expected one of {', '.join(SPLITS)}, got {split!r}")
    return file, sentences, SPLITS[split]


def _image_fault(path):
    if not path.is_file():
        return "images whose file is missing"
    with path.open("rb") as file:
        return None if file.read(8).startswith(SIGNATURES) else "files that are no image"


def _dataset(entries, image_size):
    files, captions = zip(*entries, strict=True)
    sentences = tf.RaggedTensor.from_row_lengths(
        tf.constant([sentence for own in captions for sentence in own]), [len(own) for own in captions]
    )

    def read(file, captions):
        image = tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        if image_size is not None:
            image = tf.image.resize(image, image_size, antialias=True)
            image = tf.saturate_cast(tf.round(image), tf.uint8)
        return {"image": image, "captions": captions}

    dataset = tf.data.Dataset.from_tensor_slices((list(files), sentences))
    return dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)

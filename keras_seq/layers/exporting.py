"""A function of tensors, with the model that it reads, written to one file: ONNX, LiteRT, and what else Keras writes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_seq.layers import ring


def export_function(
    function: Callable[..., Any],
    inputs: Sequence[tf.TensorSpec],
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str,
    options: Mapping[str, Any],
) -> None:
    """Write `function(*inputs)` by Keras's exporter of this format; of LiteRT with built-in operations only.

    Args:
        function: of tensors; gives a flat list of them.
        inputs: their types, shapes (None for any) and names.
        model: holds the weights that the function reads.
        path: of the file.
        format: as in `keras.Model.export`.
        options: of that exporter.

    Raises:
        TypeError: a path that is none.
        ValueError: LiteRT with Keras before 3.13, of another floating-point type than float32, or in a file whose name does not
            end in .tflite; operations that the format does not have; a loop over time with any number of rows in LiteRT; a
            signature of more or fewer tensors than the inputs. A file that was there before stays as it was.
    """
    if format == "litert" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
        raise ValueError(f"format: expected 'litert' with Keras 3.13 or later alone, got it with {keras.__version__}")
    signature, file = list(options.get("input_signature", inputs)), file_path(path, format)
    if len(signature) != len(inputs):
        raise ValueError(
            f"input_signature: expected {len(inputs)} tensors, {[x.name for x in inputs]}, got {signature}"
        )
    given = {"verbose": False, **options, "input_signature": [signature]}
    if format == "litert":
        given.setdefault("target_spec", {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]})
    try:
        with _as_it_was(file), ring.without_scattering() if format == "litert" else contextlib.nullcontext():
            keras.Model.export(_Function(function, model), path, format=format, **given)
            if format == "onnx":
                import onnx

                onnx.checker.check_model(os.fspath(path))
    except Exception as error:
        if reason := _reason(str(error), format, signature):
            raise ValueError(reason) from error
        raise


def file_path(path: str | os.PathLike[str], format: str) -> Path:
    """Where something is written; for LiteRT the name of a file that Keras takes."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected a string or a path, got {path!r}")
    if not os.fspath(path):
        raise ValueError(f"path: expected the name of a file or a folder, got {path!r}")
    if format == "litert" and not os.fspath(path).endswith(".tflite"):
        raise ValueError(f"path: expected one that ends in '.tflite', got {os.fspath(path)!r}")
    return Path(path)


@contextlib.contextmanager
def _as_it_was(file):
    """A file, or none, is as before where what stands inside fails."""
    before = file.read_bytes() if file.is_file() else None
    try:
        yield
    except BaseException:
        if before is None and file.is_file():
            file.unlink()
        elif before is not None and file.read_bytes() != before:
            file.write_bytes(before)
        raise


def _reason(message, format, signature):
    """What an exporter did not take, from its many lines; None if they are of something else."""
    types = {"bf16": "bfloat16", "f16": "float16", "f64": "float64"}
    others = sorted({types[t] for t in re.findall(r"x(bf16|f16|f64)>", message)}) if format == "litert" else []
    if others:
        return f"model: expected one of float32, in which LiteRT computes, got {', '.join(others)} in it"
    lacking = sorted({a or b for a, b in re.findall(r"'tf\.(\w+)' op|No Op registered for (\w+)", message)})
    if lacking == ["TensorListReserve"]:  # what a loop over time keeps its outputs in
        return (
            "input_signature: expected a known number of rows, which LiteRT wants of a loop over time, "
            f"got shapes {[tuple(x.shape) for x in signature]}"
        )
    return f"format: expected one that has the operations {lacking}, got {format!r}" if lacking else None


class _Function(keras.Model):
    """A function as a model, whose one argument is the list of its inputs."""

    def __init__(self, function, model):
        super().__init__(name=model.name)
        self.model, self.function, self.built = model, function, True

    def call(self, inputs):
        return self.function(*inputs)

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
        ValueError: LiteRT with Keras before 3.13; operations that the format does not have; a loop over time with any number
            of rows in LiteRT.
    """
    if format == "litert" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
        raise ValueError(f"format: expected 'litert' with Keras 3.13 or later alone, got it with {keras.__version__}")
    signature = list(options.get("input_signature", inputs))
    given = {"verbose": False, **options, "input_signature": [signature]}
    if format == "litert":
        given.setdefault("target_spec", {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]})
    try:
        with ring.without_scattering() if format == "litert" else contextlib.nullcontext():
            keras.Model.export(_Function(function, model), path, format=format, **given)
        if format == "onnx":
            import onnx

            onnx.checker.check_model(os.fspath(path))
    except Exception as error:
        lacking = sorted({a or b for a, b in re.findall(r"'tf\.(\w+)' op|No Op registered for (\w+)", str(error))})
        if not lacking:
            raise
        Path(path).unlink(missing_ok=True)
        if lacking == ["TensorListReserve"]:  # what a loop over time keeps its outputs in
            raise ValueError(
                "input_signature: expected a known number of rows, which LiteRT wants of a loop over time, "
                f"got shapes {[tuple(x.shape) for x in signature]}"
            ) from error
        raise ValueError(f"format: expected one that has the operations {lacking}, got {format!r}") from error


class _Function(keras.Model):
    """A function as a model, whose one argument is the list of its inputs."""

    def __init__(self, function, model):
        super().__init__(name=model.name)
        self.model, self.function, self.built = model, function, True

    def call(self, inputs):
        return self.function(*inputs)

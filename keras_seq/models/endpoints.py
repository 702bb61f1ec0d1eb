"""What a model of tokens is written as: endpoints, functions of tensors, which a SavedModel has all and a file one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_seq.decoding.tokens import undefined
from keras_seq.layers.exporting import export_function
from keras_seq.models.generation import TextGenerator

Endpoint = tuple[Callable[..., Any], Sequence[tf.TensorSpec]]
"""A function and what it takes."""
FILES = ("serve", "begin", "step")
"""The endpoints that are files of their own in other formats, of a model that reads before it writes."""


def one_token(
    model: TextGenerator, begin: Callable[..., tuple[Any, Any]], given: Sequence[tf.TensorSpec]
) -> tuple[Endpoint, Endpoint]:
    """`begin(*given) -> (state, constants)` and the model's `next_token` as two endpoints of flat lists of tensors.

    begin(*given) -> [*state, *constants]
    step(tokens, int32 (b,), *state, *constants) -> [logits (b, v), *state]
    """
    traced = tf.function(begin, autograph=False)
    first, fixed = traced.get_concrete_function(*given).structured_outputs
    named = (("state", first), ("constant", fixed))
    specs = [
        tf.TensorSpec(x.shape, x.dtype, f"{name}_{i}") for name, x_s in named for i, x in enumerate(tree.flatten(x_s))
    ]

    def step(tokens, *carried):
        tokens, wrong = model.vocabulary.check("tokens", tokens)
        logits, state = model.next_token(tokens, *tree.pack_sequence_as((first, fixed), carried))
        return [undefined(logits, wrong), *tree.flatten(state)]

    return (lambda *x: tree.flatten(traced(*x)), given), (step, [tf.TensorSpec((None,), tf.int32, "tokens"), *specs])


def write(
    model: keras.Model,
    endpoints: Mapping[str, Endpoint],
    path: str | os.PathLike[str],
    format: str,
    endpoint: str,
    options: Mapping[str, Any],
) -> Any:
    """All endpoints, the first one the default, as a SavedModel; or the one named as a file of another format of Keras."""
    if format != "tf_saved_model":
        return export_function(*endpoints[endpoint], model, path, format, options)
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, (function, given) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=list(given))
    return archive.write_out(path, **options)

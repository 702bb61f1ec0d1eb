"""A model again in float64, and which models a fit by least squares takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_seq._keras import run_graph, sublayers
from keras_seq.layers.rnn import RNN
from keras_seq.typing import Tensor


def as_functional(model: keras.Model) -> keras.Model:
    """The model as a functional one over the same layers; a TypeError for one that is neither that nor Sequential."""
    if isinstance(model, keras.Sequential) and model.built:
        first = outputs = keras.Input(batch_shape=model.input_shape, dtype=model.inputs[0].dtype)
        for layer in model.layers:
            outputs = layer(outputs)
        return keras.Model(first, outputs, name=model.name)
    if not (isinstance(model, keras.Model) and hasattr(model, "operations")):
        raise TypeError(f"model: expected a built Sequential or functional model, got {model!r:.80}")
    return model


def float64_copy(model: keras.Model, weights: bool = True) -> keras.Model:
    """A functional model of layers of their own in float64; with the weights of the model, or with newly drawn ones."""
    model = as_functional(model)
    copies: dict[int, Any] = {}

    def call(operation, *args, **kwargs):
        if id(operation) not in copies:
            copies[id(operation)] = _again(operation)
        return copies[id(operation)](*args, **kwargs)

    inputs = tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=_long(x.dtype), name=x.name), model.input
    )
    copy = keras.Model(inputs, run_graph(model, inputs, call), name=model.name)
    shapes = [[tuple(v.shape) for v in m.variables] for m in (model, copy)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"model: expected one that its configuration makes again, got {model.name}, whose copy differs"
        )
    if weights:
        for ours, theirs in zip(copy.variables, model.variables, strict=True):
            ours.assign(keras.ops.cast(theirs, ours.dtype))
    return copy


def _again(layer):
    """A layer in float64 of the same configuration."""
    try:
        return type(layer).from_config(_in_float64(layer.get_config()))
    except (NotImplementedError, TypeError, ValueError) as error:  # of a layer without get_config, of a Lambda
        raise ValueError(
            f"model: expected layers that their configurations make again, got {layer.name}: {error}"
        ) from error


def _long(dtype):
    """float64 for a type, or policy, of floating numbers; any other as it is."""
    name = dtype if isinstance(dtype, str) else dtype.get("config", {}).get("name") if isinstance(dtype, dict) else None
    return "float64" if name is not None and "float" in name else dtype


def _in_float64(config):
    """A configuration with every type of floating numbers in it made float64."""
    if isinstance(config, dict):
        return {name: _long(v) if name == "dtype" else _in_float64(v) for name, v in config.items()}
    return [_in_float64(v) for v in config] if isinstance(config, list) else config


def every_layer(layer: Any) -> Iterator[Any]:
    """A layer, and all that are inside of it."""
    yield layer
    for one in sublayers(layer):
        yield from every_layer(one)


def check_model(model: Any) -> None:
    """A TypeError or ValueError for a model whose loss is no sum of squares that its weights alone decide."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model: expected a keras.Model, got {model!r:.80}")
    outputs = tree.flatten(as_functional(model).outputs)
    if len(outputs) != 1:
        raise ValueError(f"model: expected one output, got {len(outputs)}")
    if not model.trainable_variables:
        raise ValueError(f"model: expected trainable weights, got none in {model.name}")
    check_loss(model)
    for variable in model.trainable_variables:
        for name in ("regularizer", "constraint"):
            if getattr(variable, name) is not None:
                raise ValueError(f"model: expected weights without a {name}, got {variable.path} with one")
    for layer in every_layer(model):
        if getattr(layer, "activity_regularizer", None) is not None:
            raise ValueError(f"model: expected layers without an activity regularizer, got {layer.name} with one")
        if getattr(layer, "stateful", False):
            raise ValueError(f"model: expected layers with stateful=False, got {layer.name}")
        if isinstance(layer, RNN) and (layer.truncate is not None or getattr(layer.cell, "blocked", False)):
            raise ValueError(f"model: expected layers that let gradients through all steps, got {layer.name}")


def check_loss(model: keras.Model) -> None:
    """A ValueError for a model that is compiled with another loss than the mean squared error."""
    loss = getattr(model, "loss", None)
    if model.compiled and not _squared(loss):
        raise ValueError(f"model: expected one that is compiled with loss='mse', or is not compiled, got {loss!r}")


def _squared(loss):
    named = ("mse", "MSE", "mean_squared_error", "MeanSquaredError")
    return (
        loss in named
        if isinstance(loss, str)
        else isinstance(loss, keras.losses.MeanSquaredError)
        or (getattr(loss, "__name__", None) == "mean_squared_error")
    )


def check_certain(copy: keras.Model, x: list[Tensor]) -> None:
    """A ValueError for a layer that does not say the same in training and at inference, such as one with dropout."""
    names = []

    def same(*given):
        found = []

        def call(operation, *args, **kwargs):
            outputs = operation(*args, **kwargs)
            if isinstance(operation, keras.layers.Layer):
                again = operation(*args, **{**kwargs, "training": True})
                pairs = zip(tree.flatten(outputs), tree.flatten(again), strict=True)
                names.append(operation.name)
                found.append(tf.reduce_all([tf.reduce_all((a == b) | ((a != a) & (b != b))) for a, b in pairs]))
            return outputs

        with keras.StatelessScope(state_mapping=[]):
            run_graph(copy, list(given), call)
        return found

    found = tf.function(same, autograph=False).get_concrete_function(*x)(*x)
    for name, equal in zip(names, found, strict=True):
        if not equal:
            raise ValueError(
                "model: expected layers that say the same in training and at inference, without dropout, noise and statistics "
                f"of the batch, got {name}"
            )

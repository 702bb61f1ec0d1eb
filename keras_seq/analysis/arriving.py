"""What arrives at a recurrent layer that stands within others."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import ops, tree

from keras_seq._keras import carried_mask, run_graph
from keras_seq.analysis.state_gradients import recurrent_layers
from keras_seq.layers import Bidirectional, Stacked
from keras_seq.layers.sublayers import call_with_states
from keras_seq.typing import Tensor

Of: TypeAlias = int | str | keras.layers.Layer | None
"""Which recurrent layer is meant within a layer or a model, as in `state_gradients`; None for the only one."""


def arriving(
    layer: Any,
    target: keras.layers.RNN,
    inputs: Any,
    states: Sequence[Tensor] | None = None,
    mask: Tensor | None = None,
    constants: Sequence[Tensor] = (),
) -> tuple[Tensor, Sequence[Tensor] | None, Tensor | None, Sequence[Tensor]]:
    """`(inputs, initial states, mask, constants)` that the target is called with in a call of `layer` at inference.

    `states` are those of `layer`, a flat list.
    """
    with keras.StatelessScope():  # who keeps states has the same ones after this
        while layer is not target:
            inner = next((p for p in _parts(layer) if any(target is one for one in recurrent_layers(p))), None)
            if inner is None:
                raise ValueError(
                    f"layer: expected {target.name} within a Stacked, a Bidirectional or a functional model, got "
                    f"{type(layer).__name__} {layer.name}"
                )
            if isinstance(layer, keras.Model):
                if states is not None or mask is not None or constants:
                    raise ValueError(
                        f"initial_state, mask, constants: expected None for the model {layer.name}, got some"
                    )
                inputs, states, mask, constants = _within_model(layer, inner, inputs)
            elif isinstance(layer, Stacked):
                inputs, states, mask = _within_stack(layer, inner, inputs, states, mask, constants)
            else:
                inputs, states, mask = _half(layer, inner, inputs, states, mask)
            layer = inner
    return inputs, states, mask, constants


def _parts(layer):
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    if isinstance(layer, keras.Model):
        return layer.layers if isinstance(layer, keras.Sequential) or hasattr(layer, "operations") else []
    return layer.sublayers_with_states if isinstance(layer, (Stacked, Bidirectional)) else []


def _within_model(model, inner, inputs):
    seen = []

    def call(layer, *args, **kwargs):
        if layer is inner:
            seen.append((args, kwargs))
        return layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        x = ops.convert_to_tensor(inputs)
        for layer in model.layers[: 1 + model.layers.index(inner)]:
            x = call(layer, x)
    else:
        given = [ops.convert_to_tensor(x) for x in tree.flatten(inputs)]
        if len(given) != len(model.inputs):
            raise ValueError(f"inputs: expected {len(model.inputs)} for the model {model.name}, got {len(given)}")
        run_graph(model, [ops.cast(x, y.dtype) for x, y in zip(given, model.inputs, strict=True)], call)
    if len(seen) != 1:
        raise ValueError(f"of: expected a layer that is called once, got {inner.name}, called {len(seen)} times")
    args, kwargs = seen[0]
    further = inspect.signature(inner.call).bind(*args, **kwargs).arguments
    states, mask = further.get("initial_state"), further.get("mask")
    x = args[0]
    if isinstance(x, (list, tuple)) and not isinstance(inner, keras.Model):
        x, *states = x
    mask = carried_mask(x) if mask is None else mask
    states = tree.flatten(states) if states is not None and len(tree.flatten(states)) else None
    return x, states, mask, tree.flatten(further.get("constants") or [])


def _within_stack(stack, inner, inputs, states, mask, constants):
    seen = []

    def apply(layer, x, own, mask):
        if layer is inner:
            seen.append((x, own, mask))
        return call_with_states(layer, x, own, mask, constants)

    sizes = [len(layer.state_size) for layer in stack.layers]
    stack._apply_layers(ops.cast(inputs, stack.compute_dtype), states, mask, apply, sizes)
    return seen[0]


def _half(both, inner, inputs, states, mask):
    forward, backward = _parts(both)
    count = len(tree.flatten(forward.state_size if hasattr(forward, "state_size") else forward.cell.state_size))
    if states is not None:
        states = states[:count] if inner is forward else states[count:]
    if inner is backward and isinstance(both, Bidirectional) and not getattr(backward, "go_backwards", False):
        inputs = ops.flip(inputs, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    return inputs, states, mask

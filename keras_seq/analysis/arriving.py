"""What arrives at a recurrent layer that stands within others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import ops, tree

from keras_seq._keras import carried_mask
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
) -> tuple[Tensor, Sequence[Tensor] | None, Tensor | None]:
    """`(inputs, initial states, mask)` that the target is called with in a call of `layer` at inference.

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
                given = layer.inputs[0] if len(layer.inputs) == 1 else layer.inputs
                inputs = keras.Model(given, tree.flatten(inner.input)[0])(inputs, training=False)
                mask = carried_mask(inputs)
            elif isinstance(layer, Stacked):
                inputs, states, mask = _within_stack(layer, inner, inputs, states, mask, constants)
            else:
                inputs, states, mask = _half(layer, inner, inputs, states, mask)
            layer = inner
    return inputs, states, mask


def _parts(layer):
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    if isinstance(layer, keras.Model):
        return layer.layers if layer.inputs else []
    return layer.sublayers_with_states if isinstance(layer, (Stacked, Bidirectional)) else []


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

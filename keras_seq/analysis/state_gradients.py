"""How a loss depends on the states of a memory at every step."""

from __future__ import annotations

import contextlib
import inspect
import threading
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops, tree

from keras_seq import engine
from keras_seq._keras import loop_of_keras, sublayers
from keras_seq.arguments import needs_tensorflow
from keras_seq.cells.of_keras import with_perturbations
from keras_seq.layers.rnn import RNN
from keras_seq.layers.stacked import Stacked
from keras_seq.shapes import fits
from keras_seq.typing import Tensor


class WatchedCall(NamedTuple):
    """One call of a watched layer: what was added to its states, zeros (b, t, n) for each, and its mask (b, t), if it had one.

    Both are in the order of the inputs.
    """

    layer: keras.layers.RNN
    perturbations: list[Tensor]
    mask: Tensor | None


def state_gradients(
    layer: keras.layers.Layer,
    inputs: Any,
    output_gradients: Any,
    of: int | str | keras.layers.Layer | None = None,
    **call: Any,
) -> list[Tensor]:
    """How a loss depends on the states of a memory at every step, by all paths, from how it depends on the output.

        dL/ds_t = (dL/dy_t) dy_t/ds_t + (dL/ds_{t+1}) ds_{t+1}/ds_t,   dL/ds_T = (dL/dy_T) dy_T/ds_T + dL/d(final states)

    This is what backpropagation through time carries from step to step: where it fades towards the first steps, the memory
    learns nothing of them. The states of a step, such as h and c of an LSTM, are the parts of one vector s_t: each gradient
    holds the others of the same step as they are. They are what a step hands on: y_t depends on s_t where it is one of the
    states, or read out of one. The layer runs as it is, with zeros added to its new states, and the gradients are those of the
    zeros: one forward and one backward pass, for any cell.

    Args:
        layer: a recurrent layer of keras_seq or of Keras over sequences (b, t, d), or any layer or model that has some.
        inputs: what it is called with.
        output_gradients: dL/dy, like the output; for a layer that returns several tensors a list of as many, each like its
            tensor or None for zeros, or one tensor for the first of them.
        of: which recurrent layer the states are of, if there are several: the layer, its name, or its number, for a
            `keras_seq.Stacked` among its layers, else among all recurrent ones in the order of the model.
        **call: further arguments of the call: `mask`, `initial_state`, `training`, `constants`, ...

    Returns:
        A list with dL/ds_t, (b, t, n), for each state, in the order in which the layer returns them, and in the order in which
        it reads the steps (reversed with `go_backwards`, like its outputs). At masked steps it is zero. With `truncate`
        and in cells that let no gradient through their states, it is what training sees, cut there too.

    Raises:
        TypeError, ValueError: a layer without a recurrent one, or of which several might be meant; another output's
            gradients; a recurrent layer that is not called, or more than once.
        RuntimeError: a backend other than TensorFlow.

    Example:

    ```python
    import keras_seq
    from keras import ops
    from keras_seq.analysis import state_gradients
    layer = keras_seq.LSTM(4)
    dh, dc = state_gradients(layer, ops.ones((2, 7, 3)), output_gradients=ops.ones((2, 4)))   # (2, 7, 4) each
    print(ops.norm(dh[0], axis=-1))   # how much of the gradient reaches each step
    ```
    """
    needs_tensorflow("state_gradients")
    import tensorflow as tf

    target = chosen_layer(layer, of)
    with tf.GradientTape(watch_accessed_variables=False) as tape, watched_states(tape, [target]) as calls:
        outputs = tree.flatten(layer(inputs, **call))
    if len(calls) != 1:
        raise ValueError(f"of: expected a layer that is called once, got {target.name}, called {len(calls)} times")
    pairs = _with_gradients(outputs, output_gradients)
    found = tape.gradient(
        [y for y, _ in pairs],
        calls[0].perturbations,
        output_gradients=[g for _, g in pairs],
        unconnected_gradients="zero",
    )
    return [ops.flip(g, axis=1) for g in found] if target.go_backwards else found


@contextlib.contextmanager
def watched_states(tape: Any, layers: Sequence[keras.layers.RNN]) -> Iterator[list[WatchedCall]]:
    """While this context is entered, its value is a list of the calls of these layers, or of others that run their cells.

    The tape watches what is added to their states.
    """
    calls: list[WatchedCall] = []

    def watch(layer, states, sizes, mask):
        same = [one for one in layers if one is layer] or [one for one in layers if one.cell is layer.cell]
        if not same:
            return None
        zeros = [ops.zeros((*sizes, s.shape[-1]), dtype=s.dtype) for s in states]
        tape.watch(zeros)
        calls.append(WatchedCall(same[0], zeros, mask))
        return zeros

    with engine.perturb_states(watch), _perturbed([one for one in layers if not isinstance(one, RNN)]):
        yield calls


def recurrent_layers(layer: keras.layers.Layer) -> list[keras.layers.RNN]:
    """The recurrent layers over sequences (b, t, d) in a layer or model, itself among them, in its order, each once."""
    if isinstance(layer, keras.layers.RNN):
        return [layer]
    parts = layer.layers if isinstance(layer, (keras.Model, Stacked)) else sublayers(layer)
    found = {id(one): one for part in parts for one in recurrent_layers(part)}
    return list(found.values())


def chosen_layer(layer: keras.layers.Layer, of: int | str | keras.layers.Layer | None) -> keras.layers.RNN:
    """The recurrent layer of a layer or model that is meant, by itself, its name or its number; an error if none is."""
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(f"layer: expected a layer or a model, got {layer!r:.80}")
    found = recurrent_layers(layer)
    names = [one.name for one in found]
    if not found:
        raise ValueError(f"layer: expected a recurrent layer over (b, t, d), or one that has some, got {layer.name}")
    if of is None:
        if len(found) > 1:
            raise ValueError(f"of: expected one of the recurrent layers {names}, got None")
        return found[0]
    if isinstance(of, bool) or not isinstance(of, (int, str, keras.layers.Layer)):
        raise TypeError(f"of: expected a layer, its name or its number, got {of!r:.80}")
    if isinstance(of, int):
        among = layer.layers if isinstance(layer, Stacked) else found
        meant = [among[of]] if -len(among) <= of < len(among) else []
    else:
        meant = [one for one in found if of is one or of == one.name]
    if len(meant) != 1 or not any(meant[0] is one for one in found):
        said = of.name if isinstance(of, keras.layers.Layer) else repr(of)
        raise ValueError(f"of: expected one of the recurrent layers {names}, got {said}")
    return meant[0]


def _with_gradients(outputs, gradients):
    """`(output, its gradient)` of those outputs that have one."""
    several = isinstance(gradients, (list, tuple)) and len(outputs) > 1
    given = list(gradients) if several else [gradients, *[None] * (len(outputs) - 1)]
    if len(given) != len(outputs):
        raise ValueError(f"output_gradients: expected {len(outputs)}, like the outputs, got {len(given)}")
    pairs = []
    for y, g in zip(outputs, given, strict=True):
        if g is None:
            continue
        g = ops.convert_to_tensor(g)
        if not fits(g.shape, y.shape):
            raise ValueError(f"output_gradients: expected shape {tuple(y.shape)}, got {tuple(g.shape)}")
        pairs.append((y, ops.cast(g, y.dtype)))
    if not pairs:
        raise ValueError("output_gradients: expected at least one tensor, got None")
    return pairs


_perturbing = threading.RLock()  # held while layers of Keras run by another loop


@contextlib.contextmanager
def _perturbed(layers):
    """While this context is entered, these layers of Keras take what is added to their states."""
    if not layers:
        yield
        return
    with _perturbing:
        for layer in layers:
            vars(layer)["inner_loop"] = types.MethodType(_inner_loop, layer)
        try:
            yield
        finally:
            for layer in layers:
                del vars(layer)["inner_loop"]


def _inner_loop(layer, sequences, initial_state, mask, training=False):
    """The loop of a layer of Keras, of another thread its own; the states with what is added to them."""
    one_mask = tree.flatten(mask)[0] if mask is not None else None
    added = engine.perturbations(layer, tree.flatten(initial_state), ops.shape(sequences)[:2], one_mask)
    if added is None:
        return type(layer).inner_loop(layer, sequences, initial_state, mask, training=training)
    takes_training = "training" in inspect.signature(layer.cell.call).parameters
    further = {"training": training} if takes_training else {}

    def call(inputs, states):
        return layer.cell(inputs, states, **further)

    step, sequences = with_perturbations(call, sequences, added)
    names = ("go_backwards", "return_sequences", "stateful", "unroll", "zero_output_for_mask")
    settings = types.SimpleNamespace(cell=step, **{name: getattr(layer, name) for name in names})
    return loop_of_keras(settings, sequences, initial_state, one_mask)

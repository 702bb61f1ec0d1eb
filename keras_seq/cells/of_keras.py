"""Cells of Keras as our layers run them."""

import itertools

import keras
from keras import ops, tree

from keras_seq._keras import DropoutRNNCell, new_dropout_mask
from keras_seq.cells.functional import CellFunctions
from keras_seq.engine import functional


def functions_of_keras(cell):
    """A built cell of Keras as pure functions, at inference; its states are one flat list."""
    variables = [v for v in cell.variables if keras.backend.is_float_dtype(v.dtype)]
    sizes = list(cell.state_size) if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]

    def step(projected, states, constants):
        inputs = projected["inputs"]
        given = tree.pack_sequence_as(sizes, list(states))
        output, new = with_own_masks(cell, inputs, given, training=False)(inputs, given)
        return {"output": output}, tree.flatten(new)

    return CellFunctions(variables, lambda weights, inputs: inputs, functional(step, variables), None)


def with_own_masks(cell, inputs, states, training):
    """The cell, its weights shared, with dropout masks of its own for these `inputs` (b, d) and a list of its states.

    Keras keeps the masks of a sequence on the cell, where another call at the same time would find them.
    """
    if isinstance(cell, keras.layers.StackedRNNCells):
        cells = []
        for inner, own in zip(cell.cells, states, strict=True):
            own = tree.flatten(own)
            cells.append(with_own_masks(inner, inputs, own, training))
            width = getattr(inner, "output_size", None) or own[0].shape[-1]
            inputs = ops.zeros((ops.shape(inputs)[0], width), dtype=inputs.dtype)
        return view(cell, cells=cells)
    if not isinstance(cell, DropoutRNNCell):
        return cell
    if not training:  # Keras draws masks that it does not use
        return view(cell, dropout=0.0, recurrent_dropout=0.0)
    return view(
        cell,
        _dropout_mask=new_dropout_mask(cell, inputs, cell.dropout) if cell.dropout else None,
        _recurrent_dropout_mask=(
            new_dropout_mask(cell, states[0], cell.recurrent_dropout) if cell.recurrent_dropout else None
        ),
    )


def view(cell, **attributes):
    """The same object but for these attributes."""
    view = object.__new__(type(cell))
    vars(view).update(vars(cell), **attributes)
    return view


def with_perturbations(call, sequences, perturbations):
    """`(call, sequences)` of a loop that adds to its new states what the `perturbations` say, (b, t, n) for each of them.

    They go along with the sequences (b, t, d), side by side in the last axis. An output that is a state changes with it.
    """
    given = [sequences, *(ops.cast(p, sequences.dtype) for p in perturbations)]
    places = list(itertools.accumulate(x.shape[-1] for x in given[:-1]))

    def perturbed(joined, states):
        inputs, *added = ops.split(joined, places, axis=-1)
        output, new = call(inputs, states)
        flat = tree.flatten(new)
        changed = [n + ops.cast(a, n.dtype) for n, a in zip(flat, added, strict=True)]
        output = next((c for n, c in zip(flat, changed, strict=True) if n is output), output)
        return output, tree.pack_sequence_as(new, changed)

    return perturbed, ops.concatenate(given, axis=-1)

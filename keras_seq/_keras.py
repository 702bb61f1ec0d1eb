"""What the package uses of Keras that Keras does not export, each with its reason; tests/test_private_keras.py holds it so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras.src.backend.common.variables import AutocastScope
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell
from keras.src.ops.numpy import GetItem

__all__ = [
    "AutocastScope",
    "DropoutRNNCell",
    "GetItem",
    "carried_mask",
    "carry_mask",
    "changed_losses",
    "kept_batch",
    "loop_of_keras",
    "new_dropout_mask",
    "report_loss",
    "run_graph",
    "sublayers",
    "summing",
]

# AutocastScope: under a mixed policy Keras casts the weights of a layer to the short type while it is called. A cell says
# itself where that is right, as its states must not be added up in it.
# DropoutRNNCell: `keras.layers.RNN` draws one mask of dropout for all steps only for cells of this class.
# GetItem: what x[key] in a functional model is; `keras.ops.get_item` is only what makes one.


def carried_mask(x: Any) -> Any:
    """The mask that Keras carries with a tensor; None for none. A loss is given the tensor, but not its mask."""
    return getattr(x, "_keras_mask", None)


def carry_mask(x: Any, mask: Any) -> None:
    """Let Keras carry a mask with a tensor; it does so itself for what a layer puts out, not for what is made in its place."""
    x._keras_mask = mask


@contextlib.contextmanager
def changed_losses(
    model: keras.Model, of_compile: Callable[[keras.Loss], Any], added: Callable[[Any], Any]
) -> Iterator[None]:
    """While it lasts, a model takes `of_compile(loss)` for each loss of `compile`, and `added(value)` of those that are added.

    A model makes the losses of `compile` of what it was given when it first meets targets; its public ones say what that was.
    """
    terms, add = model._compile_loss, model._aggregate_additional_loss
    losses = terms._flat_losses if terms is not None else None
    if losses is not None:
        terms._flat_losses = [one._replace(loss=of_compile(one.loss)) for one in losses]
    model.__dict__["_aggregate_additional_loss"] = lambda value: added(add(value))
    try:
        yield
    finally:
        del model.__dict__["_aggregate_additional_loss"]
        if losses is not None:
            terms._flat_losses = losses


def summing(loss: keras.Loss, call: Callable[[Any, Any], Any]) -> keras.Loss:
    """A loss that sums in float32 what `call(y_true, y_pred)` gives, with the masks and weights that another loss applies.

    `copy.copy` would save and load the loss, which of a function that is not registered fails.
    """
    made = object.__new__(type(loss))
    vars(made).update({**vars(loss), "call": call, "reduction": "sum", "_dtype": "float32"})
    return made


def kept_batch(layer: keras.layers.RNN) -> int | None:
    """The number of rows of the states that a stateful layer keeps."""
    return layer._expected_batch_size


def new_dropout_mask(cell: DropoutRNNCell, like: Any, rate: float) -> Any:
    """A mask as a cell of Keras draws it, of one sequence; the one that it keeps itself another call at a time would find."""
    return cell._create_dropout_mask(like, rate)


def report_loss(model: keras.Model, loss: Any) -> None:
    """Count a loss in what `fit` shows as "loss": Keras has no public way for a `train_step` that takes its own gradients."""
    model._loss_tracker.update_state(loss)


def run_graph(model: keras.Model, inputs: Any, call: Callable[..., Any]) -> Any:
    """Run a functional model anew with `call(layer, *args, **kwargs)` in the place of every layer.

    `keras.models.clone_model` does so, but gives no layer any further inputs, as the states of a step are.
    """
    return model._run_through_graph(inputs, operation_fn=lambda layer: layer, call_fn=call)


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer or a model has as its parts, and not those of these; only a model says so in public."""
    return layer._flatten_layers(include_self=False, recursive=False)


def loop_of_keras(settings: Any, sequences: Any, initial_state: Sequence[Any], mask: Any) -> tuple[Any, Any, Any]:
    """`(last output, outputs, states)` of the loop of `keras.layers.RNN` with the cell and the flags of `settings`.

    Its loop is a method that asks nothing else of its layer; a layer of Keras would check and cast what stands here already.
    """
    return keras.layers.RNN.inner_loop(settings, sequences, initial_state, mask)

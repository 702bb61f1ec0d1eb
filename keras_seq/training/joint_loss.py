"""Losses of replicas that are together the loss of the batch they share, whatever masks and weights leave of each share.

Keras divides the sum of a replica's terms by their number, and that by the number R of replicas: it averages means. Of a
batch of B rows, of which replica i has b_i, with N terms that masks leave, of which replica i has n_i, it is to be

    L = (S_1 + .. + S_R) / N,   S_i the sum of the terms of replica i;   Keras has S_i / (n_i R)

The numbers n_i are summed over the replicas where they are not as the rows. What Keras shows as the loss is the mean over the
rows of R times what each replica has: where the b_i differ it needs another factor than the gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import ops, tree

from keras_seq._keras import carried_mask, carry_mask, changed_losses, summing


def share(rows: int, replicas: int, replica: int) -> tuple[int, int]:
    """Where the rows of a replica begin and end; no replica has more than one row more than another."""
    return replica * rows // replicas, (replica + 1) * rows // replicas


@contextlib.contextmanager
def joint_losses(model: keras.Model, rows: int) -> Iterator[None]:
    """While it lasts, the losses in each replica are its parts of the losses of a batch of `rows` rows.

    What layers add (`add_loss`, regularizers) counts as a mean over the rows. Gradients that are not finite in one replica
    are so in all: where `LossScaleOptimizer` went on in some alone, they would wait for the others.
    """
    scaling = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    with contextlib.ExitStack() as stack:
        stack.enter_context(changed_losses(model, lambda loss: _joint(loss, rows), lambda loss: _added(loss, rows)))
        if scaling:
            stack.enter_context(_finite_in_all(model.optimizer))
        yield


def _joint(loss, rows):
    """A loss of `compile` for a replica's share of a batch of `rows` rows."""

    def joint(y_true, y_pred, sample_weight=None):
        number, differs = _terms(loss, y_true, y_pred, sample_weight)
        value = loss(y_true, y_pred, sample_weight)
        context, own = tf.distribute.get_replica_context(), _own_rows(rows)
        replicas = context.num_replicas_in_sync
        if loss.reduction == "sum":  # which Keras does not divide by the replicas
            part = 1 / replicas
        elif differs or loss.reduction == "mean_with_sample_weight":
            all_terms = context.all_reduce(tf.distribute.ReduceOp.SUM, ops.stop_gradient(number))
            part = ops.cast(ops.divide_no_nan(number, all_terms), value.dtype)
        else:
            part = own / rows
        summed = replicas * part * value
        return summed if own * replicas == rows else _shown_as(rows / own * part * value, summed)

    return joint


def _added(loss, rows):
    """A loss that a layer adds, which Keras has divided by the number of replicas."""
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    return _shown_as(loss, _own_rows(rows) * replicas / rows * loss)


def _shown_as(value, loss):
    """This value, with the gradient of the loss."""
    return loss + ops.stop_gradient(value - loss)


def _own_rows(rows):
    context = tf.distribute.get_replica_context()
    replica = int(tf.get_static_value(tf.convert_to_tensor(context.replica_id_in_sync_group)))
    begin, end = share(rows, context.num_replicas_in_sync, replica)
    return end - begin


def _terms(loss, y_true, y_pred, sample_weight):
    """How many terms a loss is the mean of, as its masks and weights count them, and whether rows may differ in them."""
    seen = []

    def ones(y_true, y_pred):
        terms = loss.call(y_true, y_pred)
        seen.append(terms)
        made = ops.ones_like(terms)
        if carried_mask(terms) is not None:
            carry_mask(made, carried_mask(terms))
        return made

    weights = sample_weight if loss.reduction == "mean_with_sample_weight" else None
    number = summing(loss, ones)(y_true, y_pred, weights)
    if loss.reduction in (None, "none") or not seen or not len(seen[0].shape):
        raise ValueError(
            f"loss: expected one whose `call` gives the loss of each row or step, and Keras their sum or mean, as several "
            f"replicas have parts of it, got {loss.name}"
        )
    masked = any(carried_mask(x) is not None for x in (*tree.flatten(y_pred), seen[0]))
    return number, masked or None in seen[0].shape


@contextlib.contextmanager
def _finite_in_all(optimizer: Any) -> Iterator[None]:
    finite = optimizer.check_finite

    def finite_in_all(gradients):
        others = tf.cast(tf.logical_not(finite(gradients)), tf.float32)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, others) == 0

    optimizer.check_finite = finite_in_all
    try:
        yield
    finally:
        del optimizer.check_finite

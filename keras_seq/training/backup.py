"""Backups of a run on disk, from which it goes on where it was broken off, on any number of replicas."""

from __future__ import annotations

import functools
import os
import shutil
from typing import Any

import keras
import tensorflow as tf

from keras_seq.training.replica_means import ReplicaMeans

_TRAVELS = (tf.float32, tf.float64, tf.int32, tf.int64)  # what every way to gather carries


class Backup(keras.callbacks.Callback):
    """Keeps all that a run needs to go on, and says where it goes on: in which epoch, before which batch.

    The states that streams carry are kept for all rows together, in their order, however many replicas share them. Of several
    workers the chief writes and all read, from one folder.
    """

    def __init__(self, model: Any, folder: str, every: int, rows: int | None = None) -> None:
        super().__init__()
        self.folder, self.every, self.rows = folder, every, rows
        self._strategy = model.distribute_strategy
        self._epoch, self._batch = tf.Variable(0, dtype=tf.int64), tf.Variable(0, dtype=tf.int64)
        with self._strategy.scope():
            model.optimizer.build(model.trainable_variables)
        self._carried = [] if rows is None else _carried(model, rows, self._strategy)
        self._states = [tf.Variable(tf.zeros((rows, *v.shape[1:]), v.dtype)) for v in self._carried]
        kept = [*(v.value for v in (*model.variables, *model.optimizer.variables)), *self._states]
        self._checkpoint = tf.train.Checkpoint(kept=kept, epoch=self._epoch, chunk=self._batch)
        if is_chief(self._strategy):
            _check_writable(folder)
        self._manager = tf.train.CheckpointManager(self._checkpoint, folder, max_to_keep=2)
        if self._manager.latest_checkpoint:
            self._restore(kept)
        self.epoch, self.batch = int(self._epoch), int(self._batch)
        self._last = self.batch
        self._means = ReplicaMeans(model)

    def _restore(self, kept):
        path = self._manager.latest_checkpoint
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        found = [shapes.get(f"kept/{i}/.ATTRIBUTES/VARIABLE_VALUE") for i in range(len(kept) + 1)]
        if found != [*(v.shape.as_list() for v in kept), None]:
            rows = "" if self.rows is None else f" on {self.rows} rows"
            raise ValueError(f"backup: expected one of this model{rows}, got another in {self.folder}")
        self._checkpoint.restore(path).assert_consumed()

        def take_share():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            for variable, states in zip(self._carried, self._states, strict=True):
                rows = variable.shape[0]
                variable.assign(states[index * rows : (index + 1) * rows])

        self._strategy.run(take_share)

    def _save(self, epoch, batch):
        self._epoch.assign(epoch)
        self._batch.assign(batch)
        self._means.take()
        for states, variable in zip(self._states, self._carried, strict=True):
            states.assign(all_rows(self._strategy, variable))
        if is_chief(self._strategy):
            self._manager.save()
        self._last = batch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch + 1 - self._last >= self.every:
            self._save(self._now, batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._save(epoch + 1, 0)

    def on_train_end(self, logs: Any = None) -> None:
        if is_chief(self._strategy):
            shutil.rmtree(self.folder, ignore_errors=True)


def _check_writable(folder):
    """Now, as the first backup comes late."""
    probe = os.path.join(folder, "writable")
    try:
        tf.io.gfile.makedirs(folder)
        with tf.io.gfile.GFile(probe, "w") as file:
            file.write("?")
        tf.io.gfile.remove(probe)
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"backup: expected a folder to write to, got {folder}: {error!s:.200}") from None


def is_chief(strategy: Any) -> bool:
    """Whether this worker is the one that writes files and shows progress; a single one is."""
    return bool(getattr(strategy.extended, "should_checkpoint", True))


def all_rows(strategy: Any, variable: Any) -> Any:
    """What the replicas of all workers hold of a variable, (rows, ..) each, in one tensor in their order."""
    kind = tf.as_dtype(variable.dtype)
    travels = kind if kind in _TRAVELS else tf.float32 if kind.is_floating else tf.int32
    here = strategy.run(lambda: tf.cast(variable.value, travels))
    return tf.cast(here if strategy.num_replicas_in_sync == 1 else gather(strategy)(here), kind)


@functools.lru_cache(maxsize=8)
def gather(strategy: Any) -> Any:
    """A function of what the replicas of all workers hold, (rows, ..) each, that puts it together.

    It is a graph: gathered eagerly, threads of TensorFlow's that are no longer needed can block one another.
    """
    return tf.function(lambda values: strategy.gather(values, axis=0))


def _carried(model, rows, strategy):
    """The variables of carried states, for the share of the rows that each replica has."""
    share, left = divmod(rows, strategy.num_replicas_in_sync)
    if left:
        raise ValueError(f"rows: expected a multiple of the {strategy.num_replicas_in_sync} replicas, got {rows}")
    with strategy.scope():
        return model._kept_states(True, share, model.first_states(share))

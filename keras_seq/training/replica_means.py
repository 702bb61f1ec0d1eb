"""Weights that each replica changes by its own rows: their means over the replicas, in all of them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_SUMMED = (tf.float32, tf.float64)  # what every way to sum carries


class ReplicaMeans:
    """Gives all replicas one value of the weights that no gradient changes, as the moving means of `BatchNormalization`.

        w_i <- (w_1 + .. + w_R) / R     of the weights that are not the same in the R replicas

    Keras lets them differ, and would save those of the first replica. Moving means are linear in what they are of, so that it
    makes no difference when, or how often, their mean is taken. Weights that are the same, as frozen ones, are not touched.
    """

    def __init__(self, model: Any) -> None:
        self._strategy = model.distribute_strategy
        values = [w.value for w in model.non_trainable_weights]
        several = self._strategy.num_replicas_in_sync > 1
        self._values = [v for v in values if v.dtype.is_floating and _is_mirrored(v)] if several else []
        self._everyones = tf.function(lambda: self._strategy.gather(self._strategy.run(self._marks), axis=0))
        self._assign = tf.function(lambda which: self._strategy.run(self._average, args=(which,)))

    def take(self) -> None:
        """Every worker calls it at the same place of the run."""
        if self._values:
            marks = self._everyones().numpy()
            differ = (marks != marks[0]).any(axis=0).nonzero()[0].tolist()
            if differ:
                self._assign(tuple(differ))

    def _marks(self):
        """(1, n) numbers of the n weights, the same where the weights are."""
        return tf.stack([tf.strings.to_hash_bucket_fast(tf.io.serialize_tensor(v), 2**62) for v in self._values])[None]

    def _average(self, which):
        chosen = [self._values[i] for i in which]
        sent = [tf.identity(tf.cast(v, v.dtype if v.dtype in _SUMMED else tf.float32)) for v in chosen]
        means = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, sent)
        for value, mean in zip(chosen, means, strict=True):
            value.assign(tf.cast(mean, value.dtype))


def _is_mirrored(value):
    return value.synchronization != tf.VariableSynchronization.ON_READ

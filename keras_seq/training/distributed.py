"""Training on several replicas and machines: Keras's training step, run by a strategy of TensorFlow's, in a loop of our own."""

from __future__ import annotations

import contextlib
import itertools
import os
import zlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_seq.arguments import needs_tensorflow, positive_integer
from keras_seq.training.backup import Backup, is_chief
from keras_seq.training.carries_states import CarriesStates
from keras_seq.training.joint_loss import joint_losses, share
from keras_seq.training.replica_means import ReplicaMeans
from keras_seq.training.workers import agree, everyones, heard_by_all, named_workers, several_workers

_NAMES = ("CSVLogger", "ModelCheckpoint", "OrbaxCheckpoint", "RemoteMonitor", "TensorBoard")
_OF_CHIEF = tuple(getattr(keras.callbacks, name) for name in _NAMES if hasattr(keras.callbacks, name))


def fit_distributed(
    model: keras.Model,
    data: tf.data.Dataset | Callable[[int], tf.data.Dataset],
    epochs: int = 1,
    *,
    validation_data: tf.data.Dataset | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    verbose: int | str = "auto",
    backup: str | os.PathLike[str] | None = None,
    backup_every: int = 100,
) -> keras.callbacks.History:
    """Trains a compiled Keras model under the `tf.distribute` strategy in whose scope it was made, on all workers alike.

        loss = (S_1 + .. + S_n) / N,   S_i the sum of the loss's terms over the rows [i b/n, (i+1) b/n) of a batch of b rows

    N is the number of terms in the whole batch: of those that masks leave, or the sum of their weights, where the loss divides
    by it. So n replicas learn what one learns of the same batches, under masks and sample weights, and of a smaller last batch
    that they share unequally. What layers add to the loss counts by rows. A layer that looks at all rows, as
    `BatchNormalization` does unless it is `synchronized`, sees those of its replica, and dropout draws in each. Weights that
    no gradient changes, as moving means, are averaged over the replicas before each backup and at the end of each epoch. A
    model that does not take its loss by `compute_loss` of Keras, in a `train_step` or `compute_loss` of its own, averages what
    the replicas have.

    Keras 3.15's `fit` does not run under `MultiWorkerMirroredStrategy`: it makes tensors of values that are distributed. This
    is its loop, on the model's own `train_step` and `test_step`, metrics and callbacks, for that strategy, `MirroredStrategy`
    and none. Every worker calls it with the same arguments and reads all the data; each replica takes its rows of each batch.
    Batches of streams (`stream_chunks`, `LanguageModel.streams`) keep each stream in one replica, which carries its states.

    An error in one worker is an error in all: `AbortedError` names the worker and its error. Then all are to be started anew.

    Args:
        model: compiled, with `jit_compile=False` where there are several replicas, as XLA compiles for one device alone.
        data: a `tf.data.Dataset` of batches `(x, y)` or `(x, y, sample_weight)` of at least as many rows as there are replicas,
            of streams a multiple of that, the same in each worker and each epoch; or a function of the epoch (0, 1, ..) that
            gives one, for data shuffled anew.
        epochs: positive integer, at which epoch the training ends.
        validation_data: a `tf.data.Dataset` of such batches, scored after each epoch.
        callbacks: Keras's, called in every worker, those of Keras that write files or send (`CSVLogger`, `ModelCheckpoint`,
            `OrbaxCheckpoint`, `RemoteMonitor`, `TensorBoard`) in the chief alone. The logs are of all workers, so that all
            decide alike; where one ends the training for a reason of its own, all end after the same batch.
        verbose: as in Keras; "auto" is 1 in the chief and 0 in the others.
        backup: folder that all workers see, for weights, optimizer, random numbers, carried states and the place in the data;
            None for none. When a worker dies all are to be started anew with the same arguments: they go on from the last
            backup and end with the weights of an unbroken run, on another number of workers too. A run that ends removes it.
            What callbacks remember is not kept, and the metrics of a broken epoch are of the rest of it.
        backup_every: positive integer, batches between backups; there is one after each epoch too.

    Returns:
        The `keras.callbacks.History`, the same in all workers.

    Raises:
        TypeError, ValueError: a model that is not compiled, or with XLA on several replicas, or with `steps_per_execution`, or
            made outside of the strategy's scope where TF_CONFIG names several workers; other epochs, or backups, or validation,
            in one worker than in another; a loss of one number for all rows where several replicas are to have parts of it;
            data of another kind; rows that the replicas cannot share; workers whose data or backups differ; a backup of another
            model, or a folder for it that cannot be written to.

    Example:

    ```python
    import keras
    import keras_seq
    import numpy as np
    import tensorflow as tf
    from keras_seq.training import fit_distributed, worker_strategy
    strategy = worker_strategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((None, 3)), keras_seq.LSTM(4), keras.layers.Dense(1)])
        model.compile("adam", "mse", jit_compile=False)
    x, y = np.ones((8, 5, 3), "float32"), np.ones((8, 1), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    history = fit_distributed(model, data, epochs=2, verbose=0)     # history.history["loss"]: two losses
    ```
    """
    needs_tensorflow("fit_distributed")
    epochs, backup_every = positive_integer("epochs", epochs), positive_integer("backup_every", backup_every)
    if not isinstance(model, keras.Model):
        raise TypeError(f"model: expected a compiled keras.Model, got {model!r:.80}")
    if not model.compiled:
        raise ValueError(f"model: expected a compiled keras.Model, got {model.name}, which is not")
    if not isinstance(callbacks, (list, tuple, type(None))):
        raise TypeError(f"callbacks: expected a list, got {callbacks!r:.80}")
    if any(isinstance(one, keras.callbacks.BackupAndRestore) for one in callbacks or ()):
        raise ValueError("callbacks: expected backup= in the place of BackupAndRestore, which only Keras's `fit` knows")
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    if not isinstance(backup, (str, os.PathLike, type(None))):
        raise TypeError(f"backup: expected a folder or None, got {backup!r:.80}")
    strategy = model.distribute_strategy
    _check_compiled(model, strategy)
    with heard_by_all(strategy):
        return _fit(model, data, epochs, validation_data, list(callbacks or []), verbose, backup, backup_every)


def _check_compiled(model, strategy):
    replicas, workers = strategy.num_replicas_in_sync, named_workers()
    if workers > 1 and not several_workers(strategy):
        raise ValueError(
            f"model: expected one made in the scope of worker_strategy(), as TF_CONFIG names {workers} workers, each of which "
            "would train one of its own, got one made outside"
        )
    if replicas > 1 and model.jit_compile:
        raise ValueError(
            f"jit_compile: expected False on {replicas} replicas, as XLA compiles for one device alone, got True"
        )
    if model.steps_per_execution != 1:
        raise ValueError(f"steps_per_execution: expected 1, got {model.steps_per_execution}")


def _fit(model, data, epochs, validation_data, callbacks, verbose, backup, backup_every):
    strategy = model.distribute_strategy
    _check_alike(
        strategy,
        epochs=epochs,
        validation_data=validation_data is not None,
        backup=backup is not None,
        backup_every=backup_every,
    )
    of_epoch = data if callable(data) and not isinstance(data, tf.data.Dataset) else lambda epoch: data
    first = _checked("data", of_epoch(0))
    if validation_data is not None:
        _checked("validation_data", validation_data)
    _make_variables(model, strategy, first)
    keeper = None
    if backup is not None:
        rows = tf.nest.flatten(first.element_spec)[0].shape[0] if isinstance(model, CarriesStates) else None
        keeper = Backup(model, os.fspath(backup), backup_every, rows)
    begin = (keeper.epoch, keeper.batch) if keeper else (0, 0)
    agree("backup", "the same in each worker, in a folder that all see", everyones(strategy, begin))
    called = _callback_list(model, callbacks, keeper, verbose, epochs, int(first.cardinality()))
    # those that may end an epoch are to end it in all workers
    asks = everyones(strategy, [any(map(_sees_batches, callbacks))]).any()
    train, test = _over_replicas(model, model.train_step), _over_replicas(model, model.test_step)
    means = ReplicaMeans(model)
    model.stop_training = False
    called.on_train_begin()
    logs = {}
    for epoch in range(begin[0], epochs):
        called.on_epoch_begin(epoch)
        passed = begin[1] if epoch == begin[0] else 0
        logs = _epoch(model, "data", _checked("data", of_epoch(epoch)), train, called, "train", passed, asks)
        means.take()
        if validation_data is not None:
            called.on_test_begin()
            scores = _epoch(model, "validation_data", validation_data, test, called, "test")
            called.on_test_end(scores)
            logs |= {f"val_{name}": score for name, score in scores.items()}
        called.on_epoch_end(epoch, logs)
        if everyones(strategy, [model.stop_training]).any():
            model.stop_training = True
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    called.on_train_end(logs)
    return model.history


def _check_alike(strategy, **given):
    """Workers that were given other numbers than the rest would wait for it, or it for them."""
    found = everyones(strategy, [int(number) for number in given.values()])
    for i, name in enumerate(given):
        agree(name, "the same in each worker", found[:, [i]])


def _callback_list(model, callbacks, keeper, verbose, epochs, steps):
    chief = is_chief(model.distribute_strategy)
    shown = int(chief) if verbose == "auto" else int(verbose)
    chosen = [one for one in callbacks if chief or not isinstance(one, _OF_CHIEF)]
    return keras.callbacks.CallbackList(
        [*chosen, *([keeper] if keeper else [])],
        add_history=True,
        add_progbar=shown != 0,
        verbose=shown,
        epochs=epochs,
        steps=steps if steps > 0 else None,
        model=model,
    )


def _sees_batches(callback):
    """Whether a callback of the user's is called at batches, where it may end the training."""
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    own = (getattr(getattr(callback, hook), "__func__", None) for hook in hooks)
    default = (getattr(keras.callbacks.Callback, hook) for hook in hooks)
    return not isinstance(callback, _OF_CHIEF) and any(a is not b for a, b in zip(own, default, strict=True))


def _checked(name, data):
    if not isinstance(data, tf.data.Dataset):
        raise TypeError(f"{name}: expected a tf.data.Dataset of batches, got {data!r:.80}")
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{name}: expected an end, got an endless tf.data.Dataset; `take` the batches of an epoch")
    if data.cardinality() == 0:
        raise ValueError(f"{name}: expected batches, got an empty tf.data.Dataset")
    return data


def _make_variables(model, strategy, data):
    """Make what Keras makes when a model first sees targets, outside of any graph, where several replicas cannot."""
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    for batch in data.take(1):
        strategy.run(model.test_step, args=(_shares(model, "data", batch)[0],))


def _over_replicas(model, step):
    """A function of a distributed batch and its rows: the step in each replica, then the metrics over all of them.

    Replicas have other shapes of a batch whose rows they cannot share equally. As the number of rows is given, a shape that is
    new in one worker is so in all: they trace alike, which TensorFlow asks for where they wait for one another.
    """
    strategy = model.distribute_strategy
    alone = strategy.num_replicas_in_sync == 1

    def run(batch, rows):
        with contextlib.nullcontext() if alone else joint_losses(model, rows):
            strategy.run(step, args=(batch,))
        return model.get_metrics_result()

    return (
        run if model.run_eagerly else tf.function(run, autograph=False, jit_compile=bool(alone and model.jit_compile))
    )


def _epoch(model, name, data, step, called, kind, passed=0, asks=False):
    """The metrics after a pass over the data, of which the first batches are passed over."""
    strategy = model.distribute_strategy
    strategy.run(model.reset_metrics)
    count, results = int(data.cardinality()), {}
    asks = asks or everyones(strategy, [count < 0]).any()
    begun, ended = getattr(called, f"on_{kind}_batch_begin"), getattr(called, f"on_{kind}_batch_end")
    batches = iter(data.skip(passed).prefetch(1))
    for number in itertools.count(passed):
        batch = next(batches, None)
        own = [batch is not None, kind == "train" and model.stop_training]
        found = everyones(strategy, own) if asks else np.array([own])
        if found[:, 1].any():
            model.stop_training = True
            break
        agree(name, "as many batches in each worker", found[:, :1])
        if batch is None:
            break
        if number == passed:
            check = everyones(strategy, (count, _fingerprint(batch)))
            agree(name, "the same batches in each worker (shuffled by a seed)", check)
        begun(number)
        results = step(*_shares(model, name, batch))
        ended(number, _floats(results))
    return _floats(results)


def _floats(results):
    return {name: float(value) for name, value in results.items()}


def _shares(model, name, batch):
    """A batch as the strategy distributes it, to each replica its rows; and how many rows there are."""
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batch, None
    counts = {len(leaf) for leaf in tf.nest.flatten(batch)}
    rows = min(counts)
    if len(counts) > 1 or rows < replicas:
        raise ValueError(
            f"{name}: expected batches of one number of rows, at least {replicas}, got {sorted(counts)} rows"
        )
    if isinstance(model, CarriesStates) and rows % replicas:
        raise ValueError(
            f"{name}: expected a multiple of {replicas} streams, which the replicas share, got {rows} rows"
        )

    def of(context):
        begin, end = share(rows, replicas, context.replica_id_in_sync_group)
        return tf.nest.map_structure(lambda leaf: leaf[begin:end], batch)

    return strategy.experimental_distribute_values_from_function(of), rows


def _fingerprint(batch):
    found = 0
    for leaf in tf.nest.flatten(batch):
        value = leaf.numpy()
        found = zlib.crc32(repr(value.tolist()).encode() if value.dtype == object else value.tobytes(), found)
    return found

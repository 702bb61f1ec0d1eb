"""Training on several replicas and machines: Keras's training step, run by a strategy of TensorFlow's, in a loop of our own."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import zlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_seq.arguments import needs_tensorflow, positive_integer
from keras_seq.training.backup import Backup, gather, is_chief
from keras_seq.training.carries_states import CarriesStates


def worker_strategy(timeout: float = 300.0) -> tf.distribute.MultiWorkerMirroredStrategy:
    """The `tf.distribute.MultiWorkerMirroredStrategy` of the workers that TF_CONFIG names, once all of them are there.

    TensorFlow's own waits for an absent worker without an end and without a word. Here each worker opens its port and knocks
    at the others' until it has found all.

    Args:
        timeout: positive seconds to wait for the other workers.

    Returns:
        The strategy. Without TF_CONFIG it has one worker, this one.

    Raises:
        TimeoutError: it names the workers that did not come, and their addresses.
        TypeError, ValueError: a timeout that is no positive number.

    Example:

    ```python
    from keras_seq.training import worker_strategy
    strategy = worker_strategy(timeout=60)          # without TF_CONFIG this process alone
    print(strategy.num_replicas_in_sync)  # 1
    ```
    """
    needs_tensorflow("worker_strategy")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout: expected positive seconds, got {timeout!r}")
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout: expected positive seconds, got {timeout}")
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    jobs = cluster.cluster_spec().as_dict()
    addresses = [(f"{job} {i}", address) for job in ("chief", "worker") for i, address in enumerate(jobs.get(job, []))]
    if len(addresses) > 1:
        _meet(addresses, f"{cluster.task_type} {cluster.task_id}", timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _meet(addresses, own, timeout):
    """Return when every other worker has opened its port, in which TensorFlow's server then takes the place of ours."""
    end, absent = time.monotonic() + timeout, dict(addresses)
    with socket.create_server(("", _host_and_port(absent.pop(own))[1])):
        while absent:
            for worker, address in list(absent.items()):
                with contextlib.suppress(OSError), socket.create_connection(_host_and_port(address), timeout=1):
                    del absent[worker]
            if absent and time.monotonic() > end:
                missing = ", ".join(f"{worker} at {address}" for worker, address in absent.items())
                raise TimeoutError(
                    f"TF_CONFIG: expected all workers within {timeout:g} seconds, did not find {missing}"
                )
            if absent:
                time.sleep(0.1)


def _host_and_port(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


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

        g = 1/n (g_1 + .. + g_n),   g_i the gradient of replica i on the rows [i b/n, (i+1) b/n) of a batch of b rows

    With a loss that is a mean over rows this is the gradient of the whole batch: n replicas learn what one learns of the
    same batches. (Where a loss is a mean over what a mask leaves, it is the mean of the n means.) Keras 3.15's `fit` does
    not run under `MultiWorkerMirroredStrategy`: it makes tensors of values that are distributed. This is its loop, on the
    model's own `train_step` and `test_step`, metrics and callbacks, for that strategy, `MirroredStrategy` and none.

    Every worker calls it with the same arguments and reads all the data; each replica takes its rows of each batch. Batches
    of streams (`stream_chunks`, `LanguageModel.streams`) keep each stream in one replica, which carries its states.

    Args:
        model: compiled, with `jit_compile=False` where there are several replicas, as XLA compiles for one device alone.
        data: a `tf.data.Dataset` of batches `(x, y)` or `(x, y, sample_weight)` of rows that the replicas share equally, the
            same in each worker and each epoch; or a function of the epoch (0, 1, ..) that gives one, for data shuffled anew.
        epochs: positive integer, at which epoch the training ends.
        validation_data: a `tf.data.Dataset` of such batches, scored after each epoch.
        callbacks: Keras's, called in every worker. The logs are of all workers, so that all decide alike. Those that write
            files belong to the chief alone.
        verbose: as in Keras; "auto" is 1 in the chief and 0 in the others.
        backup: folder that all workers see, for weights, optimizer, random numbers, carried states and the place in the data;
            None for none. When a worker dies all are to be started anew with the same arguments: they go on from the last
            backup and end with the weights of an unbroken run, on another number of workers too. A run that ends removes it.
            What callbacks remember is not kept, and the metrics of a broken epoch are of the rest of it.
        backup_every: positive integer, batches between backups; there is one after each epoch too.

    Returns:
        The `keras.callbacks.History`, the same in all workers.

    Raises:
        TypeError, ValueError: a model that is not compiled, or with XLA on several replicas; data of another kind; rows that
            the replicas cannot share; workers whose data or backups differ; a backup of another model.

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
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    if not isinstance(backup, (str, os.PathLike, type(None))):
        raise TypeError(f"backup: expected a folder or None, got {backup!r:.80}")
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if replicas > 1 and model.jit_compile:
        raise ValueError(
            f"jit_compile: expected False on {replicas} replicas, as XLA compiles for one device alone, got True"
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
    _agree(strategy, "backup", "the same in each worker, in a folder that all see", begin)
    chosen = [*(callbacks or []), *([keeper] if keeper else [])]
    steps = int(first.cardinality())
    shown = (1 if is_chief(strategy) else 0) if verbose == "auto" else int(verbose)
    called = keras.callbacks.CallbackList(
        chosen,
        add_history=True,
        add_progbar=shown != 0,
        verbose=shown,
        epochs=epochs,
        steps=steps if steps > 0 else None,
        model=model,
    )
    train, test = _over_replicas(model, model.train_step), _over_replicas(model, model.test_step)
    model.stop_training = False
    called.on_train_begin()
    logs: dict[str, float] = {}
    for epoch in range(begin[0], epochs):
        called.on_epoch_begin(epoch)
        passed = begin[1] if epoch == begin[0] else 0
        logs = _epoch(model, _checked("data", of_epoch(epoch)), train, passed, called)
        if validation_data is not None:
            scores = _epoch(model, validation_data, test)
            logs |= {f"val_{name}": score for name, score in scores.items()}
        called.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    called.on_train_end(logs)
    return model.history


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
        strategy.run(model.test_step, args=(_shares(strategy, batch),))


def _over_replicas(model, step):
    """A function of a distributed batch: the step in each replica, then the metrics over all of them."""
    strategy = model.distribute_strategy
    alone = strategy.num_replicas_in_sync == 1

    def run(batch):
        strategy.run(step, args=(batch,))
        return model.get_metrics_result()

    return (
        run if model.run_eagerly else tf.function(run, autograph=False, jit_compile=bool(alone and model.jit_compile))
    )


def _epoch(model, data, step, passed=0, called=None):
    """The metrics after a pass over the data, of which the first batches are passed over."""
    strategy = model.distribute_strategy
    strategy.run(model.reset_metrics)
    logs, results = {}, {}
    for number, batch in enumerate(data.skip(passed).prefetch(1), passed):
        if number == passed:
            check = (int(data.cardinality()), _fingerprint(batch))
            _agree(strategy, "data", "the same batches in each worker (shuffled by a seed)", check)
        if called:
            called.on_train_batch_begin(number)
        results = step(_shares(strategy, batch))
        if called:
            logs = _floats(results)
            called.on_train_batch_end(number, logs)
            if model.stop_training:
                break
    return logs or _floats(results)


def _floats(results):
    return {name: float(value) for name, value in results.items()}


def _shares(strategy, batch):
    """A batch as the strategy distributes it: to each replica its rows."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batch
    rows = {len(leaf) for leaf in tf.nest.flatten(batch)}
    if len(rows) > 1 or any(r % replicas for r in rows):
        raise ValueError(
            f"data: expected batches of a multiple of {replicas} rows, which the replicas share, got {sorted(rows)} rows"
        )
    share = rows.pop() // replicas

    def of(context):
        begin = context.replica_id_in_sync_group * share
        return tf.nest.map_structure(lambda leaf: leaf[begin : begin + share], batch)

    return strategy.experimental_distribute_values_from_function(of)


def _fingerprint(batch):
    found = 0
    for leaf in tf.nest.flatten(batch):
        value = leaf.numpy()
        found = zlib.crc32(repr(value.tolist()).encode() if value.dtype == object else value.tobytes(), found)
    return found


def _agree(strategy, name, expected, numbers):
    """An error in every worker unless all of them have the same numbers."""
    if strategy.num_replicas_in_sync == 1:
        return
    own = tf.constant([numbers], tf.int64)
    everyone = gather(strategy)(strategy.experimental_distribute_values_from_function(lambda context: own)).numpy()
    others = np.flatnonzero((everyone != everyone[0]).any(axis=1)).tolist()
    if others:
        raise ValueError(f"{name}: expected {expected}, got others in replicas {others} than in replica 0")

"""The workers of a run on several machines: that all of them come, hear of one another's ends, and decide alike."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_seq.arguments import needs_tensorflow
from keras_seq.engine.tensorflow._tensorflow import tell_other_workers
from keras_seq.training import watch
from keras_seq.training.backup import gather


def worker_strategy(timeout: float = 300.0) -> tf.distribute.MultiWorkerMirroredStrategy:
    """The `tf.distribute.MultiWorkerMirroredStrategy` of the workers that TF_CONFIG names, once all of them are there.

    TensorFlow's own waits for an absent worker without an end and without a word. Here each worker opens its port and knocks
    at the others' until it has found all. Should one of them die before TensorFlow has started in all, which nothing in this
    process could end any more, a process beside it says who is missing and kills it after the same time.

    Args:
        timeout: positive seconds to wait for the other workers.

    Returns:
        The strategy. Without TF_CONFIG it has one worker, this one.

    Raises:
        TimeoutError: it names the workers that did not come, and their addresses.
        OSError: another program has this worker's port.
        TypeError, ValueError: a timeout that is no positive number; a TF_CONFIG that is no JSON object; an address that is no
            host:port, or that of two workers; a task that is none of the cluster's workers.

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
    cluster = _of_environment()
    addresses = _addresses(cluster)
    if len(addresses) < 2:
        return tf.distribute.MultiWorkerMirroredStrategy()
    _check_addresses(addresses)
    own = f"{cluster.task_type} {cluster.task_id}"
    if own not in addresses:
        raise ValueError(f"TF_CONFIG: expected a task that is one of {', '.join(addresses)}, got {own}")
    port = watch.host_and_port(addresses.pop(own))[1]
    _meet(port, addresses, timeout)
    with _watched(addresses, timeout), _sigterm_as_before():
        return tf.distribute.MultiWorkerMirroredStrategy()


def named_workers() -> int:
    """How many workers TF_CONFIG names; 0 without it."""
    return len(_addresses(_of_environment())) if "TF_CONFIG" in os.environ else 0


def _of_environment():
    given = os.environ.get("TF_CONFIG", "{}")
    try:
        found = json.loads(given)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"TF_CONFIG: expected a JSON object, got {given!r:.80}")
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _addresses(cluster):
    jobs = cluster.cluster_spec().as_dict()
    return {f"{job} {i}": address for job in ("chief", "worker") for i, address in enumerate(jobs.get(job, []))}


def _check_addresses(addresses):
    for worker, address in addresses.items():
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"TF_CONFIG: expected host:port as the address of {worker}, got {address!r}")
    if len(set(addresses.values())) < len(addresses):
        raise ValueError(f"TF_CONFIG: expected an address for each worker, got {watch.named(addresses)}")


def _meet(port, others, timeout):
    """Return when every other worker has opened its port, in which TensorFlow's server then takes the place of ours."""
    end = time.monotonic() + timeout
    with _opened(port):
        while others := watch.absent(others):
            if time.monotonic() > end:
                raise TimeoutError(
                    f"TF_CONFIG: expected all workers within {timeout:g} seconds, did not find {watch.named(others)}"
                )
            time.sleep(0.1)


def _opened(port):
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise OSError(
            error.errno, f"TF_CONFIG: expected port {port} to be free for this worker, got {error.strerror}"
        ) from None


@contextlib.contextmanager
def _watched(others, timeout):
    """While it lasts another process looks on, and ends this one after so many seconds."""
    command = [sys.executable, "-I", watch.__file__, str(os.getpid()), str(timeout), json.dumps(others)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as watcher:
        try:
            yield
        finally:
            watcher.kill()


@contextlib.contextmanager
def _sigterm_as_before():
    """TensorFlow's server takes SIGTERM for itself; where this is the main thread, it is given back."""
    yield
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


class CommonError(ValueError):
    """An error that every worker raises, so that none has to be told of it."""


@contextlib.contextmanager
def heard_by_all(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """An error in one worker ends the others too: they would wait for it as long as its process lives."""
    try:
        yield
    except CommonError:
        raise
    except BaseException as error:
        if several_workers(strategy):
            worker = f"{strategy.cluster_resolver.task_type} {strategy.cluster_resolver.task_id}"
            said = str(error)
            if len(said) > 400:  # the reason may stand at the end of what TensorFlow says
                said = f"{said[:150]} .. {said[-250:]}"
            tell_other_workers(f"{worker} ended with {type(error).__name__}: {said}")
        raise


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy spans several processes."""
    resolver = getattr(strategy, "cluster_resolver", None)
    return resolver is not None and len(_addresses(resolver)) > 1


def everyones(strategy: tf.distribute.Strategy, numbers: Sequence[int]) -> Any:
    """What each worker gives here, integers, for all its replicas: (replicas, n), or (1, n) where there is one worker."""
    if not several_workers(strategy):
        return np.array([numbers])
    own = tf.constant([numbers], tf.int64)
    return gather(strategy)(strategy.experimental_distribute_values_from_function(lambda context: own)).numpy()


def agree(name: str, expected: str, everyone: Any) -> None:
    """An error in every worker unless all replicas gave the same."""
    others = np.flatnonzero((everyone != everyone[0]).any(axis=1)).tolist()
    if others:
        raise CommonError(f"{name}: expected {expected}, got others in replicas {others} than in replica 0")

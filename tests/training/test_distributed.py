"""Training on several replicas and machines: two learn what one learns, a killed run goes on, an absent worker is named."""

import importlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_seq
from keras_seq.training import fit_distributed, watch, worker_strategy
from keras_seq.training.workers import agree

ROOT = pathlib.Path(__file__).parents[2]
RUN = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TF_CPP_MIN_LOG_LEVEL": "3"}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5, 3)).astype("float32"), RNG.normal(size=(12, 5, 2)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def made(**compiling):
    keras.utils.set_random_seed(1)
    parts = [keras_seq.LSTM(4, return_sequences=True), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((None, 3)), *parts])
    model.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "jit_compile": False, **compiling})
    return model


def test_alone_it_is_the_fit_of_keras():
    model, other = made(metrics=["mae"]), made(metrics=["mae"])
    expected = model.fit(DATA, epochs=2, shuffle=False, validation_data=DATA, verbose=0).history
    found = fit_distributed(other, DATA, 2, validation_data=DATA, verbose=0).history
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-7)


class Breaks(keras.callbacks.Callback):
    def __init__(self, at=5):
        super().__init__()
        self.at, self.seen = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def test_a_broken_run_goes_on_at_the_batch_where_its_backup_was_made(tmp_path):
    def shuffled(epoch):
        return DATA.unbatch().shuffle(12, seed=epoch).batch(4)

    def small(units=2):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dropout(0.2), keras.layers.Dense(units)])
        model.compile("adam", "mse", run_eagerly=True, jit_compile=False)
        return model

    def fit(model, **more):
        return fit_distributed(model, shuffled, 3, verbose=0, **more)

    def passed(model):
        seen = []
        note = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(batch))
        fit(model, callbacks=[note], backup=folder, backup_every=2)
        return seen

    whole, folder = small(), tmp_path / "backup"
    fit(whole)
    with pytest.raises(KeyboardInterrupt):  # in the second batch of the second epoch
        fit(small(), callbacks=[Breaks()], backup=folder, backup_every=2)
    assert folder.exists()
    with pytest.raises(ValueError, match="backup: expected one of this model, got another in"):
        fit(small(units=1), backup=folder)
    rest = small()
    assert passed(rest) == [0, 1, 2, 0, 1, 2]
    assert not folder.exists()
    for a, b in zip(whole.weights, rest.weights, strict=True):
        np.testing.assert_array_equal(b, a)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), callbacks=[Breaks(6)], backup=folder, backup_every=2)
    assert passed(small()) == [2, 0, 1, 2]  # every second batch, one of which was the second


def test_a_callback_can_stop_it():
    model = made()
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1))
    assert len(fit_distributed(model, DATA, 5, callbacks=[stop], verbose=0).history["loss"]) == 2
    seen = []
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: setattr(model, "stop_training", batch == 1),
        on_train_batch_end=lambda batch, logs: seen.append(batch),
        on_epoch_end=lambda epoch, logs: seen.append(sorted(logs)),
    )
    fit_distributed(model, DATA, 5, callbacks=[stop], verbose=0, validation_data=DATA)
    assert seen == [0, 1, ["loss", "val_loss"]]


class Hears(keras.callbacks.Callback):
    """Notes which of its methods are called, and with which metrics."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda *given, **more: self.heard.append((name, given[0] if name.count("batch") else None))
        return super().__getattribute__(name)


def test_callbacks_hear_of_validation_what_they_hear_in_keras():
    ours, theirs = Hears(), Hears()
    fit_distributed(made(run_eagerly=True), DATA, 1, validation_data=DATA, callbacks=[ours], verbose=0)
    made(run_eagerly=True).fit(DATA, validation_data=DATA, callbacks=[theirs], verbose=0)
    assert ours.heard == theirs.heard


KERAS = keras.callbacks.BackupAndRestore("nowhere")


def test_what_is_wrong_is_refused():
    plain = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])
    for error, message, call in (
        (ValueError, "model: expected a compiled keras.Model", lambda: fit_distributed(plain, DATA)),
        (TypeError, "model: expected a compiled keras.Model", lambda: fit_distributed(keras.layers.Dense(2), DATA)),
        (TypeError, "callbacks: expected a list", lambda: fit_distributed(made(), DATA, callbacks=Breaks())),
        (TypeError, "backup: expected a folder or None", lambda: fit_distributed(made(), DATA, backup=3)),
        (ValueError, "verbose: expected 'auto', 0, 1 or 2", lambda: fit_distributed(made(), DATA, verbose="loud")),
        (ValueError, "data: expected batches, got an empty", lambda: fit_distributed(made(), DATA.take(0))),
        (TypeError, "data: expected a tf.data.Dataset of batches", lambda: fit_distributed(made(), X)),
        (ValueError, "data: expected an end, got an endless", lambda: fit_distributed(made(), DATA.repeat())),
        (TypeError, "validation_data: expected a tf", lambda: fit_distributed(made(), DATA, validation_data=(X, Y))),
        (ValueError, "epochs: expected a positive integer", lambda: fit_distributed(made(), DATA, 0)),
        (
            ValueError,
            "steps_per_execution: expected 1, got 2",
            lambda: fit_distributed(made(steps_per_execution=2), DATA),
        ),
        (
            ValueError,
            "callbacks: expected backup= in the place",
            lambda: fit_distributed(made(), DATA, callbacks=[KERAS]),
        ),
        (TypeError, "timeout: expected positive seconds", lambda: worker_strategy("soon")),
        (ValueError, "timeout: expected positive seconds", lambda: worker_strategy(0)),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call()


def test_who_is_of_another_opinion_is_named():
    agree("data", "the same", np.array([[1, 2], [1, 2]]))
    with pytest.raises(ValueError, match=r"data: expected the same, got others in replicas \[1, 3\] than in replica 0"):
        agree("data", "the same", np.array([[1, 2], [1, 3], [1, 2], [0, 2]]))


def cluster(count):
    """Free addresses, and a function that gives TF_CONFIG for one of them."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()

    def config(index):
        return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})

    return addresses, config


def test_an_absent_worker_is_named(monkeypatch):
    addresses, config = cluster(3)
    monkeypatch.setenv("TF_CONFIG", config(0))
    with socket.create_server(watch.host_and_port(addresses[1])):
        wanted = f"TF_CONFIG: expected all workers within 0.3 seconds, did not find worker 2 at {addresses[2]}"
        with pytest.raises(TimeoutError, match=f"^{wanted}$"):
            worker_strategy(timeout=0.3)
    with pytest.raises(
        ValueError, match=r"model: expected one made in the scope of worker_strategy\(\), as TF_CONFIG names 3"
    ):
        fit_distributed(made(), DATA)
    monkeypatch.setenv("TF_CONFIG", config(3))
    with pytest.raises(ValueError, match=r"TF_CONFIG: expected a task that is one of worker 0, .*, got worker 3"):
        worker_strategy(timeout=0.3)


def test_a_process_that_waits_for_a_dead_worker_is_killed_with_its_name():
    addresses, _ = cluster(2)
    with (
        socket.create_server(watch.host_and_port(addresses[0])),
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as waits,
    ):
        others = json.dumps({f"worker {i}": address for i, address in enumerate(addresses)})
        command = [sys.executable, "-I", watch.__file__, str(waits.pid), "0.1", others]
        assert subprocess.run([*command[:-2], "60", others], input="", timeout=60, text=True).returncode == 0
        assert waits.poll() is None
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as watcher:
            assert waits.wait(timeout=60) == -signal.SIGKILL
            said = watcher.stderr.read()
    assert f"within 0.1 seconds of having met, did not find worker 1 at {addresses[1]}; this process" in said


MEETS_AND_ENDS = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    time.sleep(0.5)  # until the other has found this one
sys.exit(3)
"""


@pytest.mark.deep
def test_a_worker_that_dies_before_tensorflow_has_started_is_named_and_the_others_end():
    addresses, config = cluster(2)
    ports = [address.split(":")[1] for address in addresses]
    waits = "from keras_seq.training import worker_strategy; worker_strategy(4)"
    with (
        subprocess.Popen([sys.executable, "-c", MEETS_AND_ENDS, ports[1], ports[0]]),
        subprocess.Popen(
            [sys.executable, "-c", waits], env={**RUN, "TF_CONFIG": config(0)}, stderr=subprocess.PIPE, text=True
        ) as waiting,
    ):
        try:
            said = waiting.communicate(timeout=120)[1]
        finally:
            waiting.kill()
    assert waiting.returncode == -signal.SIGKILL
    assert f"within 4 seconds of having met, did not find worker 1 at {addresses[1]}" in said


@pytest.mark.deep
def test_the_supervisor_ends_those_that_wait_and_starts_all_again(monkeypatch, capfd, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "examples")
    example = importlib.import_module("distributed")
    waits = "from keras_seq.training import worker_strategy; worker_strategy(200)"
    started = []

    class Started(subprocess.Popen):
        """The first two: one waits in TensorFlow, as the other dies after they have met."""

        def __init__(self, given, env):
            task = json.loads(env["TF_CONFIG"])
            number, ports = task["task"]["index"], [a.split(":")[1] for a in task["cluster"]["worker"]]
            ends = [sys.executable, "-c", MEETS_AND_ENDS, ports[1], ports[0]]
            first = [[sys.executable, "-c", waits], ends][number]
            super().__init__(first if len(started) < 2 else [sys.executable, "-c", "pass"], env={**RUN, **env})
            started.append(self)

    monkeypatch.setattr(example, "subprocess", types.SimpleNamespace(Popen=Started))
    monkeypatch.setattr(example, "command", lambda *_: None)
    try:
        assert example.run(None, 2, tmp_path) == 1
    finally:
        for process in started:
            process.kill()
    assert "worker 1 ended with 3; all start again from the backup" in capfd.readouterr().out
    assert [process.returncode for process in started] == [-signal.SIGKILL, 3, 0, 0]


MIRRORED = """
import sys
import numpy as np, tensorflow as tf
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
import keras, keras_seq
from keras_seq.training import TruncatedBPTT, fit_distributed, stream_chunks
TWO = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
x, y = (np.random.default_rng(1).normal(size=(4, 8, n)).astype("float32") for n in (3, 2))

class Breaks(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt

def trained(strategy, backup=None, callbacks=(), keras_fit=False, rows=4, **compiling):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        parts = [keras_seq.SimpleRNN(5, return_sequences=True), keras.layers.Dense(2)]
        model = TruncatedBPTT(keras.Sequential([keras.Input((None, 3)), *parts]), steps=2)
        model.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "jit_compile": False, **compiling})
    data = stream_chunks(x[:rows], y[:rows], steps=2)
    run = model.fit if keras_fit else lambda data, **more: fit_distributed(model, data, **more)
    run(data, epochs=2, verbose=0, callbacks=list(callbacks), backup=backup, backup_every=1)
    return [w.numpy() for w in model.weights]

def same(a, b):
    for v, w in zip(a, b, strict=True):
        np.testing.assert_allclose(v, w, atol=2e-6)

def of_all_rows(y, p):
    return keras.ops.mean((y - p) ** 2)

one, two = trained(tf.distribute.get_strategy()), trained(TWO)
same(one, two)
try:
    trained(TWO, sys.argv[1], [Breaks()], keras_fit=True)
    raise SystemExit("not broken off")
except KeyboardInterrupt:
    pass
same(two, trained(tf.distribute.get_strategy(), sys.argv[1]))  # the states of all rows go on in one replica
try:
    trained(TWO, jit_compile=True)
    raise SystemExit("compiled")
except ValueError as error:
    assert "jit_compile: expected False on 2 replicas" in str(error), error
with TWO.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse", jit_compile=False)
try:
    fit_distributed(model, tf.data.Dataset.from_tensor_slices((x[:3, 0], y[:3, 0])).batch(2), verbose=0)
    raise SystemExit("one row for two")
except ValueError as error:
    assert "data: expected batches of one number of rows, at least 2, got [1] rows" in str(error), error
try:
    trained(TWO, rows=3)
    raise SystemExit("three streams")
except ValueError as error:
    assert "data: expected a multiple of 2 streams" in str(error), error
with TWO.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", of_all_rows, jit_compile=False)
try:
    fit_distributed(model, tf.data.Dataset.from_tensor_slices((x[:, 0], y[:, 0])).batch(2), verbose=0)
    raise SystemExit("one loss for all rows")
except ValueError as error:
    assert "loss: expected one whose `call` gives the loss of each row or step" in str(error), error
print("equal")
"""


@pytest.mark.deep
def test_two_replicas_carry_states_and_keep_them_in_backups(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path / "backup")], capture_output=True, text=True, env=RUN, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "equal"


def example(*more):
    sizes = ("--units", 6, "--batches", 4, "--timeout", 60)
    command = [sys.executable, ROOT / "examples" / "distributed.py", *map(str, (*sizes, *more))]
    return subprocess.run(command, capture_output=True, text=True, env=RUN, timeout=300)


@pytest.mark.deep
def test_two_workers_one_of_which_is_killed_learn_what_one_process_learns():
    done = example("--workers", 2, "--kill")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"worker 1 ended with {-signal.SIGKILL}; all start again from the backup" in done.stdout
    *counts, largest = re.search(
        r"(\d+) steps, (\d+) restarts, (\d+) steps trained again, largest difference (.*)", done.stdout
    ).groups()
    assert counts == ["8", "1", "1"]  # it dies at step 7, the backup is of step 6
    assert float(largest) < 1e-5


WORKERS = """
import json, sys
import numpy as np, tensorflow as tf, keras, keras_seq
import replicas
from keras_seq.models import LanguageModel, Vocabulary
from keras_seq.training import fit_distributed, worker_strategy

folder, *cases = sys.argv[1:]
strategy = worker_strategy(60)
number = strategy.cluster_resolver.task_id or 0
alone = strategy.num_replicas_in_sync == 1
said = {}

def refused(*args, **kwargs):
    try:
        fit_distributed(*args, verbose=0, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

keras.utils.set_random_seed(1)
text = "to be or not to be, that is the question." * 2
with strategy.scope():
    memory = keras_seq.GRU(6, return_sequences=True)
    model = LanguageModel(Vocabulary.of([text], split="characters"), memory, embedding_size=5)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
said["losses"] = fit_distributed(model, model.streams(text[:80], 4, 10), 2, verbose=0).history["loss"]
if alone:
    print(json.dumps(said))
    sys.exit()

other = tf.data.Dataset.from_tensors((np.full((4, 3), 4 + number, "int32"), np.full((4, 3), 4, "int32")))
said["other data"] = refused(model, other)
said["apart"] = [replicas.differences(case, strategy) for case in cases]
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse", jit_compile=False)
x, y = replicas.X[:, 0], replicas.Y[:, 0]
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)

class Stops(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.seen = [*getattr(self, "seen", []), batch]
        if number == 1 and len(self.seen) == 3:
            self.model.stop_training = True

# one worker decides alone, by its clock say; both have the same files to write
stops = Stops()
writes = [keras.callbacks.CSVLogger(folder + "/log.csv"), keras.callbacks.ModelCheckpoint(folder + "/{epoch}.keras")]
said["lengths"] = len(fit_distributed(model, data, 5, verbose=0, callbacks=[stops, *writes]).history["loss"]), stops.seen
late = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", number == 1))
said["epochs"] = len(fit_distributed(model, data, 5, verbose=0, callbacks=[late]).history["loss"])

def some():
    for _ in range(2 + number):
        yield x[:4], y[:4]

spec = tuple(tf.TensorSpec(a[:4].shape, a.dtype) for a in (x, y))
said["as many"] = refused(model, tf.data.Dataset.from_generator(some, output_signature=spec))

class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if number == 1 and batch == 1:
            raise RuntimeError("no space left")

said["failed"] = refused(model, data, callbacks=[Fails()])
print(json.dumps(said), flush=True)
sys.stdin.read()  # lives on until the other has heard of it
"""


@pytest.mark.deep
def test_two_workers_learn_what_one_learns_and_end_together(tmp_path):
    _, config = cluster(2)
    path = {**RUN, "PYTHONPATH": os.pathsep.join([str(pathlib.Path(__file__).parent), RUN["PYTHONPATH"]])}
    command = [sys.executable, "-c", WORKERS, str(tmp_path), "masks", "rows and masks", "infinite gradients"]

    def start(index):
        environment = path if index is None else {**path, "TF_CONFIG": config(index)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    running = [start(0), start(1), start(None)]
    hang = threading.Timer(400, lambda: [process.kill() for process in running])
    hang.start()
    try:
        said = [process.stdout.readline() for process in running]
        told = [process.communicate(timeout=60)[1] for process in running]
    finally:
        hang.cancel()
        for process in running:
            process.kill()
    assert all(said), told
    first, second, one = map(json.loads, said)
    np.testing.assert_allclose(first["losses"], one["losses"], atol=1e-5)
    assert np.max(first["apart"]) < 1e-5
    assert first["lengths"] == second["lengths"] == [2, [0, 1, 0]]
    assert first["epochs"] == 1
    for worker in (first, second):
        assert "CommonError: data: expected the same batches in each worker" in worker["other data"]
        assert "CommonError: data: expected as many batches in each worker" in worker["as many"]
        assert {**worker, "failed": None} == {**first, "failed": None}
    assert second["failed"] == "RuntimeError: no space left"
    assert "worker 1 ended with RuntimeError: no space left" in first["failed"]
    assert (tmp_path / "log.csv").read_text().count("\n") == 3
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == ["1.keras", "2.keras"]


JAX = """
import sys
import jax
if len(sys.argv) > 1:
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import keras, keras_seq
import numpy as np

rng = np.random.default_rng(0)
x, y = (rng.normal(size=(16, 7, n)).astype("float32") for n in (3, 2))

def losses(distribution):
    keras.utils.set_random_seed(1)
    keras.distribution.set_distribution(distribution)
    parts = [keras_seq.LSTM(5, return_sequences=True), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((7, 3)), *parts])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    found = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert distribution is None or len(model.weights[0].value.sharding.device_set) == len(jax.devices())
    return found

if len(sys.argv) == 1:
    assert len(jax.devices()) == 4
    print(losses(None))
print(losses(keras.distribution.DataParallel(devices=keras.distribution.list_devices(), auto_shard_dataset=False)))
"""


@pytest.mark.deep
def test_on_jax_devices_and_processes_learn_what_one_device_learns():
    pytest.importorskip("jax")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**RUN, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    devices = {**environment, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", JAX, *more], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for more, env in (([], devices), ([address, "0"], environment), ([address, "1"], environment))
    ]
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0, 0], said
    one, *others = [
        json.loads(line) for out, _ in said for line in out.splitlines() if line.startswith("[") and "," in line
    ]
    assert len(others) == 3
    for other in others:
        np.testing.assert_allclose(other, one, atol=1e-5)

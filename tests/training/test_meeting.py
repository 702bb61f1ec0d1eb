"""How workers find one another: who does not come is named, and none waits for ever."""

import importlib
import json
import re
import signal
import socket
import subprocess
import sys
import types

import keras
import pytest
import tensorflow as tf
from clusters import ROOT, RUN, cluster

from keras_seq.training import fit_distributed, watch, worker_strategy


def test_an_absent_worker_is_named(monkeypatch):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensors((tf.zeros((4, 3)), tf.zeros((4, 2))))
    with cluster(3) as (addresses, config):
        monkeypatch.setenv("TF_CONFIG", config(0))
        with socket.create_server(watch.host_and_port(addresses[1])):
            wanted = f"TF_CONFIG: expected all workers within 0.3 seconds, did not find worker 2 at {addresses[2]}"
            with pytest.raises(TimeoutError, match=f"^{wanted}$"):
                worker_strategy(timeout=0.3)
        wanted = r"model: expected one made in the scope of worker_strategy\(\), as TF_CONFIG names 3"
        with pytest.raises(ValueError, match=wanted):
            fit_distributed(model, data)
        monkeypatch.setenv("TF_CONFIG", config(3))
        with pytest.raises(ValueError, match=r"TF_CONFIG: expected a task that is one of worker 0, .*, got worker 3"):
            worker_strategy(timeout=0.3)


def of(*addresses, index=0):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "expected a JSON object, got ''"),
        ("{", "expected a JSON object, got '{'"),
        ("[]", "expected a JSON object, got '[]'"),
        (of("one", "two:1"), "expected host:port as the address of worker 0, got 'one'"),
        (of("one:1", ":2"), "expected host:port as the address of worker 1, got ':2'"),
        (of("one:x", "two:1"), "expected host:port as the address of worker 0, got 'one:x'"),
        (of("one:70000", "two:1"), "expected host:port as the address of worker 0, got 'one:70000'"),
        (of("one:1", "one:1"), "expected an address for each worker, got worker 0 at one:1, worker 1 at one:1"),
    ],
)
def test_what_tf_config_cannot_mean_is_refused(given, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ValueError, match=re.escape(f"TF_CONFIG: {message}")):
        worker_strategy(timeout=0.1)


def test_a_port_that_another_program_has_is_named(monkeypatch):
    with cluster(2) as (addresses, config):
        monkeypatch.setenv("TF_CONFIG", config(0))
        port = watch.host_and_port(addresses[0])[1]
        wanted = f"TF_CONFIG: expected port {port} to be free for this worker, got Address already in use"
        with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match=wanted):
            worker_strategy(timeout=0.1)


def test_a_process_that_waits_for_a_dead_worker_is_killed_with_its_name():
    with (
        cluster(2) as (addresses, _),
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
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    server.accept()  # when the other has found this one
sys.exit(3)
"""


@pytest.mark.deep
def test_a_worker_that_dies_before_tensorflow_has_started_is_named_and_the_others_end():
    waits = "from keras_seq.training import worker_strategy; worker_strategy(4)"
    with cluster(2) as (addresses, config):
        ports, environment = [address.split(":")[1] for address in addresses], {**RUN, "TF_CONFIG": config(0)}
        meets = subprocess.Popen([sys.executable, "-c", MEETS_AND_ENDS, ports[1], ports[0]])
        waiting = subprocess.Popen([sys.executable, "-c", waits], env=environment, stderr=subprocess.PIPE, text=True)
        try:
            said = waiting.communicate(timeout=120)[1]
        finally:
            meets.kill()
            waiting.kill()
    assert waiting.returncode == -signal.SIGKILL
    assert f"within 4 seconds of having met, did not find worker 1 at {addresses[1]}" in said


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("distributed")


@pytest.mark.parametrize(
    ("options", "of_workers", "message"),
    [
        ("--workers 17", False, "--workers: expected 1 to 16, the rows of a batch, got 17"),
        ("--epochs 0", False, "--epochs: expected a positive integer, got 0"),
        ("--timeout nan", False, "--timeout: expected positive seconds, got nan"),
        ("--costs --kill", False, "--kill: expected none together with --costs"),
        ("--costs --workers 3", False, "--workers: expected none together with --costs"),
        ("--workers 2", True, "--workers: expected none where TF_CONFIG says who the workers are"),
        ("--output /dev/null", False, "--output: expected a folder, got /dev/null: File exists"),
    ],
)
def test_the_example_refuses_options(options, of_workers, message, example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["distributed.py", *options.split()])
    if of_workers:
        monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(SystemExit):
        example.arguments()
    assert message in capsys.readouterr().err


def test_the_supervisor_ends_its_workers_when_it_is_ended(example, monkeypatch, tmp_path):
    started = []

    class Started(subprocess.Popen):
        def __init__(self, given, env):
            super().__init__([sys.executable, "-c", "import time; time.sleep(600)"])
            started.append(self)

    def ended(seconds):
        raise SystemExit

    monkeypatch.setattr(example, "subprocess", types.SimpleNamespace(Popen=Started))
    monkeypatch.setattr(example, "command", lambda *_: None)
    monkeypatch.setattr(example, "time", types.SimpleNamespace(sleep=ended))
    with pytest.raises(SystemExit):
        example.run(None, 2, tmp_path)
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 2


@pytest.mark.deep
def test_the_supervisor_ends_those_that_wait_and_starts_all_again(example, monkeypatch, capfd, tmp_path):
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

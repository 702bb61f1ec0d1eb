"""Processes of tests that know one another over loopback."""

import contextlib
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent
PATH = os.pathsep.join([str(ROOT), str(HERE), *sys.path])
RUN = {**os.environ, "PYTHONPATH": PATH, "TF_CPP_MIN_LOG_LEVEL": "3"}
held_ports = runpy.run_path(str(ROOT / "examples" / "distributed.py"))["held_ports"]


@contextlib.contextmanager
def cluster(count):
    """Addresses, and a function that gives TF_CONFIG for one of them; nobody else gets their ports while it lasts."""
    with held_ports(count) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]

        def config(index):
            return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})

        yield addresses, config


def said_by_two_and_one(command, seconds=400):
    """The first lines that two workers and a process alone wrote, what they wrote of errors, and how SIGTERM ended them.

    Each may live on after its line, so that the other worker hears of what went wrong here.
    """
    with cluster(2) as (_, config), contextlib.ExitStack() as stack:
        worlds, running, told = ({"TF_CONFIG": config(0)}, {"TF_CONFIG": config(1)}, {}), [], []
        for world in worlds:
            told.append(stack.enter_context(tempfile.TemporaryFile("w+")))  # a pipe that nobody reads would fill up
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": told[-1], "text": True}
            running.append(subprocess.Popen(command, env={**RUN, **world}, **pipes))
            stack.callback(running[-1].kill)
        hang = threading.Timer(seconds, lambda: [process.kill() for process in running])
        stack.callback(hang.cancel)
        hang.start()
        said = [process.stdout.readline() for process in running]
        for process in running:
            process.terminate()
        codes = [process.wait(timeout=60) for process in running]
        return said, [file.seek(0) or file.read()[-3000:] for file in told], codes

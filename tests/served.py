"""A server of exported models in a process of its own, and what is asked of it."""

import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


class Server:
    """A server of the small models in a process of its own."""

    def __init__(self, folder, *options):
        pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
        pytest.importorskip("uvicorn", reason="the server needs pip install keras_seq[serve]")
        paths = [str(p) for p in sorted(folder.iterdir())]
        command = [sys.executable, str(EXAMPLES / "serve.py"), "--port", "0", *options, *paths]
        log, self._log = tempfile.mkstemp()
        self.process = subprocess.Popen(command, stderr=log)
        os.close(log)
        until = time.monotonic() + 600
        while not (listens := re.search(r"running on http://127.0.0.1:(\d+)", self.log())):
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.1)
        self.port = int(listens[1])

    def log(self):
        """What the server has written so far."""
        return pathlib.Path(self._log).read_text()

    def close(self):
        self.process.kill()
        self.process.wait()
        os.remove(self._log)

    def answers(self):
        """Whether it takes a request."""
        try:
            return self.ask("GET", "/models")[0] == 200
        except ConnectionError:
            return False

    def ask(self, method, path, body=None, headers=None):
        """`(status, body)`; a body that is neither bytes nor None goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        return answer.status, json.loads(found) if found.startswith(b"{") else found

    def begin(self, path, body):
        """A request of which the last byte is not sent yet, as functions: one sends it, one gives `(status, body)`."""
        connection, data = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240), json.dumps(body).encode()
        connection.putrequest("POST", path)
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(len(data)))
        connection.endheaders(data[:-1])

        def answer():
            found = connection.getresponse()
            return found.status, json.loads(found.read())

        return lambda: connection.send(data[-1:]), answer

    def batches(self, kind):
        """How many batches of this kind were run, by their size."""
        found = self.ask("GET", "/models")[1]["batches"][kind]
        return {int(size): count for size, count in found.items()}

    def post(self, path, body):
        status, found = self.ask("POST", path, body)
        assert status in (200, 201), found
        return found

    def write(self, **body):
        """The events of a text."""
        events = self.post("/write", body).decode().split("\n\n")
        assert events.pop() == ""
        return [json.loads(event.removeprefix("data: ")) for event in events]

"""A server of exported models in a process of its own, and what is asked of it."""

import http.client
import json
import pathlib
import socket
import subprocess
import sys
import time

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


class Server:
    """A server of the small models in a process of its own."""

    def __init__(self, folder, *options):
        pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
        pytest.importorskip("uvicorn", reason="the server needs pip install keras_seq[serve]")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        paths = [str(p) for p in sorted(folder.iterdir())]
        command = [sys.executable, str(EXAMPLES / "serve.py"), "--port", str(self.port), *options, *paths]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if self.answers():
                return
            assert self.process.poll() is None, "the server did not start"
            time.sleep(0.1)
        raise TimeoutError("the server did not start within a minute")

    def answers(self):
        """Whether it takes a request."""
        try:
            return self.ask("GET", "/models")[0] == 200
        except ConnectionError:
            return False

    def ask(self, method, path, body=None, headers=None):
        """`(status, body)`; a body that is neither bytes nor None goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        return answer.status, json.loads(found) if found.startswith(b"{") else found

    def begin(self, path, body):
        """A request of which the last byte is not sent yet; called, what comes sends it and gives `(status, body)`."""
        connection, data = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), json.dumps(body).encode()
        connection.putrequest("POST", path)
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(len(data)))
        connection.endheaders(data[:-1])

        def end():
            connection.send(data[-1:])
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        return end

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

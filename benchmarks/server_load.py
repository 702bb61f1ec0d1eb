"""What `examples/serve.py` holds on loopback, beside calling the same SavedModel directly.

    pip install keras_seq[serve]
    python benchmarks/server_load.py                  # a table, in about two minutes

An LSTM reads sequences of 50 steps and answers each with one number. Clients that each send one request after the other,
over a connection of their own, ask for answers; then for single steps of a stream each; then for a text each, from a
language model of characters; then for ten words about a picture of 48 by 48 pixels each, and where attention looked. The
clients run on the same cores as the server. p50 and p99 are the times that half and 99 % of the requests took at most, as
the clients see them; of texts, that of a piece, over the whole text.
"""

import argparse
import asyncio
import gc
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from timing import table

import keras_seq
from keras_seq.models import ImageCaptioner, LanguageModel, Vocabulary

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
from serving.export import export

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
STEPS, FEATURES = 50, 8
KINDS = ("sequences", "steps of streams", "pieces of texts", "pictures")


def write_models(folder, units):
    """A predictor, a stream, a language model and a captioner with weights as drawn: the speed does not depend on these."""
    keras.utils.set_random_seed(1)
    inputs, read = keras.Input((None, FEATURES)), keras_seq.LSTM(units, return_sequences=True)
    steps = keras.Model(inputs, keras.layers.Dense(1)(read(inputs)))
    export(keras.Model(inputs, keras_seq.LastStep()(steps.output)), folder / "predict")
    keras_seq.streaming(steps).export(folder / "stream")
    vocabulary = Vocabulary([chr(c) for c in range(32, 96)], split="characters")
    export(LanguageModel(vocabulary, keras_seq.LSTM(units, return_sequences=True), 32), folder / "write")
    cell, words = keras_seq.LSTMCell(units), Vocabulary([f"w{i}" for i in range(20)])
    captioner = ImageCaptioner(words, (48, 48, 3), cell, features_as="attention", embedding_size=16, max_length=10)
    captioner.readout.bias.assign(-99.0 * (np.arange(len(words)) == words.end))
    export(captioner, folder / "caption")


class Client:
    """One connection, one request after the other."""

    async def connect(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def ask(self, path, body):
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
        )
        self.writer.write(head.encode() + b"\r\n\r\n" + data)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 20"):
            raise RuntimeError(f"answer: expected a success, got {head[:80]!r}")
        if b"transfer-encoding: chunked" in head:
            return head
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return json.loads(await self.reader.readexactly(length))

    async def write(self, length):
        """The seconds that each piece of a text took, all alike."""
        start, pieces = time.perf_counter(), 0
        await self.ask("/write", {"prompt": "", "length": length, "seed": 1})
        while size := int(await self.reader.readline(), 16):
            pieces += (await self.reader.readexactly(size + 2)).count(b'"piece"')
        await self.reader.readline()
        return [(time.perf_counter() - start) / pieces] * pieces


async def load(port, clients, seconds):
    """Rows of the table, `(what, clients, a second, p50, p99)`, for so many clients at once."""
    sequence = np.random.default_rng(1).normal(size=(STEPS, FEATURES)).round(3).tolist()
    picture = np.random.default_rng(1).integers(0, 256, (48, 48, 3)).tolist()
    asking = [await Client().connect(port) for _ in range(clients)]
    streams = [(await c.ask("/streams", {}))["stream"] for c in asking]

    async def predict(client, stream):
        return [await _timed(client.ask("/predict", {"sequence": sequence}))]

    async def step(client, stream):
        return [await _timed(client.ask(f"/streams/{stream}", {"steps": sequence[:1]}))]

    async def write(client, stream):
        return await client.write(100)

    async def describe(client, stream):
        return [await _timed(client.ask("/caption", {"picture": picture}))]

    rows = []
    for what, once in zip(KINDS, (predict, step, write, describe), strict=True):

        async def repeat(client, stream, until, once=once):
            taken = []
            while time.perf_counter() < until:
                taken += await once(client, stream)
            return taken

        both = list(zip(asking, streams, strict=True))
        await asyncio.gather(*(once(*one) for one in both))
        start = time.perf_counter()
        taken = await asyncio.gather(*(repeat(*one, start + seconds) for one in both))
        spent = time.perf_counter() - start
        rows.append(_row(what, clients, np.concatenate(taken), spent))
    return rows


async def _timed(asked):
    start = time.perf_counter()
    await asked
    return time.perf_counter() - start


def _row(what, clients, taken, spent, each=1):
    p50, p99 = 1000 * np.percentile(taken, [50, 99])
    return [what, clients, f"{each * len(taken) / spent:,.0f}", f"{p50:.1f}", f"{p99:.1f}"]


def direct(folder, rows, seconds):
    """The same SavedModel without a server, so many rows in a call."""
    loaded = tf.saved_model.load(folder / "predict")
    call = loaded.signatures["predict"]
    x, lengths = tf.random.normal((rows, STEPS, FEATURES)), tf.fill((rows,), STEPS)
    for _ in range(5):
        call(sequences=x, lengths=lengths)
    taken, start = [], time.perf_counter()
    while time.perf_counter() < start + seconds:
        one = time.perf_counter()
        call(sequences=x, lengths=lengths)["output_0"].numpy()
        taken.append(time.perf_counter() - one)
    return _row(f"sequences, called directly, {rows} in a call", "-", taken, time.perf_counter() - start, rows)


def start_server(folder):
    """`(process, port)` of a server of the models in this folder, when it answers."""
    paths = [str(p) for p in sorted(folder.iterdir())]
    command = [sys.executable, str(EXAMPLES / "serve.py"), "--port", "0", *paths]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log)
        for _ in range(3000):
            said = pathlib.Path(log.name).read_text()
            if listens := re.search(r"running on http://127.0.0.1:(\d+)", said):
                return process, int(listens[1])
            if process.poll() is not None:
                break
            time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"server: expected one within five minutes, got none:\n{said}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_models(folder, options.units)
        rows = [direct(folder, n, options.seconds) for n in (1, 32)]
        process, port = start_server(folder)
        gc.collect()
        gc.freeze()  # the clients, too, answer at once
        try:
            loaded = [row for n in options.clients for row in asyncio.run(load(port, n, options.seconds))]
        finally:
            process.terminate()
            process.wait(30)
    rows += sorted(loaded, key=lambda row: KINDS.index(row[0]))
    print(table(["what", "clients", "a second", "p50, ms", "p99, ms"], rows))
    return rows


if __name__ == "__main__":
    main()

"""The server: batches, sessions, what it answers beside the models themselves, what it refuses, and how it ends."""

import asyncio
import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from code_blocks import code_blocks

import keras_seq
from keras_seq.models import LanguageModel, Seq2Seq, Vocabulary

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from serving import export, saved
from serving.batching import Batcher
from serving.bodies import LimitedBodies
from serving.sessions import Sessions, TooManySessionsError, UnknownSessionError

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

# -- batches -----------------------------------------------------------------------------------------------------------


def batched(function, items, groups=None, **options):
    """What a `Batcher` answers to items that arrive together, exceptions too, and the sizes of its batches."""

    async def run():
        batcher = Batcher(function, **options)
        groups_ = groups or [None] * len(items)
        asked = (batcher(item, group) for item, group in zip(items, groups_, strict=True))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await batcher.close()
        return answers, batcher.sizes

    return asyncio.run(run())


def doubled(items):
    return [2 * item for item in items]


def test_calls_that_arrive_together_are_run_together():
    answers, sizes = batched(doubled, list(range(10)), limit=4)
    assert answers == [2 * i for i in range(10)]
    assert sizes == {4: 2, 2: 1}


def test_only_items_of_one_group_share_a_batch():
    answers, sizes = batched(lambda items: [len(set(items))] * len(items), [3, 5, 3, 5, 5], [3, 5, 3, 5, 5])
    assert answers == [1] * 5
    assert sizes == {2: 1, 3: 1}


def test_an_item_that_cannot_be_run_fails_alone():
    answers, _ = batched(lambda items: [1 // item for item in items], [1, 0, 1])
    assert answers[0] == answers[2] == 1
    assert isinstance(answers[1], ZeroDivisionError)


def test_what_arrives_while_a_batch_runs_is_the_next_and_who_has_gone_is_left_out():
    seen = []

    async def run():
        running = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(items):
            seen.append(list(items))
            loop.call_soon_threadsafe(running.set)
            time.sleep(0.05)
            return items

        batcher = Batcher(slow, window=0.0)
        first = asyncio.create_task(batcher(0))
        await running.wait()
        others = [asyncio.create_task(batcher(i)) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        others[1].cancel()
        await batcher.close()
        return await first, await others[0], await others[2]

    assert asyncio.run(run()) == (0, 1, 3)
    assert seen == [[0], [1, 3]]


# -- sessions ----------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_sessions_are_limited_time_out_and_make_room():
    clock = Clock()
    sessions = Sessions(limit=2, seconds=10, clock=clock)
    first, second = sessions.open(1), sessions.open(2)
    with pytest.raises(TooManySessionsError, match="at most 2"):
        sessions.open(3)

    async def used(name):
        async with sessions.use(name) as session:
            return session.state

    clock.now = 6.0
    assert asyncio.run(used(first)) == 1
    clock.now = 12.0  # the second was not used for 12 seconds, the first for 6
    assert len(sessions) == 1
    third = sessions.open(3)
    assert asyncio.run(used(first)) == 1
    with pytest.raises(UnknownSessionError, match="last 10 s"):
        asyncio.run(used(second))
    sessions.close(third)
    with pytest.raises(UnknownSessionError):
        sessions.close(third)


def test_a_session_in_use_does_not_time_out_and_is_used_by_one_after_the_other():
    clock = Clock()
    sessions = Sessions(limit=2, seconds=10, clock=clock)
    name, order = sessions.open([]), []

    async def use(i):
        async with sessions.use(name) as session:
            order.append(("in", i))
            clock.now += 20
            assert len(sessions) == 1
            await asyncio.sleep(0.01)
            session.state = [*session.state, i]
            order.append(("out", i))

    async def run():
        await asyncio.gather(*(use(i) for i in range(3)))
        async with sessions.use(name) as session:
            return session.state

    assert asyncio.run(run()) == [0, 1, 2]
    assert order == [(way, i) for i in range(3) for way in ("in", "out")]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"seconds": 0}])
def test_sessions_refuse(wrong):
    with pytest.raises(ValueError, match="expected positive"):
        Sessions(**{"limit": 1, "seconds": 1, **wrong})


# -- bodies ------------------------------------------------------------------------------------------------------------


def status_of(pieces, headers=(), size=10, seconds=5.0):
    """The status and the body that the application sees, of a request whose body comes in these pieces."""
    sent, seen, waiting = [], [], list(pieces)

    async def app(scope, receive, send):
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200})

    async def receive():
        if not waiting:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or b"..." in pieces}

    async def send(message):
        sent.append(message)

    asyncio.run(LimitedBodies(app, size, seconds)({"type": "http", "headers": headers}, receive, send))
    return sent[0]["status"], seen


def test_bodies_are_limited_in_size_and_in_time():
    assert status_of([b"12345", b"67890"]) == (200, [b"1234567890"])
    assert status_of([b"12345", b"678901"]) == (413, [])
    assert status_of([b""], [(b"content-length", b"11")]) == (413, [])
    assert status_of([b"..."], seconds=0.05) == (408, [])


# -- exported models ---------------------------------------------------------------------------------------------------


def sequential(*layers):
    return keras.Sequential([keras.Input((None, 2)), *layers])


MODELS = {
    "both directions": lambda: sequential(keras_seq.Bidirectional(keras_seq.GRU(4))),
    "each step": lambda: sequential(keras_seq.LSTM(4, return_sequences=True), keras.layers.Dense(1)),
    "Keras": lambda: sequential(keras.layers.LSTM(4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_sequences_of_many_lengths_are_answered_in_one_batch_as_alone(name, tmp_path):
    model = MODELS[name]()
    export.export(model, tmp_path)
    served = saved.load(tmp_path)
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 2)).astype("float32") for n in (3, 9, 5)]
    assert len({served.group(s) for s in sequences}) == 1
    for x, y in zip(sequences, served.run(sequences), strict=True):
        np.testing.assert_allclose(y, model(x[None])[0], atol=1e-6)


def test_a_saved_model_of_keras_is_asked_with_one_length_at_a_time(tmp_path):
    model = sequential(keras.layers.Conv1D(3, 3, padding="same"), keras_seq.MaskedMean())
    model.export(tmp_path, verbose=False)
    served = saved.load(tmp_path)
    x = np.random.default_rng(0).normal(size=(2, 5, 2)).astype("float32")
    assert served.group(x[0]) != served.group(x[0][:3])
    np.testing.assert_allclose(served.run(list(x)), model(x), atol=1e-6)


def test_a_model_that_sees_padding_is_refused(tmp_path):
    model = sequential(keras.layers.Conv1D(3, 3, padding="same"), keras_seq.MaskedMean())
    with pytest.raises(ValueError, match="do not depend on padding"):
        export.export(model, tmp_path)


def test_paths_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match="path: expected a SavedModel"):
        saved.load(tmp_path)


# -- the server --------------------------------------------------------------------------------------------------------


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
            try:
                self.ask("GET", "/models")
                return
            except ConnectionError:
                assert self.process.poll() is None, "the server did not start"
                time.sleep(0.1)
        raise TimeoutError("the server did not start within a minute")

    def ask(self, method, path, body=None, headers=None):
        """`(status, body)`; a body that is neither bytes nor None goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        return answer.status, json.loads(found) if found.startswith(b"{") else found

    def post(self, path, body):
        status, found = self.ask("POST", path, body)
        assert status in (200, 201), found
        return found

    def write(self, **body):
        """The events of a text."""
        events = self.post("/write", body).decode().split("\n\n")
        assert events.pop() == ""
        return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`(folder, the models in it)`, with weights as drawn; one of them as a `.keras` file."""
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp("models")
    steps = sequential(keras_seq.LSTM(4, return_sequences=True), keras.layers.Dense(1))
    keras_seq.streaming(steps).export(folder / "stream")
    predict = sequential(keras_seq.Bidirectional(keras_seq.GRU(4)), keras.layers.Dense(2))
    predict.save(folder / "predict.keras")
    memory = keras_seq.GRU(8, return_sequences=True)
    write = LanguageModel(Vocabulary(list("abcdefg "), "characters"), memory, 4, embeddings_initializer="orthogonal")
    write.readout.bias.assign(-5.0 * (np.arange(len(write.vocabulary)) == write.vocabulary.end))
    export.export(write, folder / "write")
    read = Seq2Seq(Vocabulary(list("abc"), "characters"), Vocabulary(list("ABC"), "characters"), max_length=6)
    read.readout.bias.assign(-99.0 * (np.arange(len(read.target)) == read.target.unknown))
    export.export(read, folder / "read")
    return folder, {"stream": steps, "predict": predict, "write": write, "read": read}


@pytest.fixture(scope="module")
def server(models):
    found = Server(models[0], "--sessions", "40", "--body", "100000", "--steps", "50", "--window", "0.05")
    yield found
    found.process.kill()
    found.process.wait()


def together(function, items):
    with concurrent.futures.ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))


def test_sequences_asked_for_together_are_answered_as_the_model_does(server, models):
    rng = np.random.default_rng(1)
    sequences = [rng.normal(size=(1 + i % 9, 2)).tolist() for i in range(24)]
    answers = together(lambda s: server.post("/predict", {"sequence": s})["output"], sequences)
    for sequence, answer in zip(sequences, answers, strict=True):
        np.testing.assert_allclose(answer, models[1]["predict"](np.array([sequence], "float32"))[0], atol=1e-6)
    sizes = server.ask("GET", "/models")[1]["batches"]["predict"]
    assert sum(int(size) * count for size, count in sizes.items()) == 24
    assert max(map(int, sizes)) > 1


def test_streams_go_on_where_they_were_side_by_side(server, models):
    x = np.random.default_rng(2).normal(size=(8, 12, 2)).astype("float32")
    expected = models[1]["stream"](x).numpy()

    def run(row):
        stream, found = server.post("/streams", {})["stream"], []
        for begin, end in ((0, 1), (1, 5), (5, 12)):
            found += server.post(f"/streams/{stream}", {"steps": row[begin:end].tolist()})["outputs"]
        assert server.ask("POST", f"/streams/{stream}", {"steps": [[1, 2], [3]]})[0] == 422
        assert server.ask("DELETE", f"/streams/{stream}")[0] == 204
        assert server.ask("POST", f"/streams/{stream}", {"steps": [[1, 2]]})[0] == 404
        return found

    np.testing.assert_allclose(together(run, list(x)), expected, atol=1e-5)


def test_texts_are_written_as_the_model_writes_them(server, models):
    prompts = ["", "a", "bad cab", "gag"]
    expected = models[1]["write"].generate(prompts, decoder="greedy", max_length=15)
    events = together(lambda p: server.write(prompt=p, length=15 - len(p), temperature=0), prompts)
    for prompt, said, text in zip(prompts, events, expected, strict=True):
        assert prompt + "".join(event["piece"] for event in said[:-1]) == text
        assert len(text) == 15
        assert said[-1] == {"end": "length"}
    drawn = [server.write(prompt="a", length=30, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert server.write(length=2000, temperature=100, seed=1)[-1] == {"end": "end"}


def test_what_was_read_is_what_the_model_read(server, models):
    model, texts = models[1]["read"], ["ab", "cabcab", "c"]
    for text, found in zip(texts, together(lambda t: server.post("/read", {"text": t}), texts), strict=True):
        assert found["text"] == model.generate([text])[0]
        assert found["source"][:-1] == list(text)
        count = len(found["text"])
        expected = model.alignment([text], [found["text"]])[0][:count]
        np.testing.assert_allclose(np.array(found["weights"])[:count], expected[:, : len(text) + 1], atol=1e-5)


def test_bodies_above_the_limit_are_refused(server):
    status, found = server.ask("POST", "/predict", b" " * 100_001)
    assert (status, found) == (413, {"error": "body: expected at most 100000 bytes, got more"})


REFUSED = [
    ("/predict", b"", 422, "body: Field required"),
    ("/predict", b"{", 422, "JSON decode error"),
    ("/predict", b"\xff", 400, "parsing the body"),
    ("/predict", b"[" * 50_000, 400, "parsing the body"),
    ("/predict", b"[]", 422, "body: Input should be"),
    ("/predict", {"sequences": [[1, 2]]}, 422, "Field required"),
    ("/predict", {"sequence": [[1, 2]], "more": 1}, 422, "body.more"),
    ("/predict", {"sequence": "1, 2"}, 422, "valid list"),
    ("/predict", {"sequence": []}, 422, "expected numbers of shape (t, 2), got []"),
    ("/predict", {"sequence": [1, 2]}, 422, "expected numbers of shape (t, 2), got [1, 2]"),
    ("/predict", {"sequence": [[1, 2, 3]]}, 422, "expected shape (t, 2), got (1, 3)"),
    ("/predict", {"sequence": [[1, 2], [3]]}, 422, "expected numbers of shape (t, 2)"),
    ("/predict", {"sequence": [["1", "2"]]}, 422, "expected numbers"),
    ("/predict", {"sequence": [[True, False]]}, 422, "expected numbers"),
    ("/predict", {"sequence": [[None, 1]]}, 422, "expected numbers"),
    ("/predict", b'{"sequence": [[1, NaN]]}', 422, "expected finite numbers"),
    ("/predict", b'{"sequence": [[1, Infinity]]}', 422, "expected finite numbers"),
    ("/predict", {"sequence": [[1, 1e39]]}, 422, "expected finite numbers that float32 holds"),
    ("/predict", {"sequence": [[1, 10**400]]}, 422, "expected numbers"),
    ("/predict", {"sequence": [[1, 2]] * 51}, 422, "expected 1 to 50 steps, got 51"),
    ("/streams/none", {"steps": [[1, 2]]}, 404, "stream: expected one that is open"),
    ("/write", {"prompt": "é"}, 422, "prompt: expected what the vocabulary has, got 'é'"),
    ("/write", {"prompt": "\ud800"}, 422, "Unicode"),
    ("/write", {"prompt": "a" * 1001}, 422, "prompt: expected at most 1000, got 1001"),
    ("/write", {"prompt": 1}, 422, "body.prompt"),
    ("/write", {"length": 2001}, 422, "length: expected at most 2000, got 2001"),
    ("/write", {"length": 0}, 422, "body.length"),
    ("/write", {"temperature": -1}, 422, "body.temperature"),
    ("/write", b'{"temperature": NaN}', 422, "body.temperature"),
    ("/write", {"seed": -1}, 422, "body.seed"),
    ("/read", {"text": ""}, 422, "body.text"),
    ("/read", {"text": "\ud800"}, 422, "Unicode"),
    ("/read", {"text": "a" * 1001}, 422, "text: expected at most 1000"),
    ("/nothing", {}, 404, "Not Found"),
    ("/models", {}, 405, "Method Not Allowed"),
]


@pytest.mark.parametrize(("path", "body", "status", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_wrong_is_refused_with_a_reason_and_the_server_goes_on(server, path, body, status, reason):
    found = server.ask("POST", path, body)
    assert found[0] == status
    assert reason in found[1]["error"]
    assert len(server.post("/predict", {"sequence": [[1, 2]]})["output"]) == 2


def test_what_is_no_http_is_refused_and_the_server_goes_on(server):
    for sent in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b" * 50_000, b"POST /write HTTP/1.1\r\nhost: x\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(sent)
    assert server.process.poll() is None
    assert server.ask("GET", "/models")[0] == 200


def test_streams_above_the_limit_are_refused_until_one_is_closed(models):
    server = Server(models[0], "--sessions", "2", "--timeout", "600")
    try:
        names = [server.post("/streams", {})["stream"] for _ in range(2)]
        status, found = server.ask("POST", "/streams", {})
        assert status == 429
        assert "at most 2 at a time" in found["error"]
        server.ask("DELETE", f"/streams/{names[0]}")
        assert server.ask("POST", "/streams", {})[0] == 201

        # and it ends when what it has begun is answered, each text to its end
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            texts = [pool.submit(server.write, prompt="a", length=400, seed=i, temperature=0.1) for i in range(6)]
            for _ in range(1000):
                if server.ask("GET", "/models")[1]["batches"]["write"].get("6", 0) > 5:
                    break
            assert not any(text.done() for text in texts)
            server.process.send_signal(signal.SIGTERM)
            ends = [text.result()[-1] for text in texts]
        assert ends == [{"end": "length"}] * 6
        assert server.process.wait(30) in (0, -signal.SIGTERM)
    finally:
        server.process.kill()


def test_without_fastapi_it_says_what_to_install():
    code = "import sys; sys.modules['uvicorn'] = None; sys.path.insert(0, sys.argv[1]); import serve; serve.main([])"
    found = subprocess.run([sys.executable, "-c", code, str(EXAMPLES)], capture_output=True, text=True, env=os.environ)
    assert "pip install keras_seq[serve]" in found.stderr


# -- the models of the page, the guide and the page --------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A server of the models that the page shows, hardly trained."""
    pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
    from serving import demo

    folder = tmp_path_factory.mktemp("shown")
    assert demo.train(folder, quick=True) == sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime)
    found = Server(folder)
    yield found
    found.process.kill()
    found.process.wait()


def test_the_commands_of_the_guide(shown):
    curl = shutil.which("curl")
    if curl is None or " --json " not in subprocess.run([curl, "--help", "all"], capture_output=True, text=True).stdout:
        pytest.skip("the commands of the guide need curl 7.82 or newer")
    said = []
    for block in code_blocks((EXAMPLES.parent / "docs" / "serving.md").read_text(), "sh"):
        block = block.replace("127.0.0.1:8000", f"127.0.0.1:{shown.port}").replace("curl -s", "curl --fail -s")
        found = subprocess.run(["sh", "-ec", block.replace("\ncurl", "\necho; curl")], capture_output=True, text=True)
        assert found.returncode == 0, found
        said.append(found.stdout)
    about, texts, stream = said
    assert json.loads(about.splitlines()[0])["models"].keys() == {"predict", "read", "stream", "write"}
    assert len(json.loads(about.splitlines()[-1])["output"]) == 3
    assert texts.count('"piece"') == 20
    assert "weights" in json.loads(texts.splitlines()[-1])
    assert [len(json.loads(line)["outputs"]) for line in stream.splitlines() if line] == [2, 1]


def test_the_page_shows_the_models_at_work(shown):
    api = pytest.importorskip("playwright.sync_api", reason="the page is tried where playwright is installed")
    with api.sync_playwright() as playwright:
        try:
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium that playwright can start: {error!s:.200}")
        page, said = browser.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{shown.port}/")

        page.fill("#write [name=length]", "25")
        page.click("#write button >> nth=0")
        page.wait_for_function("document.querySelector('#write .status').textContent.startsWith('25 characters')")
        assert page.inner_text("#write pre").startswith("ROMEO:")

        page.wait_for_function("document.querySelectorAll('#read td').length > 0")
        marked = page.eval_on_selector_all("#read tr", "rows => rows.map(r => r.querySelectorAll('td.most').length)")
        assert marked[0] == 0
        assert all(count >= 1 for count in marked[1:])

        drawn = "document.querySelector('canvas').toDataURL()"
        before = page.evaluate(drawn)
        page.click("#stream button >> nth=0")
        page.wait_for_function(f"before => {drawn} !== before", arg=before)
        assert said == []

        page.fill("#write [name=prompt]", "☃")
        page.click("#write button >> nth=0")
        page.wait_for_function("document.querySelector('#write .error').textContent.includes('vocabulary')")
        browser.close()

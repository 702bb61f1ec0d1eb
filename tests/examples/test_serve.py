"""The server: what it answers beside the models themselves, what it refuses, and how it ends."""

import concurrent.futures
import json
import signal
import socket
import sys
import time

import keras
import numpy as np
import pytest
from served import EXAMPLES, Server

import keras_seq
from keras_seq.models import LanguageModel, Seq2Seq, Vocabulary

sys.path.insert(0, str(EXAMPLES))
import serve
from serving import export


def sequential(*layers):
    return keras.Sequential([keras.Input((None, 2)), *layers])


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
    write.save(folder / "write.keras")
    read = Seq2Seq(Vocabulary(list("abc"), "characters"), Vocabulary(list("ABC"), "characters"), max_length=6)
    read.readout.bias.assign(-99.0 * (np.arange(len(read.target)) == read.target.unknown))
    export.export(read, folder / "read")
    return folder, {"stream": steps, "predict": predict, "write": write, "read": read}


@pytest.fixture(scope="module")
def server(models):
    found = Server(models[0], "--sessions", "40", "--body", "100000", "--steps", "1000", "--window", "0.05")
    yield found
    found.close()


def together(function, items):
    with concurrent.futures.ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))


def test_sequences_asked_for_together_are_answered_as_the_model_does(server, models):
    rng = np.random.default_rng(1)
    sequences = [rng.normal(size=(1 + i % 9, 2)).tolist() for i in range(24)]
    sends, answers = zip(*(server.begin("/predict", {"sequence": s}) for s in sequences), strict=True)
    for send in sends:
        send()
    for sequence, (status, found) in zip(sequences, [answer() for answer in answers], strict=True):
        assert status == 200
        answer = found["output"]
        np.testing.assert_allclose(answer, models[1]["predict"](np.array([sequence], "float32"))[0], atol=1e-6)
    sizes = server.batches("predict")
    assert sum(size * count for size, count in sizes.items()) == 24
    assert max(sizes) > 1


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


@pytest.mark.parametrize("size", [100_001, 1 << 26])
def test_bodies_above_the_limit_are_refused(server, size):
    status, found = server.ask("POST", "/predict", b" " * size)  # written whole before the answer is read
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
    ("/predict", {"sequence": [[1, 2]] * 1001}, 422, "expected 1 to 1000 steps, got 1001"),
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


def test_nothing_more_is_run_for_a_client_that_goes_away(server, models):
    x = np.random.default_rng(5).normal(size=(1000, 2)).astype("float32")  # in steps of 0.05 s, the window
    stream = server.post("/streams", {})["stream"]
    asked = {"write": ("/write", {"length": 2000}), "stream": (f"/streams/{stream}", {"steps": x.tolist()})}
    for kind, (path, body) in asked.items():
        before, data = server.batches(kind), json.dumps(body)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall((head + data).encode())
            while server.batches(kind) == before:
                pass
    # the stream is free, and stands where it was
    found = server.post(f"/streams/{stream}", {"steps": x[:1].tolist()})["outputs"]
    np.testing.assert_allclose(found, models[1]["stream"](x[None, :1])[0], atol=1e-6)
    counts = [server.batches("write")]
    while len(counts) < 2 or counts[-1] != counts[-2]:
        assert len(counts) < 20
        time.sleep(0.3)
        counts.append(server.batches("write"))


@pytest.fixture
def small(models):
    """A server of two streams at a time, for one test."""
    found = Server(models[0], "--sessions", "2", "--upload", "120", "--grace", "240")
    yield found
    found.close()


def test_streams_are_limited_and_at_its_end_the_server_answers_all_that_it_has_begun(small, models):
    names = [small.post("/streams", {})["stream"] for _ in range(2)]
    status, found = small.ask("POST", "/streams", {})
    assert status == 429
    assert "at most 2 at a time" in found["error"]
    small.ask("DELETE", f"/streams/{names[0]}")
    names[0] = small.post("/streams", {})["stream"]

    x = np.random.default_rng(4).normal(size=(2, 1000, 2)).astype("float32")
    last, sequence = [[1.0, 2.0]], x[0, :9].tolist()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        texts = [pool.submit(small.write, prompt="a", length=1000, seed=i, temperature=0.1) for i in range(4)]
        asked = [(f"/streams/{name}", {"steps": rows.tolist()}) for name, rows in zip(names, x, strict=True)]
        streams = [pool.submit(small.post, *one) for one in asked]
        begun = [small.begin("/predict", {"sequence": sequence}) for _ in range(3)]
        begun.append(small.begin(f"/streams/{names[0]}", {"steps": last}))
        while small.batches("write").get(4, 0) <= 5 or small.batches("stream").get(2, 0) <= 5:
            assert not any(answer.done() for answer in (*texts, *streams))
        small.process.send_signal(signal.SIGTERM)
        while small.answers():
            pass
        assert not any(answer.done() for answer in (*texts, *streams))
        for send, _ in begun:
            send()
        statuses, found = zip(*(answer() for _, answer in begun), strict=True)
        assert statuses == (200,) * 4
        assert [text.result()[-1] for text in texts] == [{"end": "length"}] * 4
    expected = models[1]["stream"](np.concatenate([x, [last] * 2], axis=1)).numpy()
    for rows, answer in zip(expected, streams, strict=True):
        np.testing.assert_allclose(answer.result()["outputs"], rows[:-1], atol=1e-5)
    np.testing.assert_allclose(found[-1]["outputs"], expected[0, -1:], atol=1e-5)
    for answer in found[:-1]:
        np.testing.assert_allclose(answer["output"], models[1]["predict"](x[:1, :9])[0], atol=1e-6)
    assert small.process.wait(240) == 0


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"window": -1.0}, {"steps": -1}, {"timeout": float("nan")}])
def test_limits_refuse(wrong):
    pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
    from serving.app import Limits

    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected a .*number"):
        Limits(**wrong)


def test_without_fastapi_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install keras_seq\[serve\]"):
        serve.main([])


WRONG = {
    "--train: expected some of waves, forecast, writer, dates, captions": ["--train", "nothing"],
    "batch: expected a positive number, got 0": ["--batch", "0"],
    "models: expected some, got none": ["--output", "nowhere"],
    f"{__file__}: path: expected a SavedModel's folder or a .keras file": [__file__],
}


@pytest.mark.parametrize("reason", WRONG)
def test_arguments_refuse(reason, capsys):
    pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
    with pytest.raises(SystemExit):
        serve.main(WRONG[reason])
    assert reason in capsys.readouterr().err


def test_two_models_of_a_kind_are_refused(models, capsys):
    pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
    with pytest.raises(SystemExit):
        serve.main([str(models[0] / "stream")] * 2)
    assert "models: expected one to stream, got two" in capsys.readouterr().err

"""What the server is made of, without HTTP: batches, sessions, bodies, exported models."""

import asyncio
import pathlib
import sys
import threading

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq.models import ImageCaptioner, Vocabulary

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from serving import export, saved
from serving.batching import Batcher
from serving.bodies import LimitedBodies
from serving.sessions import Sessions, TooManySessionsError, UnknownSessionError

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


@pytest.mark.parametrize("answers", [[], [1]])
def test_a_function_that_answers_too_few_fails_and_nobody_waits_for_ever(answers):
    found, _ = batched(lambda items: answers if len(items) > 1 else [], [1, 2, 3])
    assert [str(error) for error in found] == ["function: expected 1 answers, got 0"] * 3


def test_what_arrives_while_a_batch_runs_is_the_next_and_who_has_gone_is_left_out():
    seen = []

    async def run():
        running, arrived = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(items):
            seen.append(list(items))
            loop.call_soon_threadsafe(running.set)
            arrived.wait()
            return items

        batcher = Batcher(slow, window=0.0)
        first = asyncio.create_task(batcher(0))
        await running.wait()
        others = [asyncio.create_task(batcher(i)) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        others[1].cancel()
        arrived.set()
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


def test_who_waits_for_a_session_that_is_closed_meanwhile_is_told():
    sessions = Sessions(limit=2, seconds=10)
    name = sessions.open(0)

    async def use():
        async with sessions.use(name) as session:
            await asyncio.sleep(0)
            session.state += 1
            return session.state

    async def run():
        both = [asyncio.create_task(use()) for _ in range(2)]
        await asyncio.sleep(0)
        sessions.close(name)
        return await asyncio.gather(*both, return_exceptions=True)

    first, second = asyncio.run(run())
    assert first == 1
    assert isinstance(second, UnknownSessionError)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"seconds": 0}])
def test_sessions_refuse(wrong):
    with pytest.raises(ValueError, match="expected positive"):
        Sessions(**{"limit": 1, "seconds": 1, **wrong})


# -- bodies ------------------------------------------------------------------------------------------------------------


def status_of(pieces, headers=(), size=10, seconds=5.0):
    """The status and the body that the application sees, of a request whose body comes in these pieces."""
    sent, seen, endless = [], [], b"..." in pieces

    async def app(scope, receive, send):
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        if not pieces:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces) or endless}

    async def send(message):
        sent.append(message)

    asyncio.run(LimitedBodies(app, size, seconds)({"type": "http", "headers": headers}, receive, send))
    assert not sent[-1].get("more_body", False)
    return sent[0]["status"], seen


def test_bodies_are_limited_in_size_and_in_time():
    assert status_of([b"12345", b"67890"]) == (200, [b"1234567890"])
    assert status_of([b"12345", b"678901"]) == (413, [])
    assert status_of([b""], [(b"content-length", b"11")]) == (413, [])
    assert status_of([b"..."], seconds=0.05) == (408, [])


@pytest.mark.parametrize("headers", [(), [(b"content-length", b"30")]])
def test_the_rest_of_a_body_that_is_too_long_is_read_before_the_connection_is_closed(headers):
    pieces = [b"1234567890"] * 3
    assert status_of(pieces, headers, size=5) == (413, [])
    assert pieces == []


def test_a_client_that_waits_to_be_asked_for_a_body_that_is_too_long_is_not_asked():
    pieces = [b"1234567890"]
    assert status_of(pieces, [(b"content-length", b"10"), (b"expect", b"100-continue")], size=5) == (413, [])
    assert pieces == [b"1234567890"]


def test_a_body_without_end_is_left_after_a_while():
    assert status_of([b"..."], [(b"content-length", b"11")], seconds=0.05) == (413, [])


def test_the_application_hears_nothing_of_a_client_that_went_away_before_its_body_was_there():
    messages = [{"type": "http.request", "body": b"1", "more_body": True}, {"type": "http.disconnect"}]

    async def app(scope, receive, send):
        raise AssertionError("the application was called")

    async def receive():
        return messages.pop(0)

    asyncio.run(LimitedBodies(app, 10)({"type": "http", "headers": ()}, receive, app))
    assert messages == []


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


def test_steps_of_any_size_share_a_batch_with_those_of_their_own(tmp_path):
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras_seq.GRU(4)(keras.ops.mean(inputs, axis=2))).export(tmp_path, verbose=False)
    served = saved.load(tmp_path)
    rng = np.random.default_rng(0)
    narrow, wide = ([rng.normal(size=(5, n, 3)).astype("float32") for _ in range(2)] for n in (4, 6))
    assert served.group(narrow[0]) == served.group(narrow[1]) != served.group(wide[0])
    assert [y.shape for y in served.run(narrow) + served.run(wide)] == [(4,)] * 4


def test_the_state_of_a_stream_keeps_nothing_of_those_that_were_run_beside_it(tmp_path):
    keras_seq.streaming(sequential(keras_seq.LSTM(4, return_sequences=True))).export(tmp_path)
    served = saved.load(tmp_path)
    for output, state in served.run([(np.ones(2, "float32"), served.first)] * 8):
        assert all(x.base is None for x in (output, *state))


@pytest.mark.parametrize("features_as", ["attention", "each_step"])
def test_pictures_are_described_as_the_captioner_does(features_as, tmp_path):
    model = ImageCaptioner(
        Vocabulary(["red", "blue"]), (8, 6, 3), keras_seq.LSTMCell(4), features_as=features_as, max_length=4
    )
    model.readout.bias.assign(-99.0 * (np.arange(len(model.vocabulary)) == model.vocabulary.unknown))
    export.export(model, tmp_path)
    served = saved.load(tmp_path)
    assert served.about() == {"picture": [8, 6, 3], "attends": model.attends, "scenes": False}
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype="uint8")
    expected = model.generate(pictures)
    found = served.run(list(pictures))
    assert [one["text"] for one in found] == expected
    assert [one["words"] for one in found] == [text.split() for text in expected]
    assert any(expected)
    if not model.attends:
        assert all(one["weights"] is None for one in found)
        return
    for one, weights in zip(found, model.alignment(pictures, expected), strict=True):
        assert len(one["weights"]) == len(one["words"])
        np.testing.assert_allclose(one["weights"], weights[: len(one["words"])], atol=1e-5)


def test_tokens_of_a_model_that_hides_zeros_share_a_batch(tmp_path):
    embedding = keras.layers.Embedding(9, 4, mask_zero=True)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), embedding, keras_seq.GRU(3)])
    export.export(model, tmp_path)
    served = saved.load(tmp_path)
    tokens = [np.array(t, "int32") for t in ([1, 2], [8, 7, 6, 5], [3])]
    for x, y in zip(tokens, served.run(tokens), strict=True):
        np.testing.assert_allclose(y, model(x[None])[0], atol=1e-6)


def test_answers_of_another_length_are_whole(tmp_path):
    model = sequential(keras.layers.UpSampling1D(2), keras_seq.SimpleRNN(3, return_sequences=True))
    model.export(tmp_path, verbose=False)
    x = np.random.default_rng(0).normal(size=(2, 5, 2)).astype("float32")
    np.testing.assert_allclose(saved.load(tmp_path).run(list(x)), model(x), atol=1e-6)


def of_one_row():
    return keras.Sequential([keras.Input((None, 2), batch_size=1), keras_seq.GRU(3, stateful=True)])


REFUSED = {
    "do not depend on padding": lambda: sequential(keras.layers.Conv1D(3, 3, padding="same"), keras_seq.MaskedMean()),
    "one that gives 5 steps for 5, got 3; what `model.export": lambda: sequential(
        keras_seq.TDNN(3, delays=2, subsampling=2)
    ),
    "one of any number of rows, got one of 1": of_one_row,
    "one input and one output, got 2 and 1": lambda: keras.Model(
        inputs := [keras.Input((None, 2)), keras.Input((None, 2))], keras_seq.GRU(3)(keras.ops.add(*inputs))
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_models_whose_sequences_cannot_share_a_batch_are_refused(reason, tmp_path):
    with pytest.raises(ValueError, match=f"^model: expected .*{reason}"):
        export.export(REFUSED[reason](), tmp_path)


def test_saved_models_that_cannot_be_shared_are_refused(tmp_path):
    of_one_row().export(tmp_path / "whole", verbose=False)
    with pytest.raises(
        ValueError, match="model: expected one whose answer depends on its sequence alone, got one that"
    ):
        saved.load(tmp_path / "whole")
    keras_seq.streaming(sequential(keras_seq.GRU(3))).export(tmp_path / "step", batch_size=1)
    with pytest.raises(ValueError, match="model: expected one of any number of rows, got one of 1"):
        saved.load(tmp_path / "step")


def test_paths_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match="path: expected a SavedModel"):
        saved.load(tmp_path)

"""What the server answers over HTTP."""

import contextlib
import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from serving.batching import Batcher
from serving.bodies import LimitedBodies
from serving.sessions import Sessions, TooManySessionsError, UnknownSessionError

PAGE = pathlib.Path(__file__).with_name("page.html")
log = logging.getLogger("uvicorn.error")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server takes on."""

    batch: int = 32
    """requests run at once"""
    window: float = 0.002
    """seconds that the first of them waits for others"""
    body: int = 1 << 20
    """bytes of a request"""
    upload: float = 10.0
    """seconds in which they have to be there"""
    steps: int = 4096
    """steps of a sequence, or of a stream in one request"""
    text: int = 1000
    """characters of a prompt or of a text to read"""
    pieces: int = 2000
    """pieces written in one request"""
    sessions: int = 1000
    """streams that are open"""
    timeout: float = 600.0
    """seconds after which an unused stream is forgotten"""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, zero = getattr(self, field.name), field.name == "window"
            if not (0 < value < math.inf or (zero and value == 0)):
                raise ValueError(f"{field.name}: expected a {'' if zero else 'positive '}number, got {value!r}")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("expected Unicode, got half of a surrogate pair") from error
    return text


Unicode = Annotated[str, AfterValidator(_unicode)]


class Sequence(Strict):
    sequence: list[Any]


class Steps(Strict):
    steps: list[Any]


class Prompt(Strict):
    prompt: Unicode = ""
    length: Annotated[int, Field(ge=1)] = 200
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.7
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Picture(Strict):
    picture: list[Any]


class Text(Strict):
    text: Annotated[Unicode, Field(min_length=1)]


def array(name: str, given: list, features: tuple, dtype: Any, most: int, length: int | None = None) -> np.ndarray:
    """`(t, *features)` of nested lists.

    Raises:
        ValueError: another shape, something else than finite numbers, values that the type does not hold.
    """
    shape = f"({', '.join(str(n) for n in (length or 't', *features))}{',' * (not features)})"
    try:
        found = np.asarray(given)
    except ValueError:  # lists of several lengths
        found = np.asarray(None)
    if found.dtype.kind not in "iuf" or found.ndim != 1 + len(features):
        raise ValueError(f"{name}: expected numbers of shape {shape}, got {json.dumps(given)[:60]}")
    if any(n is not None and n != m for n, m in zip((length, *features), found.shape, strict=True)):
        raise ValueError(f"{name}: expected shape {shape}, got {found.shape}")
    if not 1 <= len(found) <= most:
        raise ValueError(f"{name}: expected 1 to {most} steps, got {len(found)}")
    with np.errstate(over="ignore", invalid="ignore"):
        typed = found.astype(dtype)
    whole = np.issubdtype(dtype, np.integer)
    if not np.isfinite(typed).all() or (whole and (typed != found).any()):
        raise ValueError(f"{name}: expected finite numbers that {np.dtype(dtype).name} holds, got others")
    return typed


def create_app(models: Iterable[Any], limits: Limits | None = None) -> FastAPI:
    """The application that serves these models of `serving.saved`, at most one of each kind."""
    limits, served = limits or Limits(), {}
    for model in models:
        if model.kind in served:
            raise ValueError(f"models: expected one to {model.kind}, got two")
        served[model.kind] = model
    batchers = {kind: Batcher(model.run, limits.batch, limits.window) for kind, model in served.items()}

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        for batcher in batchers.values():
            await batcher.close()

    app = FastAPI(title="keras_seq models", lifespan=lifespan)
    app.state.batchers = batchers
    app.add_middleware(LimitedBodies, size=limits.body, seconds=limits.upload)
    _answer_errors(app)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page():
        return PAGE.read_text(encoding="utf-8")

    @app.get("/models")
    async def about():
        """What is served, its shapes, the limits, and how many batches of each size were run."""
        shown = {kind: model.about() for kind, model in served.items()}
        sizes = {kind: batcher.sizes for kind, batcher in batchers.items()}
        return {"models": shown, "limits": dataclasses.asdict(limits), "batches": sizes}

    routes = {"predict": _predict, "stream": _stream, "write": _write, "read": _read, "caption": _caption}
    for kind, model in served.items():
        routes[kind](app, model, batchers[kind], limits)
    return app


def _answer_errors(app):
    """Every error as `{"error": reason}`; nothing of the request's own is in it but where it was wrong."""

    def answer(status, reason, **headers):
        return JSONResponse({"error": reason}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return answer(422, f"{place}: {first['msg']}".encode(errors="replace").decode())

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException):
        return answer(error.status_code, str(error.detail), **(error.headers or {}))

    @app.exception_handler(TooManySessionsError)
    async def full(request: Request, error: Exception):
        return answer(429, str(error), **{"retry-after": "10"})

    @app.exception_handler(UnknownSessionError)
    async def unknown(request: Request, error: Exception):
        return answer(404, str(error))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception):
        return answer(500, "the model could not be run; the server's log says why")


def _checked(function, *given):
    """What the function gives; its ValueError as an answer with status 422."""
    try:
        return function(*given)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


def _numbers(answer):
    if not np.isfinite(answer).all():
        raise FloatingPointError("outputs: expected finite numbers, got others")
    return answer.tolist()


def _predict(app, model, batcher, limits):
    @app.post("/predict")
    async def predict(body: Sequence):
        """The model's answer to one sequence."""
        sequence = _checked(array, "sequence", body.sequence, model.features, model.dtype, limits.steps, model.length)
        return {"output": _numbers(await batcher(sequence, model.group(sequence)))}


def _stream(app, model, batcher, limits):
    sessions = app.state.sessions = Sessions(limits.sessions, limits.timeout)

    @app.post("/streams", status_code=201)
    async def begin():
        """A new stream, in the state before its first step."""
        return {"stream": sessions.open(model.first), "timeout": limits.timeout}

    @app.post("/streams/{stream}")
    async def advance(stream: str, body: Steps, request: Request):
        """The outputs of the next steps. If one cannot be run, or the client goes away, the stream stays where it was."""
        steps = _checked(array, "steps", body.steps, model.features, model.dtype, limits.steps)
        async with sessions.use(stream) as session:
            outputs = []
            async for found in _one_by_one(batcher, steps, session.state, request):
                outputs.append(_numbers(found[0]))
            session.state = found[1]
        return {"outputs": outputs}

    @app.delete("/streams/{stream}", status_code=204)
    async def end(stream: str):
        sessions.close(stream)


async def _one_by_one(batcher, items, state, request):
    """The output and the state after each item; nothing more is run for a client that has gone."""
    for i, item in enumerate(items):
        if i % 16 == 15 and await request.is_disconnected():
            raise HTTPException(499, "the client has gone")
        output, state = await batcher((item, state))
        yield output, state


def _write(app, model, batcher, limits):
    @app.post("/write")
    async def write(body: Prompt, request: Request):
        """Server-sent events: `{"piece": text}` for each piece, at last `{"end": "length"}` or `{"end": "end"}`."""
        for name, value, most in (("prompt", len(body.prompt), limits.text), ("length", body.length, limits.pieces)):
            if value > most:
                raise HTTPException(422, f"{name}: expected at most {most}, got {value}")
        tokens = _checked(model.tokens, body.prompt)
        # before the answer begins, so that what fails here has a status
        async for found in _one_by_one(batcher, tokens, model.first, request):
            last = found
        events = _events(model, batcher, *last, body, begun=len(tokens) > 1)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _events(model, batcher, logits, state, body, begun):
    random, reason, words = np.random.default_rng(body.seed), "length", model.vocabulary
    try:
        for i in range(body.length):
            token = model.draw(logits, body.temperature, random)
            if token == words.end:
                reason = "end"
                break
            yield _event(piece=words.separator * (begun or i > 0) + words.tokens[token])
            if i + 1 < body.length:
                logits, state = await batcher((token, state))
    except Exception:
        log.exception("a text was broken off")
        yield _event(error="the model could not be run; the server's log says why")
        return
    yield _event(end=reason)


def _event(**said):
    return f"data: {json.dumps(said)}\n\n"


def _read(app, model, batcher, limits):
    @app.post("/read")
    async def read(body: Text):
        """What the model says of a text, and the weights (t, s) with which it read it."""
        if len(body.text) > limits.text:
            raise HTTPException(422, f"text: expected at most {limits.text} characters, got {len(body.text)}")
        return await batcher(body.text)


def _caption(app, model, batcher, limits):
    @app.post("/caption")
    async def caption(body: Picture):
        """A sentence for a picture, its words, and for each the weights (h', w') with which the picture was read."""
        height, *features = model.shape
        return await batcher(_checked(array, "picture", body.picture, features, model.dtype, height, height))

    if (scenes := model.scenes) is None:
        return

    @app.get("/scene")
    async def scene(seed: Annotated[int | None, Query(ge=0, lt=2**63)] = None):
        """A scene of two objects that never stood together in training, and five sentences that are true of it."""
        rng = np.random.default_rng(seed)
        objects = scenes.sample_scene(rng, held_out="pairs")
        return {"picture": scenes.draw_scene(objects, rng).tolist(), "texts": scenes.describe(objects)}

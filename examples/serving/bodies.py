"""A limit on what a request may send, before anything reads it."""

import asyncio
import contextlib
import json


class LimitedBodies:
    """ASGI middleware that reads each body whole: 413 for one above `size` bytes, 408 for one not there in `seconds`.

    The application hears nothing of a request whose client goes away before its body is there. What is still to come of
    a body that is too long is read for `seconds` and thrown away: a connection that is closed on it would be reset, and
    a client that writes all of its request before it reads would never see why. A client that waits to be asked for its
    body (`expect: 100-continue`) is not asked.
    """

    def __init__(self, app, size: int, seconds: float = 10.0) -> None:
        self.app, self.size, self.seconds = app, size, seconds

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self.seconds):
                body, more = await self._body(scope, receive)
        except TimeoutError:
            await begin_refusal(send, 408, f"body: expected within {self.seconds:g} s, got a part of it")
            return await end_refusal(send)
        except ConnectionError:
            return None
        if body is None:
            await begin_refusal(send, 413, f"body: expected at most {self.size} bytes, got more")
            if more and dict(scope["headers"]).get(b"expect", b"").lower() != b"100-continue":
                await self._throw_away_the_rest(receive)
            return await end_refusal(send)
        rest = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return rest.pop() if rest else await receive()

        return await self.app(scope, replay, send)

    async def _body(self, scope, receive):
        """The body, None for one that is too long, and whether more of it is to come.

        Raises a ConnectionError where the client has gone.
        """
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self.size:
            return None, True
        body, more = bytearray(), True
        while more and len(body) <= self.size:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("body: expected all of it, got a part")
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body) if len(body) <= self.size else None, more

    async def _throw_away_the_rest(self, receive):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                while (await receive()).get("more_body", False):
                    pass


async def begin_refusal(send, status, reason):
    """Answer with a reason; the connection is to be closed, as the rest of a body may still come on it."""
    body = json.dumps({"error": reason}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def end_refusal(send):
    """Nothing more is said: the connection is closed."""
    await send({"type": "http.response.body", "body": b""})

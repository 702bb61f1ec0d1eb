"""A limit on what a request may send, before anything reads it."""

import asyncio
import json


class LimitedBodies:
    """ASGI middleware that reads each body whole: 413 for one above `size` bytes, 408 for one not there in `seconds`.

    The application hears nothing of a request whose client goes away before its body is there.
    """

    def __init__(self, app, size: int, seconds: float = 10.0) -> None:
        self.app, self.size, self.seconds = app, size, seconds

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._body(scope, receive)
        except TimeoutError:
            return await refuse(send, 408, f"body: expected within {self.seconds:g} s, got a part of it")
        except ConnectionError:
            return None
        if body is None:
            return await refuse(send, 413, f"body: expected at most {self.size} bytes, got more")
        rest = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return rest.pop() if rest else await receive()

        return await self.app(scope, replay, send)

    async def _body(self, scope, receive):
        """The body; None for one that is too long; a ConnectionError where the client has gone."""
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self.size:
            return None
        body, more = bytearray(), True
        while more and len(body) <= self.size:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("body: expected all of it, got a part")
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body) if len(body) <= self.size else None


async def refuse(send, status, reason):
    """Answer with a reason, and close the connection, on which the rest of a body may still come."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": reason}).encode()})

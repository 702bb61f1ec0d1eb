"""The states of streams between requests."""

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class TooManySessionsError(Exception):
    """All sessions are taken."""


class UnknownSessionError(Exception):
    """No session of this name: it was never opened, it was closed, or it timed out."""


class _Session:
    def __init__(self, state, now):
        self.state, self.used, self.lock, self.users = state, now, asyncio.Lock(), 0


class Sessions:
    """At most `limit` states, each forgotten when nobody has used it for `seconds`.

    Args:
        limit: positive integer.
        seconds: positive number.
        clock: the time in seconds.

    Example:

        sessions = Sessions(limit=1000, seconds=600)
        name = sessions.open(state)
        async with sessions.use(name) as session:       # one after the other, in the order of arrival
            session.state = next(session.state)
        sessions.close(name)
    """

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        if limit < 1 or seconds <= 0:
            raise ValueError(f"limit, seconds: expected positive numbers, got {limit!r}, {seconds!r}")
        self.limit, self.seconds, self.clock = limit, seconds, clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # the one used last stands at the end

    def __len__(self):
        self._forget()
        return len(self._sessions)

    def open(self, state: Any) -> str:
        """The name of a new session that holds this state.

        Raises:
            TooManySessionsError: `limit` of them are open.
        """
        if len(self) >= self.limit:
            raise TooManySessionsError(f"streams: expected at most {self.limit} at a time, got one more; try later")
        name = secrets.token_urlsafe(16)
        self._sessions[name] = _Session(state, self.clock())
        return name

    @contextlib.asynccontextmanager
    async def use(self, name: str):
        """The session, whose `state` may be read and set; nobody else uses it meanwhile, and it does not time out.

        Raises:
            UnknownSessionError: no session of this name, or it was closed while this waited for its turn.
        """
        session = self._found(name)
        session.users += 1
        try:
            async with session.lock:
                if name not in self._sessions:
                    raise self._unknown(name)
                yield session
        finally:
            session.users -= 1
            session.used = self.clock()
            if name in self._sessions:
                self._sessions.move_to_end(name)

    def close(self, name: str) -> None:
        """Forget a session; an UnknownSessionError where there is none."""
        self._found(name)
        del self._sessions[name]

    def _found(self, name):
        self._forget()
        if name not in self._sessions:
            raise self._unknown(name)
        return self._sessions[name]

    def _unknown(self, name):
        return UnknownSessionError(
            f"stream: expected one that is open and was used in the last {self.seconds:g} s, got {name[:40]!r}"
        )

    def _forget(self):
        oldest = self.clock() - self.seconds
        for name, session in list(self._sessions.items()):
            if session.used > oldest:
                return
            if not session.users:
                del self._sessions[name]

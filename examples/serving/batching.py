"""Calls that arrive together are run together."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


@dataclasses.dataclass
class Waiting:
    item: Any
    group: Hashable
    answer: asyncio.Future
    since: float


class Batcher:
    """A function of a list of items, called from many coroutines with one item each.

    A batch begins with the item that has waited longest. It takes the items of the same group, at most `limit`, and it
    is run when it is full or when its first item has waited `window` seconds. What arrives while it runs waits for the
    next. A batch that fails is run again item by item, so that an item that cannot be run fails alone.

    Args:
        function: from a list of items to a list of as many answers; it runs in a thread of its own.
        limit: positive integer, the most items of a batch.
        window: seconds.

    Example:

        double = Batcher(lambda items: [2 * i for i in items])
        answers = await asyncio.gather(double(1), double(2))      # [2, 4], by one call
        await double.close()
    """

    def __init__(self, function: Callable[[list], list], limit: int = 32, window: float = 0.002) -> None:
        if limit < 1 or window < 0:
            raise ValueError(f"limit, window: expected a positive integer and seconds, got {limit!r}, {window!r}")
        self.function, self.limit, self.window = function, limit, window
        self.sizes: dict[int, int] = {}  # how many batches of each size have been run
        self._waiting: list[Waiting] = []
        self._thread = ThreadPoolExecutor(1)
        self._worker: asyncio.Task | None = None
        self._full = asyncio.Event()

    async def __call__(self, item: Any, group: Hashable = None) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(item, group, answer, time.monotonic()))
        if len(self._waiting) >= self.limit:
            self._full.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """Answer what waits, then end the thread."""
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self):
        while self._waiting:
            left = self._waiting[0].since + self.window - time.monotonic()
            if left > 0 and len(self._waiting) < self.limit:
                self._full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), left)
            await self._run(self._take())

    def _take(self):
        """The next batch, which waits no longer; callers that have gone are left out."""
        self._waiting = [w for w in self._waiting if not w.answer.done()]
        batch = [w for w in self._waiting if w.group == self._waiting[0].group][: self.limit]
        taken = {id(w) for w in batch}
        self._waiting = [w for w in self._waiting if id(w) not in taken]
        return batch

    async def _run(self, batch):
        if not batch:
            return
        self.sizes[len(batch)] = self.sizes.get(len(batch), 0) + 1
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self.function, [w.item for w in batch])
            if len(answers) != len(batch):
                raise ValueError(f"function: expected {len(batch)} answers, got {len(answers)}")
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0].answer, error=error)
            else:
                for waiting in batch:
                    await self._run([waiting])
            return
        for waiting, answer in zip(batch, answers, strict=True):
            _settle(waiting.answer, answer)


def _settle(future, answer=None, error=None):
    if future.done():  # the caller has gone
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)

"""Work that is done one after the other in a thread beside the event loop, with a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class FullError(Exception):
    """So many wait already."""


class LateError(Exception):
    """It has not come in time; what had begun goes on for nobody."""


class Lane:
    """A thread and those that wait for it.

    Args:
        name: of the thread.
        waiting: that may wait, and be worked for, at a time.

    Attributes:
        length: that are there now.
    """

    def __init__(self, name: str, waiting: int) -> None:
        self.length = 0
        self._most = waiting
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(
        self, work: Callable[[], _T], seconds: float | None = None, bounded: bool = True
    ) -> _T:
        """What ``work`` gives.

        Args:
            work: is done in the thread.
            seconds: it may take until it is done, waiting included; None for any time.
            bounded: whether it is not to be done where too many wait.

        Raises:
            FullError: too many wait.
            LateError: it took longer.
        """
        if bounded and self.length >= self._most:
            raise FullError
        self.length += 1
        future = self._pool.submit(work)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            raise LateError from None

    def close(self) -> None:
        """Wait for what is being done; what has not begun is left out."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self) -> None:
        self.length -= 1

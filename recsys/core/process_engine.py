"""Work done by several processes of this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, TypeVar

from recsys.core.errors import RecsysError
from recsys.core.process_context import process_context
from recsys.core.quiet import quieten

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Pieces per process that are given out before the first result is asked for, also of large ones.
_AHEAD = 2


class ProcessEngine:
    """Does the pieces of a work by processes of this machine, which stay until the end of it.

    Args:
        workers: how many processes.
        preloaded: packages that they need.
    """

    block_rows: int | None = None

    def __init__(self, workers: int, *preloaded: str) -> None:
        self.workers = workers
        self._preloaded = preloaded

    def map(
        self, task: Callable[[Item], Result], items: Iterable[Item], bulky: bool = False
    ) -> Iterator[Result]:
        """The results of a task, in the order of the items.

        Raises:
            RecsysError: a process has ended early.
            Exception: what a task has raised.
        """
        waiting: deque[Future[Result]] = deque()
        free: SimpleQueue[_Worker] = SimpleQueue()
        # the processes end before the threads are waited for, which wait for processes
        with ThreadPoolExecutor(self.workers) as threads, ExitStack() as stack:
            try:
                for _ in range(self.workers):
                    free.put(stack.enter_context(_worker(self._preloaded, task)))
                for item in items:
                    if len(waiting) == self.workers * _AHEAD:
                        yield waiting.popleft().result()
                    waiting.append(threads.submit(_done_by_one, free, item))
                while waiting:
                    yield waiting.popleft().result()
            except _EndedEarlyError as error:
                raise RecsysError(
                    f"One of the {self.workers} processes that share the work has ended early (it "
                    "was killed, or memory is short); nothing was changed. Do it again, if need "
                    "be on fewer."
                ) from error
            finally:
                for one in waiting:
                    one.cancel()


class _EndedEarlyError(Exception):
    """A process is not there any more."""


@dataclass(frozen=True)
class _Worker:
    """A process that works, and the pipe to it.

    Each has a pipe of its own, and nothing but one thread waits for it. So one that ends, at
    whatever moment, is seen as the end of its pipe; Python's pool may wait for ever for one that
    ends while another is being started.
    """

    process: BaseProcess
    pipe: connection.Connection

    def ask(self, item: Any) -> Any:
        try:
            self.pipe.send(item)
            if self.pipe not in connection.wait([self.pipe, self.process.sentinel]):
                raise EOFError
            found = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise _EndedEarlyError from error
        if isinstance(found, BaseException):
            raise found
        return found


def _done_by_one(free: SimpleQueue[_Worker], item: Any) -> Any:
    worker = free.get()
    try:
        return worker.ask(item)
    finally:
        free.put(worker)


@contextmanager
def _worker(preloaded: tuple[str, ...], task: Callable[[Any], Any]) -> Iterator[_Worker]:
    """A process that shares nothing with this one: an open LMDB does not cross a fork."""
    context = process_context(*preloaded)
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, task), daemon=True)
    try:
        with there:
            _start(process)
        yield _Worker(process, here)
    finally:
        if process.pid is not None:
            process.kill()
            process.join()  # a thread that waits for it sees that; the pipe is closed when unused


def _start(process: BaseProcess) -> None:
    try:
        process.start()
    except OSError as error:  # it has ended before it was told what to do, or there is no room
        raise _EndedEarlyError from error


def _work(pipe: connection.Connection, task: Callable[[Any], Any]) -> None:
    """Do what comes, until the other end is closed or whoever holds it has ended."""
    quieten()
    with suppress(EOFError, OSError):
        while True:
            item = pipe.recv()
            try:
                answer = task(item)
            except Exception as error:
                pipe.send(error)
            else:
                pipe.send(answer)

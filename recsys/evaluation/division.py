"""An evaluation divided over processes: each computes some parts, and all have the results.

The parts are those that one process computes one after the other, and what follows from all of
them is computed once, so the numbers are those of one process to the last bit. All processes go
through the same evaluation and meet at every :func:`in_parts` and :func:`once`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from recsys.core.progress import track

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """The processes that evaluate together, as one of them sees them.

    Attributes:
        rank: of this one.
        count: of all.
        gather: what this one has → what all have, by rank; it waits for all.
    """

    rank: int
    count: int
    gather: Callable[[Any], list[Any]]


_together: ContextVar[Processes | None] = ContextVar(
    "processes that evaluate together", default=None
)


@contextmanager
def divided_over(processes: Processes | None) -> Iterator[None]:
    """Divide what is computed in the block; by None this process computes all of it."""
    token = _together.set(processes)
    try:
        yield
    finally:
        _together.reset(token)


def in_parts(
    parts: Sequence[Part], compute: Callable[[Part], Result], progress: str
) -> list[Result]:
    """What ``compute`` says of every part, in their order; this process computes its share.

    Args:
        parts: the same on all processes.
        compute: depends on nothing but its part; its result is sent to the other processes.
        progress: what the progress bar says, on the first of them.
    """
    return gathered([compute(part) for part in watched(own_share(parts), progress)])


def own_share(parts: Sequence[Part]) -> Sequence[Part]:
    """The parts that this process computes, every n-th of n processes: neighbours cost alike."""
    together = _together.get()
    return parts if together is None else parts[together.rank :: together.count]


def watched(parts: Iterable[Part], progress: str) -> Iterator[Part]:
    """The parts under a progress bar, which the first process alone shows."""
    together = _together.get()
    return iter(parts) if together is not None and together.rank else track(parts, progress)


def gathered(mine: list[Result]) -> list[Result]:
    """The results of all parts in their order, of those of this process's share."""
    together = _together.get()
    return mine if together is None else _in_order(together.gather(mine))


def _in_order(shares: Sequence[Sequence[Result]]) -> list[Result]:
    """The results by part, of those of each process.

    >>> _in_order([["a", "c", "e"], ["b", "d"]])
    ['a', 'b', 'c', 'd', 'e']
    """
    rounds = max(map(len, shares))
    return [share[number] for number in range(rounds) for share in shares if number < len(share)]


def once(function: Callable[[], Result]) -> Result:
    """What ``function`` returns, called in the first process alone; all get it, or its error.

    What it calls is not divided: the others wait here.
    """
    together = _together.get()
    if together is None:
        return function()
    result: Any = None
    error: Exception | None = None
    if together.rank == 0:
        try:
            with divided_over(None):
                result = function()
        except Exception as problem:
            error = problem
    outcomes = together.gather((result, error))
    if error is not None:
        raise error  # this one has the traceback
    result, error = outcomes[0]
    if error is not None:
        raise error
    found: Result = result
    return found


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let the other processes into the block when the first one has left it."""
    together = _together.get()
    if together is not None and together.rank:
        together.gather(None)
    yield
    if together is not None and not together.rank:
        together.gather(None)

"""A command whose work is divided over processes, those of a launcher or started here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from recsys.distributed.meeting import Gathering, meet
from recsys.distributed.processes import (
    WAIT_FOR_THE_FIRST,
    is_first_rank,
    on_processes,
    started_by_a_launcher,
)
from recsys.evaluation.division import Processes, divided_over

Result = TypeVar("Result")


def together(count: int, function: Callable[..., Result], *args: Any) -> Result:
    """Call ``function`` on so many processes, which divide what it computes in parts.

    Where a launcher has started this process beside others they meet; else the processes are
    started here. With one process it is a call.

    Args:
        count: of the processes.
        function: of a module; it comes to the same parts on every process
            (:mod:`recsys.evaluation.division`).
        args: of the function.

    Returns:
        What it returned, here or on the first of the processes that were started.

    Raises:
        ConfigError: the launcher has started another number of processes.
        RecsysError: what a process raised, or one of them was killed.
    """
    if count == 1:
        return function(*args)
    if started_by_a_launcher():
        return _divided(count, function, *args)
    return cast(Result, on_processes(count, _on_the_first, count, function, *args))


def _on_the_first(count: int, function: Callable[..., Result], *args: Any) -> Result | None:
    """What the first process returns; the others send nothing back."""
    result = _divided(count, function, *args)
    return result if is_first_rank() else None


def _divided(count: int, function: Callable[..., Result], *args: Any) -> Result:
    store, rank = meet(count, WAIT_FOR_THE_FIRST)
    gather = Gathering(store, rank, count, WAIT_FOR_THE_FIRST)
    with divided_over(Processes(rank, count, gather)):
        return function(*args)

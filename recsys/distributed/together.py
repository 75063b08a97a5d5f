"""A command divided over processes: those of a launcher, of this machine, or of Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from recsys.core.engines import PROCESS, EngineConfig
from recsys.core.open_engine import open_engine
from recsys.core.quiet import quieten
from recsys.core.threads import one_thread
from recsys.distributed.meeting import Gathering, LeftAloneError, join, meet
from recsys.distributed.processes import (
    WAIT_FOR_THE_FIRST,
    is_first_rank,
    on_processes,
    started_by_a_launcher,
)
from recsys.evaluation.division import Processes, divided_over

if TYPE_CHECKING:
    from torch.distributed import Store

    from recsys.core.ray_engine import RayEngine

Result = TypeVar("Result")


def together(
    count: int,
    function: Callable[..., Result],
    *args: Any,
    engine: EngineConfig | None = None,
    folders: Sequence[Path] = (),
) -> Result:
    """Call ``function`` on so many processes, which divide what it computes in parts.

    Where a launcher has started this process beside others they meet; else the processes are
    started here. With one process it is a call. With ``engine=ray`` this process is the first, and
    workers of Ray are the others.

    Args:
        count: of the processes.
        function: of a module; it comes to the same parts on every process
            (:mod:`recsys.evaluation.division`).
        args: of the function.
        engine: what the other processes are of; None for those of this machine.
        folders: that Ray's workers must see.

    Returns:
        What it returned, here or on the first of the processes that were started.

    Raises:
        ConfigError: the launcher has started another number of processes, or Ray's cluster cannot
            do the work.
        RecsysError: what a process raised, or one of them was killed.
    """
    if engine is not None and engine.name != PROCESS:
        with open_engine(engine, *folders) as ray:
            return _by_ray(cast("RayEngine", ray), function, *args)
    if count == 1:
        return function(*args)
    if started_by_a_launcher():
        return _divided(*meet(count, WAIT_FOR_THE_FIRST), count, function, *args)
    return cast(Result, on_processes(count, _on_the_first, count, function, *args))


def _on_the_first(count: int, function: Callable[..., Result], *args: Any) -> Result | None:
    """What the first process returns; the others send nothing back."""
    result = _divided(*meet(count, WAIT_FOR_THE_FIRST), count, function, *args)
    return result if is_first_rank() else None


def _by_ray(ray: RayEngine, function: Callable[..., Result], *args: Any) -> Result:
    store, count = join(ray.host, 0, ray.workers, WAIT_FOR_THE_FIRST), ray.workers
    worker = _Worker(ray.host, store.port, count, function, args)
    with one_thread(), ray.beside(worker, range(1, count)) as failed:
        try:
            return _divided(store, 0, count, function, *args)
        except LeftAloneError as error:
            own = (one for one in failed() if not isinstance(one, LeftAloneError))
            raise next(own, error) from error


@dataclass(frozen=True)
class _Worker:
    """A process of Ray that computes its share.

    Attributes:
        host: of the first process.
        port: at which they meet.
        count: of the processes.
        function: as of ``together``.
        args: of it.
    """

    host: str
    port: int
    count: int
    function: Callable[..., Any]
    args: tuple[Any, ...]

    def __call__(self, rank: int) -> None:
        """Compute the share of a rank."""
        quieten()
        store = join(self.host, self.port, self.count, WAIT_FOR_THE_FIRST)
        _divided(store, rank, self.count, self.function, *self.args)


def _divided(
    store: Store, rank: int, count: int, function: Callable[..., Result], *args: Any
) -> Result:
    gather = Gathering(store, rank, count, WAIT_FOR_THE_FIRST)
    try:
        with divided_over(Processes(rank, count, gather)):
            return function(*args)
    except BaseException:
        gather.end()  # a worker of Ray lives on
        raise

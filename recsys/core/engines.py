"""What divided work is done by: this process, or Ray on one machine or many (``engine=ray``).

Work is a *task*, something picklable that is called, and the items that it is called with, one by
one and in any order. Results come back in the order of the items, so what is made of them does
not depend on the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

from recsys.core.bounds import Count, Number, OneOf, Settings
from recsys.core.errors import ConfigError

PROCESS, RAY = ENGINES = ("process", "ray")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EngineConfig(Settings):
    """What divided work is done by; all but the name is of Ray.

    Attributes:
        name: ``process``, this one, or ``ray``.
        address: of the user's cluster; None for RAY_ADDRESS, and without it this machine.
        workers: pieces of work that are done at a time; None for as many as there are cores.
        object_store_mb: memory in which Ray on this machine keeps results that are on their way.
        block_rows: rows of a log that one piece of work reads, by whole chunks.
    """

    name: Annotated[str, OneOf(ENGINES)] = PROCESS
    address: str | None = None
    workers: Count | None = None
    object_store_mb: Annotated[int, Number(at_least=80, at_most=10**7)] = 512
    block_rows: Count = 2_000_000

    def refuse_beside(self, processes: int) -> None:
        """Refuse two numbers of workers.

        Raises:
            ConfigError: ``processes`` of a command are asked for, and those of an engine too.
        """
        if self.name != PROCESS and processes > 1:
            raise ConfigError(
                f"processes={processes} are of this machine, and engine={self.name} has workers of "
                "its own; leave processes out, and give engine.workers= if need be."
            )


class Engine(Protocol):
    """Does the pieces of a work.

    Attributes:
        workers: pieces that are done at a time.
        block_rows: rows of a log that one piece reads; None for an engine that does one piece
            after the other in this process, where nothing is gained by dividing the reading.
    """

    workers: int
    block_rows: int | None

    def map(
        self, task: Callable[[Item], Result], items: Iterable[Item], bulky: bool = False
    ) -> Iterator[Result]:
        """The results of a task, in the order of the items.

        Args:
            task: what is done.
            items: what it is done with.
            bulky: results are large, so few are made before they are asked for.
        """


class ThisProcess:
    """One piece after the other, when its result is asked for."""

    workers = 1
    block_rows: int | None = None

    def map(
        self, task: Callable[[Item], Result], items: Iterable[Item], bulky: bool = False
    ) -> Iterator[Result]:
        """The results of a task, in the order of the items."""
        return map(task, items)


THIS_PROCESS = ThisProcess()

"""Progress bars on standard error, so that standard output stays clean for results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def track(iterable: Iterable[T], description: str, total: float | None = None) -> Iterator[T]:
    """Yield the items of ``iterable`` under a progress bar on standard error.

    Args:
        iterable: what to walk through.
        description: what is being done, for example ``"Writing timelines"``.
        total: number of items; taken from ``len(iterable)`` where it has one.
    """
    console = Console(stderr=True)
    yield from rich_track(iterable, description=description, total=total, console=console)

"""Progress bars on standard error, so that standard output stays clean for results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from recsys.core.console import progress_bar

T = TypeVar("T")


def track(iterable: Iterable[T], description: str, total: float | None = None) -> Iterator[T]:
    """Yield the items of ``iterable`` under a progress bar on standard error.

    Args:
        iterable: what to walk through.
        description: what is being done, for example ``"Writing timelines"``.
        total: number of items; taken from ``len(iterable)`` where it has one.
    """
    with progress_bar() as progress:
        yield from progress.track(iterable, total=total, description=description)

"""What an adapter from an owner's files to the interaction-log contract offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from recsys.data.contract.input_files import InputFile, describe_files
from recsys.data.contract.schema import Feature, Task


class Source(ABC):
    """Reads one log layout and yields frames in the contract of ``recsys.data.contract.schema``.

    ``features`` name the backbone inputs beside the ids of user, item, author and topic, which
    every data set has; cardinalities are counted during preparation and are 0 here.
    ``split_bounds`` gives ``[first, last)`` request time in ms per split, by time alone. ``texts``
    names the text columns of ``items()``, such as ``title``; they are kept as they are. A source
    without ``tasks`` has no request rows: its log serves models of sequences. ``label_window`` is
    the longest time in ms from an impression to an action that counts for it, where rows follow
    from the events (``requests_from``). Nothing can be added to a source that cannot grow: its
    times are an order only.
    """

    name: str
    tasks: tuple[Task, ...]
    features: tuple[Feature, ...]
    texts: tuple[str, ...] = ()
    split_bounds: dict[str, tuple[int, int]]
    label_window: int | None = None
    can_grow: bool = True

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that are read: they enter the fingerprint of the prepared data set.

        Raises:
            DataError: a file is missing; the sentence says who publishes it and where it belongs.
        """

    def inputs(self, known: Sequence[InputFile]) -> tuple[InputFile, ...]:
        """What is read, by its content.

        Args:
            known: inputs described before; a file of the same name, size and time of change is
                not read again.

        Raises:
            DataError: a file is missing or cannot be read.
        """
        return describe_files(self.files(), known)

    @abstractmethod
    def events(self) -> Iterator[pl.DataFrame]:
        """Chunks of the interaction log: columns of ``LOG_SCHEMA``, raw ids, any order."""

    @abstractmethod
    def requests(self) -> Iterator[pl.DataFrame]:
        """Chunks of request rows: user, item, request time, labels, context features.

        Where the source knows the true probabilities, their ``best_…`` columns come with them.
        """

    def requests_from(self, events: pl.DataFrame) -> pl.DataFrame | None:
        """Request rows that follow from ``events``, all valid events of some users.

        For sources whose rows are part of the log itself; the others give them by ``requests``.
        """
        return None

    def bounds_over(self, first: int, last: int) -> dict[str, tuple[int, int]]:
        """``split_bounds`` of a log that days were added to.

        Args:
            first: its first moment, ms.
            last: its last moment, ms.
        """
        return self.split_bounds

    def users(self) -> pl.DataFrame | None:
        """One row per user: ``user_id`` and the user features."""
        return None

    def items(self) -> pl.DataFrame | None:
        """One row per item: ``item_id`` and the item features (author and topic among them)."""
        return None

"""What an adapter from an owner's files to the interaction-log contract offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.input_files import InputFile, describe_files
from recsys.data.contract.manifest import MOMENTS
from recsys.data.contract.schema import Feature, FeatureSide, Task


class Source(ABC):
    """Reads one log layout and yields frames in the contract of ``recsys.data.contract.schema``.

    ``features`` name the backbone inputs beside the ids of user, item, author and topic, which
    every data set has; cardinalities are counted during preparation and are 0 here.
    ``split_bounds`` gives ``[first, last)`` request time in ms per split, by time alone. ``texts``
    names the text columns of ``items()``, such as ``title``; they are kept as they are. ``lists``
    names, per side, columns of lists of text: each of their commonest values becomes a dense
    feature. ``shown`` names columns of ``items()`` that are kept and read by no model. A source
    without ``tasks`` has no request rows: its log serves models of sequences. ``actions`` are the
    action types its events may have; ``times`` says what their timestamps are: moments, or an
    order only (``DatasetManifest.times``). ``label_window`` is the longest time in ms from an
    impression to an action that counts for it, where rows follow from the events
    (``requests_from``).
    """

    name: str
    tasks: tuple[Task, ...]
    features: tuple[Feature, ...]
    texts: tuple[str, ...] = ()
    lists: Mapping[FeatureSide, tuple[str, ...]] = MappingProxyType({})
    shown: tuple[str, ...] = ()
    first_known: frozenset[FeatureSide] = frozenset()
    actions: ActionTypes = ActionTypes()
    times: str = MOMENTS
    split_bounds: dict[str, tuple[int, int]]
    label_window: int | None = None

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

    def refuse_rewritten(self, known: Sequence[InputFile]) -> None:
        """Refuse to append what does not follow from what a data set was prepared from.

        For tables, which can be rolled back; files are told by their content.
        """
        return  # of files there is nothing to refuse

    def why_useless(self) -> str | None:
        """Why nothing can be learned from it, where its columns alone say so; else None.

        Raises:
            DataError: a file cannot be used.
        """
        return None

    @abstractmethod
    def events(self) -> Iterator[pl.DataFrame]:
        """Chunks of the interaction log: columns of ``LOG_SCHEMA``, raw ids, any order."""

    @abstractmethod
    def requests(self) -> Iterator[pl.DataFrame]:
        """Chunks of request rows: user, item, request time, labels, context features.

        Where the source knows the true probabilities, their ``best_…`` columns come with them.
        """

    def event_blocks(self, rows: int) -> Sequence[Any]:
        """Pieces of the events, in their order, that several processes can read apart.

        Args:
            rows: of a piece, about, where the source can divide so far.

        Returns:
            What :meth:`events_of` takes, to be pickled; one piece, the whole, by itself.
        """
        return (None,)

    def events_of(self, block: Any) -> Iterator[pl.DataFrame]:
        """The chunks of a piece; those of all pieces are the chunks of ``events``."""
        return self.events()

    def request_blocks(self) -> Sequence[Any]:
        """Pieces of the request rows, likewise, which :meth:`requests_of` takes."""
        return (None,)

    def requests_of(self, block: Any) -> Iterator[pl.DataFrame]:
        """The chunks of a piece; those of all pieces are the chunks of ``requests``."""
        return self.requests()

    def learned(self) -> Any:
        """What reading events has told about the log as a whole, to be pickled."""
        return None

    def learn(self, learned: Any) -> None:  # noqa: B027 - most sources have nothing to learn
        """Know what another process has learned of a piece."""

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

    def item_embeddings(self) -> Iterator[pl.DataFrame]:
        """Chunks of ``item_id`` and ``embedding``, lists of float32 of one width; none here."""
        return iter(())


class DividedSource(Source):
    """A source that is read in pieces, such as its files, by one process and by several alike."""

    def events(self) -> Iterator[pl.DataFrame]:
        """The events of one piece after the other."""
        for block in self.event_blocks(0):
            yield from self.events_of(block)

    def requests(self) -> Iterator[pl.DataFrame]:
        """The request rows of one piece after the other."""
        for block in self.request_blocks():
            yield from self.requests_of(block)

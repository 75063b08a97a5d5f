"""What an intake has set down, read again by partition of users, in any process.

Rows of a user are in the order of the source, whoever has set down which of them: pieces come in
the order of the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.schema import Column
from recsys.data.prepare.spill import PartitionSpill

UNKNOWN_NAME = "unknown"

_MAX_NAMES = 127  # codes are int8; one of them is unknown


class CodeBook:
    """Names to codes in order of appearance; code 0 is ``unknown``.

    Args:
        column: whose names they are.
        names: names that have their code already.
    """

    def __init__(self, column: str, names: Iterable[str] = (UNKNOWN_NAME,)) -> None:
        self.column = column
        self.names = list(names)

    def learn(self, names: Iterable[str]) -> None:
        """Give names that have none the next codes.

        Raises:
            DataError: there are more than 127 names.
        """
        self.names += [name for name in names if name not in self.names]
        if len(self.names) > _MAX_NAMES:
            raise DataError(
                f"column {self.column} has more than {_MAX_NAMES} different values "
                f"(such as {self.names[-1]!r}); merge rare ones before preparing the log."
            )

    def encode(self, values: pl.Series) -> pl.Series:
        """The code of each value, int8; new names get the next codes.

        Raises:
            DataError: there are more than 127 names.
        """
        self.learn(values.drop_nulls().unique(maintain_order=True))
        codes = range(len(self.names))
        return values.replace_strict(self.names, codes, default=0, return_dtype=pl.Int8)

    def decode(self, codes: pl.Series) -> pl.Series:
        """The name of each code; null for unknown."""
        names = [None if name == UNKNOWN_NAME else name for name in self.names]
        return codes.replace_strict(range(len(names)), names, return_dtype=pl.String)

    def recode(self, codes: pl.Series, others: list[str]) -> pl.Series:
        """Codes of another book, whose names are all known here, as codes of this one."""
        if others == self.names[: len(others)]:
            return codes
        ours = [self.names.index(name) for name in others]
        return codes.replace_strict(range(len(others)), ours, return_dtype=pl.Int8)


@dataclass(frozen=True)
class Piece:
    """What one process has set down of a stretch of the source.

    Attributes:
        events: with codes of the names that follow.
        requests: request rows.
        names: of each code book, by its column.
    """

    events: PartitionSpill
    requests: PartitionSpill
    names: dict[str, list[str]]


@dataclass
class TakenIn:
    """All that was set down.

    Attributes:
        num_partitions: number of user partitions.
        pieces: in the order of the source.
        tail: events of the data set that is appended to.
        books: of the columns that lie as codes; they know the names of every piece.
        unique: request rows of a partition without those that were there twice, in the place of
            those of the pieces.
    """

    num_partitions: int
    pieces: list[Piece]
    tail: PartitionSpill
    books: tuple[CodeBook, ...]
    unique: dict[int, PartitionSpill] = field(default_factory=dict)

    @property
    def has_request_times(self) -> bool:
        """Whether any event says when it was requested."""
        spills = (self.tail, *(piece.events for piece in self.pieces))
        return any(one.schema is not None and Column.REQUEST_TIME in one.schema for one in spills)

    @property
    def has_requests(self) -> bool:
        """Whether any request row was taken in."""
        return any(piece.requests.schema is not None for piece in self.pieces)

    def events(self, partition: int) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """The events of a partition's users in log order, names as strings, and duplicates apart.

        They stay on the disk until ``drop_events``.
        """
        frame = _joined([self._recoded(piece, partition) for piece in self.pieces])
        if frame is None:
            return None
        unique, again = parted(frame)
        return self._decoded(unique), self._decoded(again)

    def requests(self, partition: int) -> pl.DataFrame | None:
        """The request rows of a partition's users in the order they came."""
        if partition in self.unique:
            return self.unique[partition].read(partition)
        return _joined([piece.requests.read(partition) for piece in self.pieces])

    def drop_events(self, partition: int) -> None:
        """Free the disk space of a partition's events."""
        for spill in (self.tail, *(piece.events for piece in self.pieces)):
            spill.remove(partition)

    def _recoded(self, piece: Piece, partition: int) -> pl.DataFrame | None:
        frame = piece.events.read(partition)
        if frame is None:
            return None
        return frame.with_columns(
            book.recode(frame[book.column], piece.names[book.column]) for book in self.books
        )

    def _decoded(self, events: pl.DataFrame) -> pl.DataFrame:
        return events.with_columns(book.decode(events[book.column]) for book in self.books)


def parted(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first of equal rows, and the others."""
    if frame.n_unique() == frame.height:
        return frame, frame.clear()
    first = frame.select(pl.struct(pl.all()).is_first_distinct()).to_series()
    return frame.filter(first), frame.filter(~first)


def _joined(frames: list[pl.DataFrame | None]) -> pl.DataFrame | None:
    """Frames behind each other, with columns and types of the first; None where there is none."""
    present = [frame for frame in frames if frame is not None]
    if not present:
        return None
    schema = present[0].schema
    same = (one.select(pl.col(n).cast(t) for n, t in schema.items()) for one in present)
    return pl.concat(same, rechunk=True)

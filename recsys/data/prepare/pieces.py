"""The pieces of a preparation that any process can do: a stretch of the source, or a partition.

A piece writes files of its own into the folder of temporary files and reports what it has written;
whoever asked for it joins the reports, in the order of the pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

import numpy as np
import polars as pl

from recsys.data.contract.manifest import WITHOUT_DWELL
from recsys.data.contract.rejected import DUPLICATED_EVENT, SetAside
from recsys.data.contract.schema import ID_COLUMNS, IMPRESSION, Column
from recsys.data.prepare.intake import Intake, IntakeSettings
from recsys.data.prepare.spill import PartitionSpill
from recsys.data.prepare.taken_in import TakenIn
from recsys.data.sources import Source
from recsys.data.stores.timelines.writer import SpilledEvents, spill_events
from recsys.data.stores.vocabulary import Vocabulary, read_known

IMPLICIT, EXPLICIT = "implicit_events", "explicit_events"
EVENT_COUNTS = (IMPLICIT, WITHOUT_DWELL, EXPLICIT)


class Indices(Protocol):
    """Finds the indices of raw ids."""

    def of(self, partition: int, ids: pl.Series) -> pl.Series:
        """The index of each id, as :meth:`Vocabulary.indices`.

        Args:
            partition: of users, whose rows the ids are of.
            ids: named as their column.
        """


@dataclass(frozen=True)
class HeldIndices:
    """In vocabularies that are in memory, by column."""

    vocabularies: Mapping[str, Vocabulary]

    def of(self, partition: int, ids: pl.Series) -> pl.Series:
        """The index of each id."""
        return self.vocabularies[ids.name].indices(ids)


@dataclass(frozen=True)
class StoredIndices:
    """In vocabularies on the disk, of which no more is in memory than the ids that are asked for.

    Attributes:
        paths: of the vocabularies, by column.
        users: the rows of that of users by partition.
    """

    paths: Mapping[str, Path]
    users: PartitionSpill

    def of(self, partition: int, ids: pl.Series) -> pl.Series:
        """The index of each id."""
        if ids.name == Column.USER and (users := self.users.read(partition)) is not None:
            return Vocabulary(users).indices(ids)
        return read_known(self.paths[ids.name], ids).indices(ids)


@dataclass(frozen=True)
class TakeIn:
    """Takes in a stretch of the source.

    Attributes:
        source: the source.
        settings: of the intake.
        requests: it is request rows, otherwise events.
        spill: folder of temporary files.
    """

    source: Source
    settings: IntakeSettings
    requests: bool
    spill: Path

    def __call__(self, block: Any) -> tuple[Intake, Any]:
        """What was taken in, and what the source has learned."""
        intake = Intake(own_folder(self.spill), self.settings, SetAside())
        if self.requests:
            for frame in self.source.requests_of(block):
                intake.add_own_requests(frame)
        else:
            for frame in self.source.events_of(block):
                intake.add_events(frame)
        intake.close()
        return intake, self.source.learned()


@dataclass(frozen=True, eq=False)
class WrittenEvents:
    """What became of the events of a partition.

    Attributes:
        spilled: indices of the events, for the timelines; None where there are none.
        counts: of ``EVENT_COUNTS``.
        actions: events by action type.
        rows: takes in the request rows that follow from them; None where none do.
        tail: events whose labels may still come; None where no rows follow from events.
        rejected: what stands there twice.
    """

    spilled: SpilledEvents | None
    counts: Counter[str]
    actions: Counter[str]
    rows: Intake | None
    tail: pl.DataFrame | None
    rejected: SetAside


@dataclass(frozen=True)
class WriteEvents:
    """Maps the events of a partition to indices, and derives their request rows.

    Attributes:
        source: the source.
        taken: what was taken in.
        settings: of the intake of derived rows.
        indices: of raw ids.
        item_features: file of the items' categorical features, author and topic among them.
        timeline_partitions: of the store of timelines.
        tail_after: events after this moment (ms) are the tail; None where no rows are derived.
        spill: folder of temporary files.
    """

    source: Source
    taken: TakenIn
    settings: IntakeSettings
    indices: Indices
    item_features: Path
    timeline_partitions: int
    tail_after: int | None
    spill: Path

    def __call__(self, partition: int) -> WrittenEvents:
        """What became of the events of the partition."""
        rejected = SetAside()
        events = None
        if (found := self.taken.events(partition)) is not None:
            events, again = found
            rejected.add(again, DUPLICATED_EVENT)
        former = self.taken.tail.read(partition)
        rows, tail = None, None
        frames = [frame for frame in (former, events) if frame is not None]
        if self.tail_after is not None and frames:
            rows, tail = self._derive(frames, self.tail_after)
        if events is None:
            return WrittenEvents(None, Counter(), Counter(), rows, tail, rejected)
        is_shown = events[Column.ACTION_TYPE] == IMPRESSION
        implicit = int(is_shown.sum())
        undwelled = int((is_shown & events[Column.DWELL_TIME].is_null()).sum())
        counted = (implicit, undwelled, events.height - implicit)
        actions = dict(events[Column.ACTION_TYPE].value_counts().iter_rows())
        path = own_folder(self.spill) / "events"
        spilled = spill_events(self._mapped(partition, events), path, self.timeline_partitions)
        counts = Counter(dict(zip(EVENT_COUNTS, counted, strict=True)))
        return WrittenEvents(spilled, counts, Counter(actions), rows, tail, rejected)

    def _derive(
        self, frames: list[pl.DataFrame], tail_after: int
    ) -> tuple[Intake | None, pl.DataFrame]:
        """The rows that follow from events, and those whose labels may still come.

        Args:
            frames: the former tail of some users, and their new events.
            tail_after: ms.
        """
        events = pl.concat(frames, how="diagonal_relaxed")
        if self.taken.has_request_times:  # in the tail or in what has come
            stated = [Column.REQUEST_TIME] if Column.REQUEST_TIME in events.columns else []
            requested = pl.coalesce(*stated, Column.TIMESTAMP).alias(Column.REQUEST_TIME)
            events = events.with_columns(requested)
        intake = None
        if (rows := self.source.requests_from(events)) is not None:
            intake = Intake(own_folder(self.spill), self.settings, SetAside())
            intake.add_requests(rows)
            intake.close()
        is_late = pl.col(Column.TIMESTAMP) > tail_after
        return intake, events.filter(is_late).drop(Column.AUTHOR, Column.TOPIC, strict=False)

    def _mapped(self, partition: int, events: pl.DataFrame) -> pl.DataFrame:
        mapped = {short_name(name): self.indices.of(partition, events[name]) for name in ID_COLUMNS}
        item_features = np.load(self.item_features, mmap_mode="r")
        item = mapped["item"].to_numpy()
        for position, name in enumerate(("author", "topic"), start=1):
            of_item = pl.Series(item_features[item, position])
            unknown = mapped[name] == 0
            mapped[name] = mapped[name].zip_with(~unknown, of_item)
        names = self.settings.actions.names
        actions = events[Column.ACTION_TYPE].replace_strict(
            names, range(len(names)), return_dtype=pl.Int8
        )
        books = {book.column: book for book in self.taken.books}
        return pl.DataFrame(
            {
                **mapped,
                "timestamp": events[Column.TIMESTAMP],
                "media_type": books[Column.MEDIA_TYPE].encode(events[Column.MEDIA_TYPE]),
                "surface": books[Column.SURFACE].encode(events[Column.SURFACE]),
                "action_type": actions,
                "dwell_time": events[Column.DWELL_TIME],
                "video_duration": events[Column.VIDEO_DURATION],
            }
        )


def short_name(name: str) -> str:
    """``user_id`` is the column of raw ids, ``user`` that of indices."""
    return name.removesuffix("_id")


def own_folder(spill: Path) -> Path:
    """A folder that no other attempt at the same piece writes into."""
    return Path(mkdtemp(dir=spill, prefix="piece-"))

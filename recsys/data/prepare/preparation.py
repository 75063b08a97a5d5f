"""The steps from a source to the stores of a prepared data set, in two passes.

The first pass sets the rows down on the disk by user and collects the ids; the second reads the
users of one partition at a time, maps their ids and hands them to the stores.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import polars as pl

from recsys.core.engines import Engine
from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.actions import commonest_first
from recsys.data.contract.ids import as_ids
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.rejected import RejectedRows
from recsys.data.contract.schema import (
    ID_COLUMNS,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    Split,
    Task,
)
from recsys.data.prepare.intake import Intake, IntakeSettings
from recsys.data.prepare.item_embedding import write_embeddings
from recsys.data.prepare.pieces import (
    EVENT_COUNTS,
    HeldIndices,
    Indices,
    StoredIndices,
    TakeIn,
    WriteEvents,
    WrittenEvents,
    short_name,
)
from recsys.data.prepare.side_features import write_side
from recsys.data.prepare.spill import PartitionSpill
from recsys.data.prepare.split_requests import RequestRows, count_splits
from recsys.data.sources import Source
from recsys.data.stores.dataset import FEATURES, REQUESTS, TAIL, TIMELINES
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.tail import TailWriter, remove_other_tails
from recsys.data.stores.timelines import DEFAULT_PARTITIONS, TimelineWriter
from recsys.data.stores.vocabulary import RAW, FirstSeen, IdMode, Vocabulary, vocabulary_path

REJECTED = "rejected"
#: Among the counts: the last request of a source's own rows, ms.
LAST_REQUEST = "last_request_time"


class Preparation:
    """One preparation on its way; the methods are its steps, in order.

    Args:
        source: what is prepared.
        folder: where the stores go: an empty folder, or a copy of the data set that grows.
        spill: an empty folder for temporary files.
        settings: of taking in what the source gives.
        rejected: where rows go that cannot be used.
        engine: does the pieces.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        spill: Path,
        settings: IntakeSettings,
        rejected: RejectedRows,
        engine: Engine,
    ) -> None:
        self.source = source
        self.folder = folder
        self.spill = spill
        self.intake = Intake(spill, settings, rejected)
        self.engine = engine
        self.rejected = rejected
        self.vocabularies: dict[str, Vocabulary] = {}
        self.encoding = FeatureEncoding()
        self.features: list[Feature] = []
        self.counts: dict[str, int] = {}
        self.action_counts: Counter[str] = Counter()
        self.timeline_partitions = DEFAULT_PARTITIONS  # of a store that is there already its own
        self._users: PartitionSpill | None = None

    @classmethod
    def anew(
        cls,
        source: Source,
        folder: Path,
        spill: Path,
        num_partitions: int,
        timeline_partitions: int,
        engine: Engine,
    ) -> Self:
        """That of a new data set.

        Args:
            source: what is prepared.
            folder: an empty one.
            spill: an empty folder for temporary files.
            num_partitions: number of user partitions.
            timeline_partitions: of the timelines.
            engine: does the pieces.
        """
        settings = IntakeSettings(num_partitions, source.actions)
        rejected = RejectedRows(folder / rejected_folder(None))
        preparation = cls(source, folder, spill, settings, rejected, engine)
        preparation.timeline_partitions = timeline_partitions
        return preparation

    def run(self, mode: IdMode, hash_buckets: int) -> DatasetManifest:
        """Everything from the source's files to the manifest."""
        if (useless := self.source.why_useless()) is not None:
            raise DataError(useless)
        self._take_in_events()
        bounds = dict(self.source.split_bounds)
        self._take_in_requests()
        items = self.source.items()
        attributes = self.intake.attributes(items)
        seen = self._first_seen(attributes)
        self.vocabularies = {
            name: Vocabulary.build(seen[name].table(), mode, hash_buckets) for name in ID_COLUMNS
        }
        fit_end = bounds[Split.FIT][1]
        self._write_vocabularies(fit_end)
        self._write_features(items, attributes, fit_end)
        self._write_timelines(derive_requests=True)
        tasks = self.source.tasks if self.intake.has_requests else ()
        if not tasks and not self.counts["explicit_events"]:
            raise DataError(
                "the log has no action and no dwell_time, so there is nothing to predict: all its "
                "rows are impressions. If they are something a user did, say what: "
                "options.default_action=click. Otherwise give a log with other events, or with "
                "dwell times."
            )
        if tasks:
            self.features += self._rows(tasks, bounds).write(self.folder / REQUESTS)
            self.counts |= count_splits(self.folder / REQUESTS, bounds)
        else:
            shutil.rmtree(self.folder / TAIL, ignore_errors=True)
        self.encoding.save(self.folder / FEATURES)
        self.rejected.close()
        return DatasetManifest(
            name=self.source.name,
            source=self.source.name,
            tasks=tasks,
            features=tuple(self.features),
            vocabulary_sizes=self._sizes(),
            surfaces=tuple(self.intake.surfaces.names),
            media_types=tuple(self.intake.media_types.names),
            split_bounds={str(split): bound for split, bound in bounds.items()},
            counts=self.counts,
            rejected=dict(sorted(self.rejected.counts.items())),
            fingerprint="",
            action_types=self.intake.actions.names,
            negative_actions=tuple(sorted(self.intake.actions.negative)),
            action_counts=self._in_order(self.action_counts),
            unknown_actions=commonest_first(self.intake.unknown_actions),
            times=self.source.times,
        )

    @property
    def _own_requests(self) -> bool:
        """Whether rows come by the source's ``requests``, not from its events."""
        return self.source.label_window is None

    @property
    def _window(self) -> int:
        return self.source.label_window or 0

    @property
    def _after(self) -> int:
        """The last event of the data set that is appended to."""
        return self.intake.after or 0

    def _rows(self, tasks: tuple[Task, ...], bounds: dict[str, tuple[int, int]]) -> RequestRows:
        return RequestRows(
            self.source,
            tasks,
            self.intake.taken,
            self.rejected,
            self._indices(),
            self.encoding,
            bounds,
            self.spill,
            self.engine,
        )

    def _take_in_events(self) -> None:
        rows = self.engine.block_rows
        if rows is None:
            for frame in track(self.source.events(), "Reading events"):
                self.intake.add_events(frame)
        else:
            self._take_in(self.source.event_blocks(rows), requests=False)
        self.intake.finish_events()
        if self.intake.num_events == 0 and self.intake.after is None:
            raise DataError(f"source={self.source.name} holds no event; give other files.")
        self.counts["last_timestamp"] = self.intake.last_timestamp

    def _take_in_requests(self) -> None:
        """The rows of a source's own."""
        if self.engine.block_rows is None:
            for frame in track(self.source.requests(), "Reading requests"):
                self.intake.add_own_requests(frame)
        else:
            self._take_in(self.source.request_blocks(), requests=True)
        if self.intake.last_request is not None:
            self.counts[LAST_REQUEST] = self.intake.last_request

    def _take_in(self, blocks: Sequence[Any], requests: bool) -> None:
        """Have stretches of the source taken in, each by itself, and join what comes of them."""
        task = TakeIn(self.source, self.intake.settings, requests, self.spill.absolute())
        parts = self.engine.map(task, blocks)
        for part, learned in track(
            parts, "Reading requests" if requests else "Reading events", len(blocks)
        ):
            self.intake.merge(part)
            self.source.learn(learned)

    def _first_seen(self, attributes: pl.DataFrame) -> dict[str, FirstSeen]:
        """First sight of every id; an item shows its author and topic when it is first seen.

        Appended days may state others of an item that they have no event of: from then on.
        """
        seen = self.intake.seen
        table = seen[Column.ITEM].table()
        if Column.ITEM in self.vocabularies:
            known = self.vocabularies[Column.ITEM].table[RAW]
            before = pl.DataFrame({RAW: as_ids(known, table.schema[RAW])})
            before = before.join(table, on=RAW, how="anti")
            table = pl.concat([table, before.with_columns(first_seen=pl.lit(self._after + 1))])
        shown = attributes.join(table, left_on=Column.ITEM, right_on=RAW, how="inner")
        for name in (Column.AUTHOR, Column.TOPIC):
            seen[name].add(shown[name], shown["first_seen"])
        return seen

    def _write_vocabularies(self, fit_end: int) -> None:
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(self._vocabulary_path(name))
            short = short_name(name)
            self.counts[f"fit_vocabulary_{short}"] = vocabulary.known_before(fit_end)
            self.counts[f"collisions_{short}"] = vocabulary.collisions
        self.counts["users"] = self.vocabularies[Column.USER].table.height
        self.counts["items"] = self.vocabularies[Column.ITEM].table.height

    def _write_features(
        self, items: pl.DataFrame | None, attributes: pl.DataFrame, fit_end: int | None
    ) -> None:
        folder = self.folder / FEATURES
        for side, stated in ((FeatureSide.USER, self.source.users()), (FeatureSide.ITEM, items)):
            written = write_side(
                folder,
                side,
                self.source,
                stated,
                attributes if side is FeatureSide.ITEM else None,
                self.vocabularies,
                self.encoding,
                fit_end,
            )
            self.features += written.features
            self.counts |= written.counts
        embeddings = write_embeddings(
            folder,
            self.source.item_embeddings(),
            self.vocabularies[Column.ITEM],
            FeatureSide.ITEM in self.source.first_known,
        )
        if embeddings is not None:
            self.counts["items_with_embedding"] = embeddings

    def _write_timelines(self, derive_requests: bool) -> None:
        self.counts.update(dict.fromkeys(EVENT_COUNTS, 0))
        timelines = TimelineWriter(self.folder / TIMELINES, self.timeline_partitions)
        with timelines as writer, TailWriter(self.folder) as tail:
            derive = derive_requests and not self._own_requests
            write = self._event_writer(derive, writer.num_partitions)
            partitions = range(self.intake.settings.num_partitions)
            spilled = []
            for partition, written in enumerate(
                track(self.engine.map(write, partitions), "Writing timelines", len(partitions))
            ):
                write.taken.drop_events(partition)
                self._note(written, tail)
                if written.spilled is not None:
                    spilled.append(written.spilled)
            self.counts["events"] = writer.append_spilled(spilled, self.engine)
        for piece in spilled:
            piece.path.unlink()
        if derive_requests:
            remove_other_tails(self.folder, tail.path)
        self.intake.finish_requests()

    def _event_writer(self, derive: bool, timeline_partitions: int) -> WriteEvents:
        """What writes the events of a partition.

        Args:
            derive: request rows too.
            timeline_partitions: of the store of timelines.
        """
        categorical = self.folder / FEATURES / f"{FeatureSide.ITEM}_{FeatureKind.CATEGORICAL}.npy"
        return WriteEvents(
            self.source,
            self.intake.taken,
            self.intake.settings,
            self._indices(),
            categorical.absolute(),
            timeline_partitions,
            self.counts["last_timestamp"] - self._window if derive else None,
            self.spill.absolute(),
        )

    def _note(self, written: WrittenEvents, tail: TailWriter) -> None:
        """Join what became of the events of a partition with what became of those before."""
        self.rejected.take(written.rejected)
        if written.rows is not None:
            self.intake.merge(written.rows)
        if written.tail is not None:
            tail.add(written.tail)
        self.action_counts.update(written.actions)
        for name, count in written.counts.items():
            self.counts[name] += count

    def _indices(self) -> Indices:
        """The indices of raw ids; processes of their own read those that they need."""
        if self.engine.block_rows is None:
            return HeldIndices(self.vocabularies)
        if self._users is None:
            folder = self.spill / "users"
            self._users = PartitionSpill(folder, RAW, self.intake.settings.num_partitions)
            self._users.add(self.vocabularies[Column.USER].table)
            self._users.finish()
        paths = {name: self._vocabulary_path(name).absolute() for name in ID_COLUMNS}
        return StoredIndices(paths, self._users)

    def _in_order(self, counts: Counter[str]) -> dict[str, int]:
        """Counts by action type, in the order of their codes."""
        return {name: counts[name] for name in self.intake.actions.names if counts[name]}

    def _sizes(self) -> dict[str, int]:
        return {short_name(name): vocabulary.size for name, vocabulary in self.vocabularies.items()}

    def _vocabulary_path(self, name: str) -> Path:
        return vocabulary_path(self.folder, short_name(name))


def rejected_folder(existing: DatasetManifest | None) -> Path:
    """Where a preparation writes rejected rows, below the data set's folder.

    Args:
        existing: the data set that is appended to.
    """
    if existing is None:
        return Path(REJECTED)
    return Path(REJECTED) / f"after_{existing.counts['last_timestamp']}"

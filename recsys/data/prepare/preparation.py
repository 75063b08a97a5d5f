"""The steps from a source to the stores of a prepared data set, in two passes.

The first pass sets the rows down on the disk by user and collects the ids; the second reads the
users of one partition at a time, maps their ids and hands them to the stores.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.ids import as_ids
from recsys.data.contract.manifest import WITHOUT_DWELL, DatasetManifest
from recsys.data.contract.rejected import RejectedRows
from recsys.data.contract.schema import (
    ID_COLUMNS,
    IMPRESSION,
    Column,
    Feature,
    FeatureSide,
    Split,
    Task,
)
from recsys.data.prepare.intake import Intake
from recsys.data.prepare.item_embedding import write_embeddings
from recsys.data.prepare.side_features import write_side
from recsys.data.prepare.split_requests import RequestRows, count_splits
from recsys.data.sources import Source
from recsys.data.stores.dataset import FEATURES, REQUESTS, TAIL, TIMELINES
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.tail import TailWriter, remove_other_tails
from recsys.data.stores.timelines import TimelineWriter
from recsys.data.stores.vocabulary import RAW, FirstSeen, IdMode, Vocabulary, vocabulary_path

REJECTED = "rejected"
#: Among the counts: the last request of a source's own rows, ms.
LAST_REQUEST = "last_request_time"
EVENT_COUNTS = ("implicit_events", WITHOUT_DWELL, "explicit_events")


class Preparation:
    """One preparation on its way; the methods are its steps, in order.

    Args:
        source: what is prepared.
        folder: where the stores go: an empty folder, or a copy of the data set that grows.
        intake: takes in what the source gives.
    """

    def __init__(self, source: Source, folder: Path, intake: Intake) -> None:
        self.source = source
        self.folder = folder
        self.intake = intake
        self.rejected = intake.rejected
        self.vocabularies: dict[str, Vocabulary] = {}
        self.encoding = FeatureEncoding()
        self.features: list[Feature] = []
        self.item_ids: NDArray[np.int32] = np.empty((0, 0), np.int32)
        self.counts: dict[str, int] = {}
        self.action_counts: Counter[str] = Counter()

    @classmethod
    def anew(cls, source: Source, folder: Path, spill: Path, num_partitions: int) -> Self:
        """That of a new data set.

        Args:
            source: what is prepared.
            folder: an empty one.
            spill: an empty folder for temporary files.
            num_partitions: number of user partitions.
        """
        rejected = RejectedRows(folder / rejected_folder(None))
        return cls(source, folder, Intake(spill, num_partitions, rejected, actions=source.actions))

    def run(self, mode: IdMode, hash_buckets: int) -> DatasetManifest:
        """Everything from the source's files to the manifest."""
        if (useless := self.source.why_useless()) is not None:
            raise DataError(useless)
        self._take_in_events()
        bounds = dict(self.source.split_bounds)
        for frame in track(self.source.requests(), "Reading requests"):
            self._add_own_requests(frame)
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
            unknown_actions=dict(self.intake.unknown_actions.most_common()),
            times=self.source.times,
        )

    def _add_own_requests(self, frame: pl.DataFrame) -> None:
        self.intake.add_requests(frame)
        last = int(frame[Column.REQUEST_TIME].max() or 0)  # type: ignore[arg-type]
        self.counts[LAST_REQUEST] = max(self.counts.get(LAST_REQUEST, 0), last)

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
            self.source, tasks, self.intake, self.vocabularies, self.encoding, bounds
        )

    def _take_in_events(self) -> None:
        for frame in track(self.source.events(), "Reading events"):
            self.intake.add_events(frame)
        self.intake.finish_events()
        if self.intake.num_events == 0 and self.intake.after is None:
            raise DataError(f"source={self.source.name} holds no event; give other files.")
        self.counts["last_timestamp"] = self.intake.last_timestamp

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
        self.item_ids = written.categorical
        embeddings = write_embeddings(
            folder,
            self.source.item_embeddings(),
            self.vocabularies[Column.ITEM],
            FeatureSide.ITEM in self.source.first_known,
        )
        if embeddings is not None:
            self.counts["items_with_embedding"] = embeddings

    def _write_timelines(self, derive_requests: bool) -> None:
        with TimelineWriter(self.folder / TIMELINES) as writer, TailWriter(self.folder) as tail:
            mapped = self._mapped_events(tail if derive_requests else None)
            self.counts["events"] = writer.append(mapped)
        if derive_requests:
            remove_other_tails(self.folder, tail.path)
        self.intake.finish_requests()

    def _mapped_events(self, tail: TailWriter | None) -> Iterator[pl.DataFrame]:
        """The events by partition; their request rows are taken in where ``tail`` is given."""
        self.counts.update(dict.fromkeys(EVENT_COUNTS, 0))
        partitions = range(self.intake.num_partitions)
        for partition in track(partitions, "Writing timelines"):
            events = self.intake.read_events(partition)
            former = self.intake.read_tail(partition)
            self.intake.drop_events(partition)
            if tail is not None and not self._own_requests:
                self._derive_requests([one for one in (former, events) if one is not None], tail)
            if events is None:
                continue
            is_shown = events[Column.ACTION_TYPE] == IMPRESSION
            implicit = int(is_shown.sum())
            undwelled = int((is_shown & events[Column.DWELL_TIME].is_null()).sum())
            self.counts["implicit_events"] += implicit
            self.counts[WITHOUT_DWELL] += undwelled
            self.counts["explicit_events"] += events.height - implicit
            self.action_counts.update(dict(events[Column.ACTION_TYPE].value_counts().iter_rows()))
            yield self._map_events(events)

    def _derive_requests(self, frames: list[pl.DataFrame], tail: TailWriter) -> None:
        """Take in the rows that follow from events, and keep those whose labels may still come.

        Args:
            frames: the former tail of some users, and their new events.
            tail: what is kept.
        """
        if not frames:
            return
        events = pl.concat(frames, how="diagonal_relaxed")
        if self.intake.has_request_times:  # in the tail or in what has come
            stated = [Column.REQUEST_TIME] if Column.REQUEST_TIME in events.columns else []
            requested = pl.coalesce(*stated, Column.TIMESTAMP).alias(Column.REQUEST_TIME)
            events = events.with_columns(requested)
        rows = self.source.requests_from(events)
        if rows is not None:
            self.intake.add_requests(rows)
        is_late = pl.col(Column.TIMESTAMP) > self.counts["last_timestamp"] - self._window
        tail.add(events.filter(is_late).drop(Column.AUTHOR, Column.TOPIC, strict=False))

    def _map_events(self, events: pl.DataFrame) -> pl.DataFrame:
        mapped = {
            short_name(name): self.vocabularies[name].indices(events[name]) for name in ID_COLUMNS
        }
        item = mapped["item"].to_numpy()
        for position, name in enumerate(("author", "topic"), start=1):
            of_item = pl.Series(self.item_ids[item, position])
            unknown = mapped[name] == 0
            mapped[name] = mapped[name].zip_with(~unknown, of_item)
        names = self.intake.actions.names
        actions = events[Column.ACTION_TYPE].replace_strict(
            names, range(len(names)), return_dtype=pl.Int8
        )
        return pl.DataFrame(
            {
                **mapped,
                "timestamp": events[Column.TIMESTAMP],
                "media_type": self.intake.media_types.encode(events[Column.MEDIA_TYPE]),
                "surface": self.intake.surfaces.encode(events[Column.SURFACE]),
                "action_type": actions,
                "dwell_time": events[Column.DWELL_TIME],
                "video_duration": events[Column.VIDEO_DURATION],
            }
        )

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


def short_name(name: str) -> str:
    """``user_id`` is the column of raw ids, ``user`` that of indices."""
    return name.removesuffix("_id")

"""The steps from a source to the stores of a prepared data set, in two passes.

The first pass sets the rows down on the disk by user and collects the ids; the second reads the
users of one partition at a time, maps their ids and hands them to the stores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.manifest import WITHOUT_DWELL, DatasetManifest
from recsys.data.contract.rejected import RejectedRows
from recsys.data.contract.schema import (
    ID_COLUMNS,
    IMPRESSION,
    Column,
    Feature,
    FeatureSide,
    Split,
)
from recsys.data.prepare.intake import Intake
from recsys.data.prepare.item_embedding import write_embeddings
from recsys.data.prepare.side_features import write_side
from recsys.data.prepare.split_requests import write_splits
from recsys.data.sources import Source
from recsys.data.stores.dataset import FEATURES, REQUESTS, TIMELINES
from recsys.data.stores.encoding import FeatureEncoding, list_feature
from recsys.data.stores.timelines import TimelineWriter
from recsys.data.stores.vocabulary import RAW, FirstSeen, IdMode, Vocabulary, vocabulary_path

REJECTED = "rejected"

_EVENT_COUNTS = ("implicit_events", WITHOUT_DWELL, "explicit_events")


class Preparation:
    """One preparation on its way; the methods are its steps, in order.

    Args:
        source: what is prepared.
        folder: where the stores go: an empty folder, or a copy of the data set appended to.
        spill: an empty folder for temporary files.
        num_partitions: number of user partitions.
        existing: the data set that is appended to.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        spill: Path,
        num_partitions: int,
        existing: DatasetManifest | None = None,
    ) -> None:
        self.source = source
        self.folder = folder
        self.rejected = RejectedRows(folder / rejected_folder(existing))
        self.vocabularies: dict[str, Vocabulary] = {}
        if existing is None:
            self.intake = Intake(spill, num_partitions, self.rejected, actions=source.actions)
        else:
            after = existing.counts["last_timestamp"]
            names = (existing.surfaces, existing.media_types)
            self.vocabularies = {
                name: Vocabulary.load(self._vocabulary_path(name)) for name in ID_COLUMNS
            }
            types = {
                name: known.table.schema[RAW]
                for name, known in self.vocabularies.items()
                if known.table.height
            }
            actions = existing.actions.extended(source.actions)
            self.intake = Intake(
                spill, num_partitions, self.rejected, *names, after, types, actions
            )
        self.encoding = FeatureEncoding()
        self.features: list[Feature] = []
        self.item_ids: NDArray[np.int32] = np.empty((0, 0), np.int32)
        self.counts: dict[str, int] = {}
        self.action_counts: Counter[str] = Counter()

    def run(self, mode: IdMode, hash_buckets: int) -> DatasetManifest:
        """Everything from the source's files to the manifest."""
        if (useless := self.source.why_useless()) is not None:
            raise DataError(useless)
        self._take_in_events()
        bounds = dict(self.source.split_bounds)
        for frame in track(self.source.requests(), "Reading requests"):
            self.intake.add_requests(frame)
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
            written = write_splits(
                self.folder / REQUESTS,
                self.source,
                self.intake,
                self.vocabularies,
                self.encoding,
                bounds,
            )
            self.features += written.features
            self.counts |= written.counts
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

    def run_append(self, existing: DatasetManifest) -> DatasetManifest:
        """New events, ids and feature rows behind what ``existing`` describes."""
        self.encoding = FeatureEncoding.load(self.folder / FEATURES)
        self._refuse_other_features(existing)
        self._take_in_events()
        items = self.source.items()
        attributes = self.intake.attributes(items)
        seen = self._first_seen(attributes)
        for name in ID_COLUMNS:
            self.vocabularies[name] = self.vocabularies[name].grow(seen[name].table())
        fit_end = existing.split_bounds[Split.FIT][1]
        self._write_vocabularies(fit_end)
        self._write_features(items, attributes, None)
        self._write_timelines(derive_requests=False)
        self.rejected.close()
        counts = dict(existing.counts)
        for name, count in self.counts.items():
            is_sum = name in ("events", *_EVENT_COUNTS)
            counts[name] = counts.get(name, 0) + count if is_sum else count
        total = {
            reason: existing.rejected.get(reason, 0) + self.rejected.counts.get(reason, 0)
            for reason in sorted(existing.rejected.keys() | self.rejected.counts.keys())
        }
        unknown = Counter(existing.unknown_actions) + self.intake.unknown_actions
        actions = Counter(existing.action_counts) + self.action_counts
        sizes = self._sizes()
        features = tuple(
            replace(f, cardinality=sizes[_short(f.name)]) if f.name in ID_COLUMNS else f
            for f in existing.features
        )
        return replace(
            existing,
            features=features,
            vocabulary_sizes=sizes,
            surfaces=tuple(self.intake.surfaces.names),
            media_types=tuple(self.intake.media_types.names),
            counts=counts,
            rejected=total,
            action_types=self.intake.actions.names,
            negative_actions=tuple(sorted(self.intake.actions.negative)),
            action_counts=self._in_order(actions) if existing.action_counts else {},
            unknown_actions=dict(unknown.most_common()),
        )

    def _take_in_events(self) -> None:
        for frame in track(self.source.events(), "Reading events"):
            self.intake.add_events(frame)
        self.intake.finish_events()
        if self.intake.num_events == 0:
            if self.intake.after is not None:
                raise DataError(
                    "no event is later than the last one of the data set; nothing was appended."
                )
            raise DataError(f"source={self.source.name} holds no event; give other files.")
        self.counts["last_timestamp"] = self.intake.last_timestamp

    def _first_seen(self, attributes: pl.DataFrame) -> dict[str, FirstSeen]:
        """First sight of every id; an item shows its author and topic when it is first seen."""
        seen = self.intake.seen
        table = seen[Column.ITEM].table()
        shown = attributes.join(table, left_on=Column.ITEM, right_on=RAW, how="inner")
        for name in (Column.AUTHOR, Column.TOPIC):
            seen[name].add(shown[name], shown["first_seen"])
        return seen

    def _write_vocabularies(self, fit_end: int) -> None:
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(self._vocabulary_path(name))
            short = _short(name)
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
            folder, self.source.item_embeddings(), self.vocabularies[Column.ITEM]
        )
        if embeddings is not None:
            self.counts["items_with_embedding"] = embeddings

    def _refuse_other_features(self, existing: DatasetManifest) -> None:
        """Refuse days that state other things of users and items than the data set has."""
        for side in (FeatureSide.USER, FeatureSide.ITEM):
            given = {f.name for f in self.source.features if f.side is side}
            for name in self.source.lists.get(side, ()):
                values = self.encoding.lists.get(name)
                given |= {name} if values is None else {list_feature(name, v) for v in values}
            known = {
                f.name for f in existing.features if f.side is side and f.name not in ID_COLUMNS
            }
            if other := sorted(known ^ given):
                raise DataError(
                    f"the data set has other features of {side}s than these options give "
                    f"({', '.join(other)}); append with the options it was prepared with, or "
                    "prepare the whole log again with overwrite=true."
                )

    def _write_timelines(self, derive_requests: bool) -> None:
        with TimelineWriter(self.folder / TIMELINES) as writer:
            self.counts["events"] = writer.append(self._mapped_events(derive_requests))
        self.intake.finish_requests()

    def _mapped_events(self, derive_requests: bool) -> Iterator[pl.DataFrame]:
        self.counts.update(dict.fromkeys(_EVENT_COUNTS, 0))
        partitions = range(self.intake.num_partitions)
        for partition in track(partitions, "Writing timelines"):
            events = self.intake.read_events(partition)
            if events is None:
                continue
            self.intake.drop_events(partition)
            if derive_requests:
                rows = self.source.requests_from(events)
                if rows is not None:
                    self.intake.add_requests(rows)
            is_shown = events[Column.ACTION_TYPE] == IMPRESSION
            implicit = int(is_shown.sum())
            undwelled = int((is_shown & events[Column.DWELL_TIME].is_null()).sum())
            self.counts["implicit_events"] += implicit
            self.counts[WITHOUT_DWELL] += undwelled
            self.counts["explicit_events"] += events.height - implicit
            self.action_counts.update(dict(events[Column.ACTION_TYPE].value_counts().iter_rows()))
            yield self._map_events(events)

    def _map_events(self, events: pl.DataFrame) -> pl.DataFrame:
        mapped = {
            _short(name): self.vocabularies[name].indices(events[name]) for name in ID_COLUMNS
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
        return {_short(name): vocabulary.size for name, vocabulary in self.vocabularies.items()}

    def _vocabulary_path(self, name: str) -> Path:
        return vocabulary_path(self.folder, _short(name))


def rejected_folder(existing: DatasetManifest | None) -> Path:
    """Where a preparation writes rejected rows, below the data set's folder.

    Args:
        existing: the data set that is appended to.
    """
    if existing is None:
        return Path(REJECTED)
    return Path(REJECTED) / f"after_{existing.counts['last_timestamp']}"


def _short(name: str) -> str:
    """``user_id`` is the column of raw ids, ``user`` that of indices."""
    return name.removesuffix("_id")

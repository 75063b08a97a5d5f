"""A data set that grows: what is later than its last event, behind what is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from recsys.core.engines import Engine
from recsys.core.errors import DataError
from recsys.data.contract.actions import commonest_first
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import to_text
from recsys.data.contract.rejected import RejectedRows
from recsys.data.contract.schema import ID_COLUMNS, Split
from recsys.data.prepare.intake import IntakeSettings
from recsys.data.prepare.pieces import EVENT_COUNTS, short_name
from recsys.data.prepare.preparation import LAST_REQUEST, Preparation, rejected_folder
from recsys.data.prepare.split_requests import AddedRows, count_splits
from recsys.data.sources import Source
from recsys.data.stores.dataset import FEATURES, REQUESTS
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.tail import read_tail
from recsys.data.stores.vocabulary import RAW, Vocabulary, vocabulary_path


class NothingNewError(Exception):
    """An append that found nothing later than what is there.

    Attributes:
        counts: rows that were read, by why they were left out.
    """

    def __init__(self, counts: dict[str, int]) -> None:
        super().__init__("nothing is new")
        self.counts = counts


class Growth(Preparation):
    """The preparation of days that are added to a data set.

    Args:
        source: gives the days, alone or with those that are prepared already.
        folder: a copy of the data set.
        spill: an empty folder for temporary files.
        num_partitions: number of user partitions.
        existing: what the data set holds.
        engine: does the pieces.

    Attributes:
        added: what has come of request rows.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        spill: Path,
        num_partitions: int,
        existing: DatasetManifest,
        engine: Engine,
    ) -> None:
        vocabularies = {
            name: Vocabulary.load(vocabulary_path(folder, short_name(name))) for name in ID_COLUMNS
        }
        settings = IntakeSettings(
            num_partitions,
            existing.actions.extended(source.actions),
            existing.surfaces,
            existing.media_types,
            {
                name: known.table.schema[RAW]
                for name, known in vocabularies.items()
                if known.table.height
            },
            existing.counts["last_timestamp"],
            existing.counts.get(LAST_REQUEST),
        )
        rejected = RejectedRows(folder / rejected_folder(existing))
        super().__init__(source, folder, spill, settings, rejected, engine)
        self.vocabularies = vocabularies
        self.existing = existing
        self.added = AddedRows()

    def grow(self) -> DatasetManifest:
        """New events, ids, feature rows and request rows behind those that are there.

        Indices and encodings stay; the splits are those of the log that has grown.

        Raises:
            NothingNewError: nothing is later than what is there.
            DataError: a split has no rows.
        """
        existing = self.existing
        has_rows = bool(existing.tasks)
        self.encoding = FeatureEncoding.load(self.folder / FEATURES)
        for frame in read_tail(self.folder, existing):
            self.intake.add_tail(frame)
        self._take_in_events()
        if has_rows:
            self._take_in_requests()
        if not self.intake.num_events and not self.intake.has_requests:
            raise NothingNewError(self.rejected.counts)
        last = max(self.intake.last_timestamp, existing.counts["last_timestamp"])
        self.counts["last_timestamp"] = last
        bounds = self._grown_bounds(last)
        items = self.source.items()
        attributes = self.intake.attributes(items)
        seen = self._first_seen(attributes)
        for name in ID_COLUMNS:
            self.vocabularies[name] = self.vocabularies[name].grow(seen[name].table())
        self._write_vocabularies(bounds[Split.FIT][1])
        self._write_features(items, attributes, None)
        self._write_timelines(derive_requests=has_rows)
        if has_rows:
            self.added = self._rows(existing.tasks, bounds).add(
                self.folder / REQUESTS,
                existing.counts[LAST_REQUEST] if self._own_requests else self._after,
                None if self._own_requests else self._after - self._window,
            )
            self.counts |= count_splits(self.folder / REQUESTS, bounds)
        self.rejected.close()
        return self._grown(bounds)

    def _grown_bounds(self, last: int) -> dict[str, tuple[int, int]]:
        """The splits of the log that has grown; no row of a trained model comes back to choose.

        Raises:
            DataError: they would begin earlier than they did.
        """
        existing = self.existing
        first = existing.split_bounds[Split.FIT][0]
        bounds = dict(self.source.bounds_over(first, last))
        for split, (begin, _) in bounds.items():
            former = existing.split_bounds[split][0]
            if begin < former:
                raise DataError(
                    f"the {split} period would begin at {to_text(begin)}, before the "
                    f"{to_text(former)} of the data set, so that rows which models were trained on "
                    "would be measured; prepare the whole log again with overwrite=true."
                )
        return bounds

    def _grown(self, bounds: dict[str, tuple[int, int]]) -> DatasetManifest:
        existing = self.existing
        counts = dict(existing.counts)
        for name, count in self.counts.items():
            is_sum = name in ("events", *EVENT_COUNTS)
            counts[name] = counts.get(name, 0) + count if is_sum else count
        total = {
            reason: existing.rejected.get(reason, 0) + self.rejected.counts.get(reason, 0)
            for reason in sorted(existing.rejected.keys() | self.rejected.counts.keys())
        }
        unknown = Counter(existing.unknown_actions) + self.intake.unknown_actions
        actions = Counter(existing.action_counts) + self.action_counts
        sizes = self._sizes()
        features = tuple(
            replace(f, cardinality=sizes[short_name(f.name)]) if f.name in ID_COLUMNS else f
            for f in existing.features
        )
        return replace(
            existing,
            features=features,
            vocabulary_sizes=sizes,
            surfaces=tuple(self.intake.surfaces.names),
            media_types=tuple(self.intake.media_types.names),
            split_bounds={str(split): bound for split, bound in bounds.items()},
            counts=counts,
            rejected=total,
            action_types=self.intake.actions.names,
            negative_actions=tuple(sorted(self.intake.actions.negative)),
            action_counts=self._in_order(actions) if existing.action_counts else {},
            unknown_actions=commonest_first(unknown),
        )

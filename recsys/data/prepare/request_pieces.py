"""The pieces of writing request rows that any process can do: one partition of users each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.data.contract.rejected import DUPLICATED_REQUEST, SetAside
from recsys.data.contract.schema import (
    PROPENSITY,
    SHOWN_AT,
    Column,
    Feature,
    FeatureKind,
)
from recsys.data.prepare.pieces import Indices, own_folder
from recsys.data.prepare.request_spill import RequestColumns, SpilledRequests, spill_requests
from recsys.data.prepare.spill import PartitionSpill
from recsys.data.prepare.taken_in import TakenIn, parted
from recsys.data.stores.encoding import FeatureEncoding, SeenValues
from recsys.data.stores.requests import TRUTHS

Bounds = Mapping[str, tuple[int, int]]

_REQUESTED = Column.REQUEST_TIME
OUTSIDE = "request row: outside every split"


@dataclass(frozen=True)
class LookedThrough:
    """What the request rows of a partition hold.

    Attributes:
        columns: of the rows.
        seen: what the context of the fit split holds.
        rejected: rows that are there twice.
        unique: the rows without those; None where there are none.
    """

    columns: list[str]
    seen: SeenValues
    rejected: SetAside
    unique: PartitionSpill | None


@dataclass(frozen=True)
class LookThrough:
    """Looks through the request rows of a partition before they are written.

    Attributes:
        taken: holds the rows.
        context: the context features.
        fit: ``[first, last)`` request time of the fit split, ms.
        spill: folder of temporary files.
    """

    taken: TakenIn
    context: tuple[Feature, ...]
    fit: tuple[int, int]
    spill: Path

    def __call__(self, partition: int) -> LookedThrough | None:
        """What they hold; None where there are none."""
        rows = self.taken.requests(partition)
        if rows is None:
            return None
        rejected, unique = SetAside(), None
        rows, again = parted(rows)
        if not again.is_empty():
            rejected.add(again, DUPLICATED_REQUEST)
            folder = own_folder(self.spill) / "unique"
            unique = PartitionSpill(folder, Column.USER, self.taken.num_partitions)
            unique.add(rows)
            unique.finish()
        seen = SeenValues.of(self.context)
        seen.add(rows.filter(pl.col(_REQUESTED).is_between(*self.fit, closed="left")))
        return LookedThrough(rows.columns, seen, rejected, unique)


@dataclass(frozen=True)
class WrittenRequests:
    """What became of the request rows of a partition.

    Attributes:
        spilled: the rows, for the store.
        rejected: rows outside every split.
        rows: new ones by split.
        unknown: new ones with a value of a context feature that its encoding does not know.
        labels: sum of each task's labels over rows that are not new.
    """

    spilled: SpilledRequests
    rejected: SetAside
    rows: Counter[str]
    unknown: Counter[str]
    labels: Counter[str]


@dataclass(frozen=True)
class WriteRequests:
    """Maps the request rows of a partition to indices and sets them down for the store.

    Attributes:
        taken: holds the rows.
        columns: of the store.
        present: its optional arrays.
        context: the context features.
        indices: of raw ids.
        encoding: of the context features.
        bounds: per split ``[first, last)`` request time in ms.
        after: rows shown after this moment (ms) are new; None where nothing is counted.
        spill: folder of temporary files.
    """

    taken: TakenIn
    columns: RequestColumns
    present: tuple[str, ...]
    context: tuple[Feature, ...]
    indices: Indices
    encoding: FeatureEncoding
    bounds: Bounds
    after: int | None
    spill: Path

    def __call__(self, partition: int) -> WrittenRequests | None:
        """What became of them; None where there are none."""
        rows = self.taken.requests(partition)
        if rows is None:
            return None
        time = pl.col(_REQUESTED)
        inside = pl.any_horizontal(
            *(time.is_between(*bound, closed="left") for bound in self.bounds.values())
        )
        rejected = SetAside()
        rejected.add(rows.filter(~inside), OUTSIDE)
        rows = rows.filter(inside)
        mapped = self._mapped(partition, rows)
        path = own_folder(self.spill) / "requests"
        spilled = spill_requests(mapped, self.columns, self.present, path)
        written = WrittenRequests(spilled, rejected, Counter(), Counter(), Counter())
        if self.after is not None:
            self._count(written, rows, mapped, self.after)
        return written

    def _count(
        self, written: WrittenRequests, rows: pl.DataFrame, mapped: pl.DataFrame, after: int
    ) -> None:
        """Count rows, as they came and as they are written."""
        is_new = rows[SHOWN_AT if SHOWN_AT in rows.columns else _REQUESTED] > after
        for task in self.columns.tasks:
            written.labels[task] += int(mapped[f"label_{task}"].filter(~is_new).sum() or 0)
        rows, mapped = rows.filter(is_new), mapped.filter(is_new)
        for split, bound in self.bounds.items():
            in_split = rows[_REQUESTED].is_between(*bound, closed="left")
            written.rows[str(split)] += int(in_split.sum())
        for feature in self.context:
            if feature.kind is FeatureKind.CATEGORICAL:
                is_unknown = (mapped[feature.name] == 0) & rows[feature.name].is_not_null()
                written.unknown[feature.name] += int(is_unknown.sum())

    def _mapped(self, partition: int, rows: pl.DataFrame) -> pl.DataFrame:
        kept = [f"label_{task}" for task in self.columns.tasks]
        kept += [f"{truth}_{task}" for truth in TRUTHS for task in self.columns.tasks]
        kept += [SHOWN_AT, PROPENSITY]
        return pl.DataFrame(
            [
                self.indices.of(partition, rows[Column.USER]).alias("user"),
                self.indices.of(partition, rows[Column.ITEM]).alias("item"),
                rows[_REQUESTED].alias("request_time"),
                *(rows[name] for name in kept if name in rows.columns),
                *(self.encoding.encode(rows[feature.name], feature) for feature in self.context),
            ]
        )

"""Request rows taken in, mapped to indices and written; which of them belong to which split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import (
    PROPENSITY,
    SHOWN_AT,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    Split,
    Task,
    TaskKind,
)
from recsys.data.prepare.intake import Intake
from recsys.data.prepare.request_writer import extend_requests, write_requests
from recsys.data.prepare.side_features import with_cardinality
from recsys.data.sources import Source
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.requests import TRUTHS, RequestStore
from recsys.data.stores.vocabulary import Vocabulary

_REQUESTED = Column.REQUEST_TIME

Bounds = Mapping[str, tuple[int, int]]


@dataclass
class AddedRows:
    """What an append has added to the request rows.

    Attributes:
        rows: new ones by split.
        derived_again: rows whose labels could still come, so that they were made again.
        completed: labels among these that were 0 and are 1 now, by task.
        unknown: new rows with a value of a context feature that its encoding does not know.
    """

    rows: Counter[str] = field(default_factory=Counter)
    derived_again: int = 0
    completed: dict[str, int] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)


class RequestRows:
    """The rows of an intake on their way into the request store.

    Args:
        source: names the context features.
        tasks: the labels, in order.
        intake: holds the rows.
        vocabularies: of every id column.
        encoding: of the context features.
        bounds: per split ``[first, last)`` request time in ms.
    """

    def __init__(
        self,
        source: Source,
        tasks: tuple[Task, ...],
        intake: Intake,
        vocabularies: Mapping[str, Vocabulary],
        encoding: FeatureEncoding,
        bounds: Bounds,
    ) -> None:
        self.context = [f for f in source.features if f.side == FeatureSide.CONTEXT]
        self.tasks = tasks
        self.intake = intake
        self.vocabularies = vocabularies
        self.encoding = encoding
        self.bounds = bounds

    def write(self, folder: Path) -> list[Feature]:
        """Write a new store, the encoding learned from the fit split; returns the features.

        Rows outside every split are set aside.

        Args:
            folder: of the store.
        """
        self.intake.remove_duplicated_requests()
        time = pl.col(Column.REQUEST_TIME)
        in_fit = time.is_between(*self.bounds[Split.FIT], closed="left")
        learned_from = (rows.filter(in_fit) for rows in self._partitions("Learning the context"))
        self.encoding.fit(self.context, learned_from)
        names = {
            kind: [feature.name for feature in self.context if feature.kind == kind]
            for kind in FeatureKind
        }
        write_requests(
            folder,
            (self._mapped(rows) for rows in self._inside()),
            self.tasks,
            names[FeatureKind.CATEGORICAL],
            names[FeatureKind.DENSE],
        )
        return [with_cardinality(feature, self.encoding) for feature in self.context]

    def add(self, folder: Path, after: int, replaced_after: int | None) -> AddedRows:
        """Add rows to a store, encoded as those there; rows outside every split are set aside.

        Args:
            folder: of the store.
            after: rows shown after this moment (ms) are new, the others are there already.
            replaced_after: those that were shown after this moment are there to be replaced.
        """
        self.intake.remove_duplicated_requests()
        added = AddedRows(rows=Counter(dict.fromkeys(map(str, self.bounds), 0)))
        labels: Counter[str] = Counter()

        def counted() -> Iterator[pl.DataFrame]:
            for rows in self._inside():
                mapped = self._mapped(rows)
                is_new = rows[SHOWN_AT if SHOWN_AT in rows.columns else _REQUESTED] > after
                self._count(added, rows.filter(is_new), mapped.filter(is_new))
                for task in self.tasks:
                    labels[task.name] += int(mapped[task.column].filter(~is_new).sum() or 0)
                yield mapped

        extended = extend_requests(folder, counted(), replaced_after)
        added.derived_again = extended.replaced
        added.completed = {
            task.name: max(0, labels[task.name] - round(extended.labels[task.name]))
            for task in self.tasks
            if task.kind is TaskKind.BINARY
        }
        return added

    def _count(self, added: AddedRows, rows: pl.DataFrame, mapped: pl.DataFrame) -> None:
        """Count new rows, as they came and as they are written."""
        for split, bound in self.bounds.items():
            in_split = rows[_REQUESTED].is_between(*bound, closed="left")
            added.rows[str(split)] += int(in_split.sum())
        for feature in self.context:
            if feature.kind is FeatureKind.CATEGORICAL:
                is_unknown = (mapped[feature.name] == 0) & rows[feature.name].is_not_null()
                added.unknown[feature.name] += int(is_unknown.sum())

    def _inside(self) -> Iterator[pl.DataFrame]:
        """The rows that lie in a split; the others are set aside."""
        time = pl.col(Column.REQUEST_TIME)
        inside = pl.any_horizontal(
            *(time.is_between(*bound, closed="left") for bound in self.bounds.values())
        )
        for rows in self._partitions("Writing requests"):
            self.intake.rejected.add(rows.filter(~inside), "request row: outside every split")
            yield rows.filter(inside)

    def _partitions(self, description: str) -> Iterator[pl.DataFrame]:
        for partition in track(range(self.intake.num_partitions), description):
            rows = self.intake.read_requests(partition)
            if rows is not None:
                yield rows

    def _mapped(self, rows: pl.DataFrame) -> pl.DataFrame:
        kept = [task.column for task in self.tasks]
        kept += [f"{truth}_{task.name}" for truth in TRUTHS for task in self.tasks]
        kept += [SHOWN_AT, PROPENSITY]
        return pl.DataFrame(
            [
                self.vocabularies[Column.USER].indices(rows[Column.USER]).alias("user"),
                self.vocabularies[Column.ITEM].indices(rows[Column.ITEM]).alias("item"),
                rows[Column.REQUEST_TIME].alias("request_time"),
                *(rows[name] for name in kept if name in rows.columns),
                *(self.encoding.encode(rows[feature.name], feature) for feature in self.context),
            ]
        )


def count_splits(folder: Path, bounds: Bounds) -> dict[str, int]:
    """``requests_<split>`` and ``rows_<split>`` of a store.

    Args:
        folder: of the store.
        bounds: per split ``[first, last)`` request time in ms.

    Raises:
        DataError: a split has no rows.
    """
    counts = {}
    for split, (first, last) in bounds.items():
        store = RequestStore.open(folder, (first, last))
        if not store.num_rows:
            raise DataError(
                f"the {split} period ({to_text(first)} to {to_text(last - 1)}) has no request "
                "rows; move the bounds of the splits."
            )
        counts[f"requests_{split}"] = len(store)
        counts[f"rows_{split}"] = store.num_rows
    return counts

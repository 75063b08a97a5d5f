"""Request rows taken in, mapped to indices and written; which of them belong to which split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from recsys.core.engines import Engine
from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.moments import to_text
from recsys.data.contract.rejected import RejectedRows
from recsys.data.contract.schema import (
    Feature,
    FeatureKind,
    FeatureSide,
    Split,
    Task,
    TaskKind,
)
from recsys.data.prepare.pieces import Indices
from recsys.data.prepare.request_pieces import Bounds, LookThrough, WriteRequests, WrittenRequests
from recsys.data.prepare.request_spill import RequestColumns
from recsys.data.prepare.request_writer import extend_spilled, present_with, write_spilled
from recsys.data.prepare.side_features import with_cardinality
from recsys.data.prepare.taken_in import TakenIn
from recsys.data.sources import Source
from recsys.data.stores.encoding import FeatureEncoding, SeenValues
from recsys.data.stores.requests import RequestStore

Done = TypeVar("Done")


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
        taken: holds the rows.
        rejected: where rows go that are not written.
        indices: of raw ids.
        encoding: of the context features.
        bounds: per split ``[first, last)`` request time in ms.
        spill: folder of temporary files.
        engine: does the partitions.
    """

    def __init__(
        self,
        source: Source,
        tasks: tuple[Task, ...],
        taken: TakenIn,
        rejected: RejectedRows,
        indices: Indices,
        encoding: FeatureEncoding,
        bounds: Bounds,
        spill: Path,
        engine: Engine,
    ) -> None:
        self.context = tuple(f for f in source.features if f.side == FeatureSide.CONTEXT)
        self.tasks = tasks
        self.taken = taken
        self.rejected = rejected
        self.indices = indices
        self.encoding = encoding
        self.bounds = bounds
        self.spill = spill.absolute()
        self.engine = engine

    def write(self, folder: Path) -> list[Feature]:
        """Write a new store, the encoding learned from the fit split; returns the features.

        Rows outside every split are set aside.

        Args:
            folder: of the store.
        """
        names, seen = self._looked_through()
        self.encoding.fit_seen(seen)
        columns = self._columns()
        present = columns.present_in(names)
        pieces = [written.spilled for written in self._written(columns, present)]
        write_spilled(folder, columns, present, pieces, engine=self.engine)
        return [with_cardinality(feature, self.encoding) for feature in self.context]

    def add(self, folder: Path, after: int, replaced_after: int | None) -> AddedRows:
        """Add rows to a store, encoded as those there; rows outside every split are set aside.

        Args:
            folder: of the store.
            after: rows shown after this moment (ms) are new, the others are there already.
            replaced_after: those that were shown after this moment are there to be replaced.
        """
        names, _ = self._looked_through()
        columns = self._columns()
        present = present_with(folder, columns.present_in(names))
        added = AddedRows(rows=Counter(dict.fromkeys(map(str, self.bounds), 0)))
        labels: Counter[str] = Counter()
        pieces = []
        for written in self._written(columns, present, after):
            pieces.append(written.spilled)
            added.rows.update(written.rows)
            added.unknown.update(written.unknown)
            labels.update(written.labels)
        extended = extend_spilled(folder, present, pieces, replaced_after, engine=self.engine)
        added.derived_again = extended.replaced
        added.completed = {
            task.name: max(0, labels[task.name] - round(extended.labels[task.name]))
            for task in self.tasks
            if task.kind is TaskKind.BINARY
        }
        return added

    def _looked_through(self) -> tuple[list[str], SeenValues]:
        """The columns of the rows, and what the context of the fit split holds.

        Rows that are there twice are set aside.
        """
        look = LookThrough(self.taken, self.context, self.bounds[Split.FIT], self.spill)
        seen, names = SeenValues.of(self.context), None
        for partition, found in self._mapped(look, "Learning the context"):
            if found is None:
                continue
            names = names or found.columns
            seen.merge(found.seen)
            self.rejected.take(found.rejected)
            if found.unique is not None:
                self.taken.unique[partition] = found.unique
        return names or [], seen

    def _written(
        self, columns: RequestColumns, present: Sequence[str], after: int | None = None
    ) -> Iterator[WrittenRequests]:
        """The rows of each partition, set down for the store; those outside every split aside."""
        write = WriteRequests(
            self.taken,
            columns,
            tuple(present),
            self.context,
            self.indices,
            self.encoding,
            self.bounds,
            after,
            self.spill,
        )
        for _, written in self._mapped(write, "Writing requests"):
            if written is not None:
                self.rejected.take(written.rejected)
                yield written

    def _mapped(
        self, task: Callable[[int], Done | None], description: str
    ) -> Iterator[tuple[int, Done | None]]:
        partitions = range(self.taken.num_partitions)
        yield from enumerate(track(self.engine.map(task, partitions), description, len(partitions)))

    def _columns(self) -> RequestColumns:
        names = {
            kind: tuple(feature.name for feature in self.context if feature.kind == kind)
            for kind in FeatureKind
        }
        return RequestColumns(
            tuple(task.name for task in self.tasks),
            names[FeatureKind.CATEGORICAL],
            names[FeatureKind.DENSE],
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

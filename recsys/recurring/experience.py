"""What a funnel has done and users did then, as rows in a data set to train its stages of.

Legend: R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.folders import replaced_folder
from recsys.data.contract.ledger import USER, ledger_files, read_ledger_description
from recsys.data.contract.parquet import read_parquet
from recsys.data.contract.schema import (
    MILLISECONDS_PER_HOUR,
    Column,
    FeatureKind,
    FeatureSide,
    Split,
    Task,
)
from recsys.data.prepare.request_writer import write_requests
from recsys.data.stores.dataset import REQUESTS, TIMELINES, PreparedDataset, mark_files
from recsys.data.stores.live import LiveDataset
from recsys.data.stores.live.journal import Position
from recsys.data.stores.timelines.writer import EVENT_SCHEMA, TimelineWriter
from recsys.serving.funnel.model import Numbering

#: Where the choose and the report period begin, as shares of the requests by time.
_CHOOSE, _REPORT = 0.7, 0.85
#: Fewer requests are nothing to learn from and to measure on.
LEAST_REQUESTS = 20
#: Columns of rows: indices of the data set.
ROW_USER, ROW_ITEM = "user", "item"


@dataclass(frozen=True, eq=False)
class Experience:
    """Ledgers of a funnel over a data set, and what was reported since.

    Attributes:
        dataset: that the funnel reads, with the live events.
        ledgers: of the funnel, those of earlier generations among them.
        numbering: of the ledgers' users and items; None where they are those of the data set, and
            items of after it as they are noted.
    """

    dataset: LiveDataset
    ledgers: Sequence[Path]
    numbering: Numbering | None = None

    def requests(self, *columns: str) -> Iterator[tuple[pl.DataFrame, int]]:
        """Requests of known users, file by file, and how many tasks the second stage predicted.

        Users and items are indices of the data set; of items that it does not have itself they are
        at least ``dataset.own_items``. Of ``columns`` those that a file has.
        """
        for ledger in self.ledgers:
            try:
                files = ledger_files(ledger)
            except DataError:  # nothing was asked yet
                continue
            tasks = len(read_ledger_description(ledger)["tasks"])
            for file in files:
                requests = read_parquet(file)
                requests = requests.select(one for one in columns if one in requests.columns)
                named = requests.with_columns(self._users(requests), self._items(requests))
                yield named.filter(pl.col(USER) > 0), tasks

    def _users(self, requests: pl.DataFrame) -> pl.Series:
        user = requests[USER].to_numpy()
        return pl.Series(USER, user if self.numbering is None else self.numbering.user[user])

    def _items(self, requests: pl.DataFrame) -> pl.Series:
        """The lists of items by the data set's indices."""
        lists = requests[ROW_ITEM]
        ends = np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)
        noted = lists.explode(empty_as_null=False).to_numpy().astype(np.int64)
        found = self.dataset.live.later.found(noted)
        if self.numbering is not None:
            found = self.numbering.item[noted]
        array = pa.LargeListArray.from_arrays(np.concatenate([[0], ends]), pa.array(found))
        return pl.Series(ROW_ITEM, array)

    def events(self) -> pl.DataFrame:
        """What was reported of the data set's own users and items, by its indices."""
        _, records = self.dataset.live.since(Position())
        events = pl.DataFrame({name: np.array(records[name]) for name in EVENT_SCHEMA})
        return events.filter(pl.col("user") > 0, self.is_own)

    @property
    def is_own(self) -> pl.Expr:
        """Whether a row is of an item that the data set has itself."""
        return pl.col(ROW_ITEM).is_between(1, self.dataset.own_items - 1)


def of_last_hours(parts: Sequence[pl.DataFrame], hours: float, since: int = 0) -> pl.DataFrame:
    """Rows of requests from a moment on, and of the last hours, in the order of the requests.

    Args:
        parts: rows with ``user`` and ``request_time`` (ms).
        hours: before the newest request.
        since: ms.

    Raises:
        DataError: they are of too few requests.
    """
    rows = pl.concat(parts) if parts else pl.DataFrame()
    if rows.height:
        newest = rows[Column.REQUEST_TIME].max()
        begin = newest - hours * MILLISECONDS_PER_HOUR  # type: ignore[operator]
        moment = pl.col(Column.REQUEST_TIME)
        rows = rows.filter(moment > begin, moment >= since)
    found = _moments(rows).height if rows.height else 0
    if found < LEAST_REQUESTS:
        raise DataError(
            f"the ledgers hold {found} requests of {hours:g} h that can be learned of, and it "
            f"takes {LEAST_REQUESTS} or more; come again later."
        )
    return rows.sort(Column.REQUEST_TIME, ROW_USER, maintain_order=True)


def write_rows(
    of: Experience, rows: pl.DataFrame, tasks: Sequence[Task], out: Path
) -> tuple[int, int]:
    """Write a data set with these rows, and what was reported since in its timelines.

    Users and items are those of the data set that is served, by the same indices, so that what is
    trained on it can be served there.

    Args:
        of: to whose data set the rows belong.
        rows: [R] ``user``, ``item``, ``request_time``, the labels of the tasks, and context
            features as they are encoded; the others are unknown.
        tasks: of the data set that is written.
        out: its folder.

    Returns:
        The period that is reported.
    """
    dataset = of.dataset
    stored = PreparedDataset.open(dataset.path).manifest
    events = of.events()
    context = {
        kind: [one.name for one in stored.select(FeatureSide.CONTEXT, kind)] for kind in FeatureKind
    }
    names = [name for names in context.values() for name in names]
    unknown = [pl.lit(0).alias(name) for name in names if name not in rows.columns]
    periods = _periods(np.sort(_moments(rows)[Column.REQUEST_TIME].to_numpy()))
    with replaced_folder(out, start_from=dataset.path) as partial:
        if events.height:
            with TimelineWriter(partial / TIMELINES) as writer:
                writer.append([events])
        written = write_requests(
            partial / REQUESTS,
            [rows.with_columns(unknown)],
            tasks,
            context[FeatureKind.CATEGORICAL],
            context[FeatureKind.DENSE],
        )
        last = max([stored.counts["last_timestamp"], *events["timestamp"]])
        counts = {"requests": written.requests, "rows": written.rows, "last_timestamp": int(last)}
        replace(
            stored,
            tasks=tuple(tasks),
            split_bounds=periods,
            counts={**stored.counts, **counts},
            files=mark_files(partial),
        ).save(partial)
    return periods[Split.REPORT]


def _moments(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(ROW_USER, Column.REQUEST_TIME).unique()


def _periods(moments: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    """Bounds of the splits, of the requests' moments, ascending."""
    first, last = int(moments[0]), int(moments[-1]) + 1
    choose, report = (int(moments[int(len(moments) * share)]) for share in (_CHOOSE, _REPORT))
    return {
        Split.FIT: (first, choose),
        Split.CHOOSE: (choose, report),
        Split.REPORT: (report, last),
    }

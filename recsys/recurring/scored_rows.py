"""A service's data set with what its second stage scored as rows, to train a first stage of.

Legend: R rows, K tasks of the second stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from recsys.core.errors import DataError
from recsys.core.folders import replaced_folder
from recsys.data.contract.ledger import (
    FIRST,
    MOMENT,
    SELECTED,
    USER,
    VALUE_RANK,
    ledger_files,
    read_ledger_description,
)
from recsys.data.contract.parquet import read_parquet
from recsys.data.contract.schema import (
    MILLISECONDS_PER_HOUR,
    PROPENSITY,
    Column,
    FeatureKind,
    FeatureSide,
    Split,
)
from recsys.data.prepare.request_writer import write_requests
from recsys.data.sources.ledger_rows import READ, scored_rows
from recsys.data.stores.dataset import REQUESTS, TIMELINES, PreparedDataset, mark_files
from recsys.data.stores.live import LiveDataset
from recsys.data.stores.live.journal import Position
from recsys.data.stores.timelines.writer import EVENT_SCHEMA, TimelineWriter

#: Where the choose and the report period begin, as shares of the requests by time.
_CHOOSE, _REPORT = 0.7, 0.85
#: Fewer requests are nothing to learn from and to measure on.
LEAST_REQUESTS = 20
#: What the first stage that is served said of a candidate; or the order of the sources.
SERVED, _FUSED = "served", "fused"


def write_scored(
    dataset: LiveDataset, ledgers: Sequence[Path], hours: float, out: Path
) -> pl.DataFrame:
    """Write a data set whose rows are the candidates that a service's second stage scored.

    Users and items are those of the service's data set, by the same indices, so that what is
    trained on it can be served there; what was reported since is in its timelines. Items that were
    announced since are in no row.

    Args:
        dataset: that is served, with the live events.
        ledgers: of the service.
        hours: before the newest request whose rows are taken.
        out: folder of the data set.

    Returns:
        [R] the rows in the order they are written: ``user``, ``request_time``, ``item``, the
        labels, and ``served``.

    Raises:
        DataError: there are too few requests.
    """
    parts = [rows for ledger in ledgers for rows in _rows(dataset, ledger)]
    rows = pl.concat(parts) if parts else pl.DataFrame()
    if rows.height:
        newest = rows[Column.REQUEST_TIME].max()
        since = newest - hours * MILLISECONDS_PER_HOUR  # type: ignore[operator]
        rows = rows.filter(pl.col(Column.REQUEST_TIME) > since)
    moments = rows.select("user", Column.REQUEST_TIME).unique() if rows.height else rows
    if moments.height < LEAST_REQUESTS:
        raise DataError(
            f"the ledgers hold {moments.height} requests of {hours:g} h whose candidates were "
            f"scored, and a first stage learns of {LEAST_REQUESTS} or more; come again later."
        )
    rows = rows.sort(Column.REQUEST_TIME, "user", maintain_order=True)
    periods = _periods(np.sort(moments[Column.REQUEST_TIME].to_numpy()))
    _write(dataset, rows, periods, out)
    return rows


def _rows(dataset: LiveDataset, ledger: Path) -> Iterator[pl.DataFrame]:
    """What the second stage scored of the data set's own users and items, file by file."""
    try:
        files = ledger_files(ledger)
    except DataError:  # nothing was asked yet
        return
    tasks = len(read_ledger_description(ledger)["tasks"])
    for file in files:
        requests = read_parquet(file)
        by = FIRST if FIRST in requests.columns else _FUSED
        rows = scored_rows(requests.select(*READ), _no_events(requests), tasks)
        said = requests.select(USER, MOMENT, "item", pl.col(by).alias(SERVED)).explode(
            "item", SERVED
        )
        keys = {USER: Column.USER, MOMENT: Column.REQUEST_TIME, "item": Column.ITEM}
        joined = rows.join(said.rename(keys), on=list(keys.values()), maintain_order="left")
        item = dataset.live.later.found(joined[Column.ITEM].to_numpy())
        labels = [pl.col(task.column) for task in (SELECTED, VALUE_RANK)]
        found = joined.select(
            pl.col(Column.USER).cast(pl.Int64).alias("user"),
            Column.REQUEST_TIME,
            pl.Series("item", item, pl.Int64),
            *labels,
            pl.col(SERVED).cast(pl.Float64).fill_nan(None).fill_null(-np.inf),
        )
        yield found.filter(
            (pl.col("user") > 0) & pl.col("item").is_between(1, dataset.own_items - 1)
        )


def _no_events(requests: pl.DataFrame) -> pl.DataFrame:
    """What would say on which surface each request was; a first stage does not read it."""
    schema: dict[str, pl.DataType] = {
        Column.USER: requests.schema[USER],
        Column.REQUEST_TIME: requests.schema[MOMENT],
        Column.ACTION_TYPE: pl.String(),
        Column.SURFACE: pl.String(),
        PROPENSITY: pl.Float32(),
    }
    return pl.DataFrame(schema=schema)


def _periods(moments: np.ndarray) -> dict[str, tuple[int, int]]:
    """Bounds of the splits, of the requests' moments, ascending."""
    first, last = int(moments[0]), int(moments[-1]) + 1
    choose, report = (int(moments[int(len(moments) * share)]) for share in (_CHOOSE, _REPORT))
    return {
        Split.FIT: (first, choose),
        Split.CHOOSE: (choose, report),
        Split.REPORT: (report, last),
    }


def _write(
    dataset: LiveDataset, rows: pl.DataFrame, periods: dict[str, tuple[int, int]], out: Path
) -> None:
    stored = PreparedDataset.open(dataset.path).manifest
    _, records = dataset.live.since(Position())
    events = pl.DataFrame({name: np.array(records[name]) for name in EVENT_SCHEMA})
    known = (pl.col("user") > 0) & pl.col("item").is_between(1, dataset.own_items - 1)
    context = {
        kind: [one.name for one in stored.select(FeatureSide.CONTEXT, kind)] for kind in FeatureKind
    }
    unknown = [pl.lit(0).alias(name) for names in context.values() for name in names]
    with replaced_folder(out, start_from=dataset.path) as partial:
        if (reported := events.filter(known)).height:
            with TimelineWriter(partial / TIMELINES) as writer:
                writer.append([reported])
        written = write_requests(
            partial / REQUESTS,
            [rows.drop(SERVED).with_columns(unknown)],
            [SELECTED, VALUE_RANK],
            context[FeatureKind.CATEGORICAL],
            context[FeatureKind.DENSE],
        )
        last = max([stored.counts["last_timestamp"], *events["timestamp"]])
        counts = {"requests": written.requests, "rows": written.rows, "last_timestamp": int(last)}
        replace(
            stored,
            tasks=(SELECTED, VALUE_RANK),
            split_bounds=periods,
            counts={**stored.counts, **counts},
            files=mark_files(partial),
        ).save(partial)

"""A log at pseudo times: read once for the order of every user's events, and once more with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.log import LogReader, split_rows
from recsys.data.contract.rejected import DUPLICATED_EVENT, REASON
from recsys.data.contract.schema import Column
from recsys.data.sources.order import pseudo_times

_ROW = "row"
_COUNTED = "counted"
_CONTENT = "content"


def ordered_log(
    reader: LogReader,
    actions: ActionTypes,
    split_of: Callable[[pl.Series, pl.Series], pl.Series],
    bounds: Mapping[str, tuple[int, int]],
) -> Iterator[pl.DataFrame]:
    """The chunks of a log, its good rows at pseudo times.

    A user's events are in the order of their times, those of one moment in the order of the log.
    Rows that stand there twice are marked: at pseudo times nobody could tell. About 60 bytes a row
    are in memory.

    Args:
        reader: of the log.
        actions: its action types.
        split_of: from the user of each event, a user's events in their order, and whether it is
            explicit and not negative, to the split of each.
        bounds: of the splits, ``order_bounds``.

    Raises:
        DataError: no row can be used.
    """
    times, again = _times(reader, actions, split_of, bounds)
    first = 0
    for chunk in _without_request_times(reader):
        rows = pl.int_range(first, first + chunk.height, eager=True)
        first += chunk.height
        time = times.slice(int(rows[0]), chunk.height)
        chunk = chunk.with_columns(
            pl.coalesce(time.alias(Column.TIMESTAMP), Column.TIMESTAMP).alias(Column.TIMESTAMP),
            pl.when(rows.is_in(again.implode()))
            .then(pl.lit(DUPLICATED_EVENT))
            .otherwise(REASON)
            .alias(REASON),
        )
        yield chunk


def _times(
    reader: LogReader,
    actions: ActionTypes,
    split_of: Callable[[pl.Series, pl.Series], pl.Series],
    bounds: Mapping[str, tuple[int, int]],
) -> tuple[pl.Series, pl.Series]:
    """Per row of the log its pseudo time, null where it is bad or a duplicate; and the latter."""
    parts = []
    num_rows = 0
    for chunk in _without_request_times(reader):
        rows = pl.int_range(num_rows, num_rows + chunk.height, dtype=pl.Int64, eager=True)
        num_rows += chunk.height
        good, _ = split_rows(chunk.with_columns(rows.alias(_ROW)), actions.names)
        is_counted = good[Column.ACTION_TYPE].is_in(list(actions.positive))
        content = good.drop(_ROW).hash_rows(seed=0)
        parts.append(
            good.select(Column.USER, Column.TIMESTAMP, _ROW).with_columns(
                is_counted.alias(_COUNTED), content.alias(_CONTENT)
            )
        )
    events = pl.concat(parts)
    if events.is_empty():
        raise DataError("the log has no row that can be used; see what its columns hold.")
    same = [Column.USER, Column.TIMESTAMP, _CONTENT]
    is_first = events.select(pl.struct(same).is_first_distinct()).to_series()
    again = events[_ROW].filter(~is_first)
    events = events.filter(is_first).sort(Column.TIMESTAMP, maintain_order=True)
    user = events[Column.USER]
    moments = pseudo_times(user, split_of(user, events[_COUNTED]), bounds)
    known = pl.DataFrame({_ROW: events[_ROW], Column.TIMESTAMP: moments})
    every = pl.int_range(num_rows, dtype=pl.Int64, eager=True).alias(_ROW).to_frame()
    placed = every.join(known, on=_ROW, how="left", maintain_order="left")
    return placed[Column.TIMESTAMP], again


def _without_request_times(reader: LogReader) -> Iterator[pl.DataFrame]:
    """There are no requests where there are no times."""
    for chunk in reader:
        yield chunk.drop(Column.REQUEST_TIME, strict=False)

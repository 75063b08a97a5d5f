"""Events that a caller gives of users, instead of those in the log.

Legend: B users of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.actions import ActionNames
from recsys.data.contract.given_tables import given_ids, log_times, named_column, needed_column
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import log_end
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import UNKNOWN_INDEX

#: Columns of the events as they are held.
USER, ITEM, TIME, ACTION, SURFACE = "user", "item", "timestamp", "action_type", "surface"

#: Events of the users of a step: the place of the user, and how many events he has in all.
ROW, EVENTS = "row", "events"
EVENT_TYPES = pl.Schema(
    {
        ROW: pl.Int64(),
        ITEM: pl.Int32(),
        ACTION: pl.Int8(),
        TIME: pl.Int64(),
        EVENTS: pl.Int64(),
    }
)

#: Code of an event of which no action is said: it counts as an engagement.
UNSAID = -1


@dataclass(frozen=True, eq=False)
class GivenEvents:
    """Events of a table, by user and time.

    Attributes:
        users: raw ids as text, in the order of their numbers.
        table: ``user`` (its number), ``item`` (index, 0 for an unknown one), ``timestamp`` (ms),
            ``action_type`` and ``surface`` (codes).
        ignored: events that were left out, for the log's description ignores their action.
    """

    users: pl.Series
    table: pl.DataFrame
    ignored: int = 0

    @property
    def end(self) -> int:
        """The first ms after the last event; 0 where there is none."""
        return 0 if self.table.is_empty() else int(self.table[TIME].max()) + 1  # type: ignore[arg-type, call-overload]

    @property
    def unknown(self) -> int:
        """Events with an item that the log does not have."""
        return int((self.table[ITEM] == UNKNOWN_INDEX).sum())

    def of_others(self, users: pl.Series) -> int:
        """Events of users who are not among some."""
        asked = np.unique(self.numbers(users))
        return int((~self.table[USER].is_in(asked.tolist())).sum())

    def numbers(self, users: pl.Series) -> NDArray[np.int64]:
        """[B] the number of each raw id; −1 of those without a given history."""
        of_user = {name: number for number, name in enumerate(self.users.to_list())}
        names = users.cast(pl.String).to_list()
        return np.array([of_user.get(name, -1) for name in names], np.int64)

    def before(self, numbers: NDArray[np.int64], moment: int) -> pl.DataFrame:
        """Events before a moment: ``row``, ``item``, ``action_type``, ``timestamp``, ``events``.

        Args:
            numbers: [B] of the users of a step (``numbers``).
            moment: ms.
        """
        place = pl.DataFrame({USER: numbers, ROW: np.arange(len(numbers))}).filter(
            pl.col(USER) >= 0
        )
        mine = self.table.filter(pl.col(TIME) < moment).join(place, on=USER, maintain_order="left")
        counted = mine.with_columns(pl.len().over(ROW).alias(EVENTS))
        return counted.select(*EVENT_TYPES).cast(EVENT_TYPES)

    def seen(self, number: int, moment: int) -> NDArray[np.int32]:
        """Distinct items of a user's events before a moment, also those that do not count."""
        mine = self.table.filter((pl.col(USER) == number) & (pl.col(TIME) < moment))
        return mine[ITEM].unique().to_numpy()


def read_events(where: str, table: pl.DataFrame, dataset: PreparedDataset) -> GivenEvents:
    """The events of a table: ``user_id``, ``item_id``, ``timestamp``, perhaps more.

    ``action_type`` and ``surface`` may be there too; a surface that the log does not have is
    unknown. An event without an action is one that counts: its code is −1 here, and whoever
    knows which actions count gives it one of them.

    Args:
        where: the file, for sentences.
        table: with the names of the contract, or those of the log.
        dataset: whose items, actions and column names these are.

    Raises:
        DataError: a column is missing, cannot be used, or has rows without a value.
        ConfigError: a time cannot be read.
    """
    manifest = dataset.manifest
    if table.is_empty():
        raise DataError(f"{where} has no row; give at least one event, or leave history= out.")
    user = given_ids(where, table, Column.USER, manifest).cast(pl.String)
    item = given_ids(where, table, Column.ITEM, manifest)
    if manifest.has_times or Column.TIMESTAMP in table.columns:
        times = needed_column(where, table.columns, Column.TIMESTAMP, manifest)
        time = log_times(where, table[times], manifest)
    else:  # the log has an order alone, and so has the table
        end = log_end(manifest)
        time = pl.Series(Column.TIMESTAMP, range(end - len(table), end), pl.Int64)
    for column in (user, item, time):
        if column.null_count():
            raise DataError(
                f"{where}, column {column.name}: {column.null_count()} of {len(column)} rows are "
                "empty; an event has a user, an item and a time."
            )
    action = named_column(table.columns, Column.ACTION_TYPE, manifest)
    surface = named_column(table.columns, Column.SURFACE, manifest)
    codes, is_ignored = _codes(
        where, None if action is None else table[action], len(table), manifest
    )
    users = user.unique(maintain_order=True)
    numbers = pl.Series(range(len(users)), dtype=pl.Int64)
    events = pl.DataFrame(
        {
            USER: user.replace_strict(users, numbers, return_dtype=pl.Int64),
            ITEM: dataset.vocabulary("item").indices(item),
            TIME: time,
            ACTION: codes,
            SURFACE: _surfaces(None if surface is None else table[surface], len(table), manifest),
        }
    )
    kept = events.filter(~is_ignored).sort(USER, TIME, maintain_order=True)
    return GivenEvents(users, kept, int(is_ignored.sum()))


def _codes(
    where: str, action: pl.Series | None, rows: int, manifest: DatasetManifest
) -> tuple[pl.Series, pl.Series]:
    """Codes of actions, and which rows the log's description ignores."""
    if action is None:
        return (
            pl.repeat(UNSAID, rows, dtype=pl.Int8, eager=True),
            pl.repeat(False, rows, dtype=pl.Boolean, eager=True),
        )
    options = manifest.preparation.get("options", {})
    meaning = ActionNames(options.get("actions") or {}, options.get("default_action"))
    named, reason = meaning.apply(action.name)
    said = pl.col(action.name).is_not_null()
    found = action.cast(pl.String).to_frame()
    found = found.select(pl.when(said).then(named).alias("named"), said & reason.is_not_null())
    types, is_ignored = found.get_columns()
    known = {name: code for code, name in enumerate(manifest.action_types)}
    codes = types.replace_strict(known, default=None, return_dtype=pl.Int8)
    unknown = action.filter(codes.is_null() & action.is_not_null() & ~is_ignored)
    if len(unknown):
        raise DataError(
            f"{where}, column {action.name}: {unknown[0]!r} is no action of the log; the actions "
            f"are {', '.join({**known, **meaning.meanings})}."
        )
    return codes.fill_null(UNSAID), is_ignored


def _surfaces(surface: pl.Series | None, rows: int, manifest: DatasetManifest) -> pl.Series:
    if surface is None:
        return pl.repeat(0, rows, dtype=pl.Int8, eager=True)
    known = {name: code for code, name in enumerate(manifest.surfaces)}
    return surface.cast(pl.String).replace_strict(known, default=0, return_dtype=pl.Int8)

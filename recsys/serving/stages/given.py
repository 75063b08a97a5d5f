"""Leaving out what the caller names, for all users or for one.

Legend: B users, S slots of the index.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.files import cast_column, cast_or_refuse
from recsys.data.contract.schema import Column
from recsys.index.faiss.item_index import SLOT, ItemIndex
from recsys.index.faiss.search import NONE
from recsys.index.usable_items import POST_ID
from recsys.serving.pipeline import Restriction, StepUsers


class GivenItems:
    """Leaves out items that the caller names.

    Args:
        table: ``item_id`` of items that nobody is to get; with a column ``user_id``, of items that
            this user is not to get. Users need not be in the log.
        index: whose items are left out.
        user_ids: type of the log's user ids: 7, 7.0 and "7" are one user where it is a number.

    Attributes:
        unknown: how many of the named items the index does not have, which is no mistake.

    Raises:
        DataError: a column is missing or holds no ids, or a row names no user.
    """

    name = "given"

    def __init__(self, table: pl.DataFrame, index: ItemIndex, user_ids: pl.DataType) -> None:
        self._index = index
        self._user_ids = user_ids
        slots = pl.Series(SLOT, index.slots(_items(table, index)))
        there = slots != NONE
        self.unknown = table[Column.ITEM].filter(~there).n_unique()
        self._for_all = np.empty(0, np.int64)
        self._of_user: dict[str, NDArray[np.int64]] = {}
        if Column.USER in table.columns:
            named = pl.DataFrame([self._names(_users(table)), slots]).filter(there)
            for (user,), rows in named.group_by(Column.USER):
                self._of_user[str(user)] = rows[SLOT].to_numpy()
        else:
            self._for_all = slots.filter(there).to_numpy()

    def restrict(self, users: StepUsers) -> Restriction:
        """A mask of slots [S], and per user [B] the slots that he alone is not to get."""
        eligible = np.ones(self._index.slots_given, np.bool_)
        eligible[self._for_all] = False
        nothing = np.empty(0, np.int64)
        names = self._names(users.raw.cast(pl.String))
        return Restriction(eligible, [self._of_user.get(name, nothing) for name in names])

    def _names(self, ids: pl.Series) -> pl.Series:
        """Ids as text [B], each user's written in one way."""
        typed = cast_column(ids, self._user_ids).cast(pl.String)
        return typed.zip_with(typed.is_not_null(), ids)


def _items(table: pl.DataFrame, index: ItemIndex) -> pl.Series:
    if Column.ITEM not in table.columns:
        raise DataError(
            f"The items to leave out have no column {Column.ITEM} (they have "
            f"{', '.join(table.columns)}); name the column of raw ids so."
        )
    return cast_or_refuse("leave_out", table[Column.ITEM], index.items.schema[POST_ID])


def _users(table: pl.DataFrame) -> pl.Series:
    users = cast_or_refuse("leave_out", table[Column.USER], pl.String())
    if users.null_count():
        raise DataError(
            f"leave_out, column {Column.USER}: {users.null_count()} of {len(users)} rows name no "
            "user, so nobody would be spared their items; name one in every row, or leave the "
            f"column {Column.USER} away to leave out items for all users."
        )
    return users

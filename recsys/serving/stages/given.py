"""What the caller names: items to leave out, for all users or for one, or to choose among.

Legend: B users, S slots of the index.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.ids import checked_ids
from recsys.data.contract.schema import Column
from recsys.index.catalogue import SLOT, Catalogue
from recsys.index.faiss.search import NONE
from recsys.serving.pipeline import Restriction, StepUsers


class GivenItems:
    """Leaves out items that the caller names.

    Args:
        table: ``item_id`` of items that nobody is to get; with a column ``user_id``, of items that
            this user is not to get. Users need not be in the log. Ids are matched as written: 7 and
            "7" are one user, "007" is another.
        index: whose items are left out.

    Attributes:
        unknown: how many of the named items the index does not have, which is no mistake.

    Raises:
        DataError: a column is missing or holds no ids, or a row names no user.
    """

    name = "given"

    def __init__(self, table: pl.DataFrame, index: Catalogue) -> None:
        self._index = index
        slots = pl.Series(SLOT, index.slots(_items(table, "exclude")))
        there = slots != NONE
        self.unknown = table[Column.ITEM].filter(~there).n_unique()
        self._for_all = np.empty(0, np.int64)
        self._of_user: dict[str, NDArray[np.int64]] = {}
        if Column.USER in table.columns:
            named = pl.DataFrame([_users(table), slots]).filter(there)
            for (user,), rows in named.group_by(Column.USER):
                self._of_user[user] = rows[SLOT].to_numpy()
        else:
            self._for_all = slots.filter(there).to_numpy()

    def restrict(self, users: StepUsers) -> Restriction:
        """A mask of slots [S], and per user [B] the slots that he alone is not to get."""
        eligible = np.ones(self._index.slots_given, np.bool_)
        eligible[self._for_all] = False
        nothing = np.empty(0, np.int64)
        names = users.raw.cast(pl.String)
        return Restriction(eligible, [self._of_user.get(name, nothing) for name in names])


class OnlyItems:
    """Leaves out all items but those that the caller names.

    Args:
        table: ``item_id`` of the items, the same for all users.
        index: whose items are left out.

    Attributes:
        unknown: how many of the named items there are not.

    Raises:
        DataError: a column is missing or holds no ids, or none of the items is there.
    """

    name = "only"

    def __init__(self, table: pl.DataFrame, index: Catalogue) -> None:
        named = _items(table, "only")
        slots = index.slots(named)
        there = slots != NONE
        self.unknown = named.filter(pl.Series(~there)).n_unique()
        if not there.any():
            raise DataError(
                f"None of the {named.n_unique():,} items of only= can be recommended (the first is "
                f"{named[0]!r}): the model or the index does not know them, or not yet at this "
                "moment; give items of the log."
            )
        self._eligible = np.zeros(index.slots_given, np.bool_)
        self._eligible[slots[there]] = True

    def restrict(self, users: StepUsers) -> Restriction:
        """The slots [S] of the named items, for all users alike."""
        return Restriction(self._eligible)


def _items(table: pl.DataFrame, setting: str) -> pl.Series:
    if Column.ITEM not in table.columns:
        raise DataError(
            f"The items of {setting}= have no column {Column.ITEM} (they have "
            f"{', '.join(table.columns)}); name the column of raw ids so."
        )
    return checked_ids(setting, table[Column.ITEM])


def _users(table: pl.DataFrame) -> pl.Series:
    users = checked_ids("exclude", table[Column.USER]).cast(pl.String)
    if users.null_count():
        raise DataError(
            f"exclude, column {Column.USER}: {users.null_count()} of {len(users)} rows name no "
            "user, so nobody would be spared their items; name one in every row, or leave the "
            f"column {Column.USER} away to leave out items for all users."
        )
    return users

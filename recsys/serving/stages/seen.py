"""Leaving out what a user has seen.

Legend: B users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.ids import as_ids
from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.timelines import TimelineStore
from recsys.data.stores.vocabulary import RAW, UNKNOWN_INDEX, Vocabulary
from recsys.index.catalogue import SLOT, Catalogue
from recsys.index.usable_items import POST_ID
from recsys.serving.pipeline import Restriction, StepUsers


class SeenItems:
    """Leaves out items that a user was shown or engaged with before the moment.

    Args:
        timelines: of the data set.
        items: the data set's item vocabulary.
        index: whose items are left out.

    Raises:
        DataError: the index is of another log.
    """

    name = "seen"

    def __init__(self, timelines: TimelineStore, items: Vocabulary, index: Catalogue) -> None:
        self._timelines = timelines
        self._slots = _SlotsOfItems(index, items)

    def restrict(self, users: StepUsers) -> Restriction:
        """Per user [B] the slots of what he has seen, by the log or the events given instead."""
        before = np.full(len(users.indices), users.moment)
        seen = [
            self._timelines.histories(users.indices, before, kind, np.iinfo(np.int64).max)
            for kind in TimelineKind
        ]
        items = [np.split(one["item"], np.cumsum(one["lengths"]))[:-1] for one in seen]
        exclude = [
            self._slots.of(np.unique(np.concatenate(both)))
            if user != UNKNOWN_INDEX
            # events of unknown users are nobody's in particular
            else np.empty(0, np.int64)
            for user, *both in zip(users.indices, *items, strict=True)
        ]
        given = users.given
        if given is not None:
            for place, number in enumerate(given.numbers(users.raw).tolist()):
                if number >= 0:
                    exclude[place] = self._slots.of(given.seen(number, users.moment))
        return Restriction(exclude=exclude)


class _SlotsOfItems:
    """From the item indices of a data set to the slots of an index.

    Under hashed ids several items share an item index, and a user may have seen any of them.
    """

    def __init__(self, index: Catalogue, items: Vocabulary) -> None:
        named = as_ids(index.items[POST_ID], items.table.schema[RAW])
        if len(named) and named.null_count() == len(named):
            raise DataError(
                f"The index names items by ids such as {index.items[POST_ID][0]!r}, the data set "
                f"by whole numbers ({str(named.dtype).lower()}): it is of another log; build an "
                "index of this data set's items with `recsys index build`."
            )
        item = items.indices(named).to_numpy()
        order = np.argsort(item, kind="stable")
        self._items = item[order]
        self._slots = index.items[SLOT].to_numpy()[order]

    def of(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """Slots of the items with these item indices; the unknown item 0 is no item."""
        known = items[items != UNKNOWN_INDEX]
        first = np.searchsorted(self._items, known, side="left")
        last = np.searchsorted(self._items, known, side="right")
        parts = [self._slots[a:b] for a, b in zip(first, last, strict=True) if b > a]
        return np.concatenate([np.empty(0, np.int64), *parts])

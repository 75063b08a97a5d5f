"""Logged rows side by side, as baselines read them.

Legend: R rows, K tasks, F and D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import FeatureKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import UNKNOWN_INDEX

#: Key of what is not known: of nobody and of nothing, so it is never counted.
NO_KEY = -1

#: What rows are grouped by: columns of ids that make up a key.
USER, ITEM, AUTHOR, TOPIC = "user", "item", "author", "topic"
GROUPS: dict[str, tuple[str, ...]] = {
    USER: (USER,),
    ITEM: (ITEM,),
    AUTHOR: (AUTHOR,),
    TOPIC: (TOPIC,),
    "user_item": (USER, ITEM),
    "user_author": (USER, AUTHOR),
    "user_topic": (USER, TOPIC),
}


@dataclass(frozen=True, eq=False)
class Rows:
    """Request rows.

    Attributes:
        ids: by ``user``, ``item``, ``author`` and ``topic`` the indices [R]; 0 is unknown.
        time: [R] int64, ms of the request.
        shown: [R] int64, ms, when the item was shown: not before the request.
        labels: [R, K] float32, NaN where not observed.
        context_categorical: [R, F] int32.
        context_dense: [R, D] float32.
    """

    ids: dict[str, NDArray[np.int64]]
    time: NDArray[np.int64]
    shown: NDArray[np.int64]
    labels: NDArray[np.float32]
    context_categorical: NDArray[np.int32]
    context_dense: NDArray[np.float32]

    @classmethod
    def of(cls, dataset: PreparedDataset, split: str | None) -> Self:
        """The rows of a split in the order of their ``row_id``; with None all that there are."""
        store = dataset.requests(split)
        per_request = np.diff(store.offsets)
        item = store.item.astype(np.int64)
        ids = {USER: np.repeat(store.user.astype(np.int64), per_request), ITEM: item}
        for name, of_item in dataset.ids_of_items.items():
            ids[name] = of_item[item].astype(np.int64)
        time = np.repeat(store.request_time, per_request)
        shown = time if store.shown_at is None else store.shown_at
        return cls(
            ids,
            time,
            shown,
            store.labels,
            store.context_categorical,
            store.context_dense,
        )

    def __len__(self) -> int:
        return len(self.time)

    def at(self, positions: NDArray[np.int64] | slice) -> Rows:
        """Some of the rows."""
        return Rows(
            {name: values[positions] for name, values in self.ids.items()},
            self.time[positions],
            self.shown[positions],
            self.labels[positions],
            self.context_categorical[positions],
            self.context_dense[positions],
        )

    def in_order_shown(self) -> Rows:
        """The rows in the order in which their items were shown."""
        if (self.shown[1:] >= self.shown[:-1]).all():
            return self
        return self.at(np.argsort(self.shown, kind="stable"))

    def spread(self, count: int) -> Rows:
        """At most ``count`` rows, evenly over their order, which is that of time in a split."""
        if len(self) <= count:
            return self
        return self.at(np.arange(count) * len(self) // count)

    def keys(self, group: str, sizes: dict[str, int]) -> NDArray[np.int64]:
        """What each row is counted under in a group, [R]; see :func:`group_keys`."""
        return group_keys(self.ids, group, sizes)


def group_keys(ids: dict[str, NDArray], group: str, sizes: dict[str, int]) -> NDArray[np.int64]:
    """One number for the ids of a group, :data:`NO_KEY` where one of them is unknown.

    Args:
        ids: indices by column.
        group: a name of :data:`GROUPS`.
        sizes: number of indices by column (``vocabulary_sizes`` of a manifest).
    """
    first, *others = GROUPS[group]
    key = ids[first].astype(np.int64)
    known = key != UNKNOWN_INDEX
    for name in others:
        key = key * sizes[name] + ids[name]
        known &= ids[name] != UNKNOWN_INDEX
    return np.where(known, key, NO_KEY)


_CATEGORICAL = FeatureKind.CATEGORICAL

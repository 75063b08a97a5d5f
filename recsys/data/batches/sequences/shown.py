"""Items that users were shown and did nothing with: negatives that are hard to tell.

Legend: U users, N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.engagements.taken import pair_keys


@dataclass(frozen=True, eq=False)
class ShownItems:
    """Rows of the fit period's requests whose user never engaged with the item in it.

    Attributes:
        offsets: [U + 1] int64; user ``u`` has ``item[offsets[u]:offsets[u + 1]]``.
        item: [N] int32; an item that was shown more often is there more often.
    """

    offsets: NDArray[np.int64]
    item: NDArray[np.int32]

    @classmethod
    def of(cls, dataset: PreparedDataset, engagements: EngagementStore) -> Self:
        """Those of a data set; none where the log has no request rows."""
        users = dataset.manifest.vocabulary_sizes["user"]
        if not dataset.manifest.tasks:
            return cls(np.zeros(users + 1, np.int64), np.zeros(0, np.int32))
        requests = dataset.requests(Split.FIT)
        end = dataset.manifest.split_bounds[Split.FIT][1]
        user = np.repeat(requests.user, np.diff(requests.offsets))
        item = np.asarray(requests.item)
        fit = engagements.timestamp < end
        engaged = pair_keys(engagements.user[fit], engagements.item[fit])
        kept = ~np.isin(pair_keys(user, item), engaged) & (item > 0) & (user > 0)
        user, item = user[kept], item[kept]
        order = np.argsort(user, kind="stable")
        counts = np.bincount(user, minlength=users)
        return cls(np.concatenate([[0], np.cumsum(counts)]), item[order])

    def draw(
        self, user: NDArray[np.int64], each: int, generator: np.random.Generator
    ) -> NDArray[np.int32]:
        """So many items of each user, drawn with repetitions; none of one who has none."""
        first = np.repeat(self.offsets[user], each)
        counts = np.repeat(self.offsets[user + 1], each) - first
        drawn = first + (generator.random(len(first)) * counts).astype(np.int64)
        return self.item[drawn[counts > 0]]

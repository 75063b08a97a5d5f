"""What users have seen, asked of the candidates of requests.

Legend: B requests, N candidates over all requests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import LENGTHS, TimelineKind
from recsys.data.features.cross_counts import matches
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import ALL_EVENTS
from recsys.data.stores.vocabulary import UNKNOWN_INDEX


class SeenHistory:
    """Says whether users were shown an item, or dealt with it, before a moment.

    Args:
        dataset: a prepared data set; with a live one what has come since counts at once.
    """

    def __init__(self, dataset: PreparedDataset) -> None:
        self._timelines = dataset.timelines
        self._items = dataset.manifest.vocabulary_sizes["item"]

    def seen(
        self, user: NDArray[np.integer], moment: NDArray[np.int64], item: NDArray[np.integer]
    ) -> NDArray[np.bool_]:
        """Whether each user has seen an item; nobody has seen what the data set does not know.

        Args:
            user: [N] user indices; fastest where the candidates of a request lie side by side.
            moment: [N] ms; events strictly before it count.
            item: [N] item indices.

        Returns:
            [N].

        Example: asked about the items 3, 5 and 3 of the users 7, 7 and 2, the first of whom was
        shown item 5 an hour before, it says no, yes, no.
        """
        found = np.zeros(len(item), bool)
        if not len(item):
            return found
        begins = np.append(True, (user[1:] != user[:-1]) | (moment[1:] != moment[:-1]))
        request = np.cumsum(begins) - 1
        users = np.where(user[begins] < 0, UNKNOWN_INDEX, user[begins])
        known = np.where((item > 0) & (item < self._items), item, UNKNOWN_INDEX)
        for kind in TimelineKind:
            events = self._timelines.histories(
                users, moment[begins], kind, ALL_EVENTS, columns=("item",)
            )
            owner = np.repeat(np.arange(len(users), dtype=np.int32), events[LENGTHS])
            slot, row, _ = matches(events["item"], owner, request, known, self._items)
            hit = np.zeros(len(item), bool)
            hit[row] = True
            found |= hit[slot]
        return found & (user != UNKNOWN_INDEX)

"""Searching an index for the items nearest to each user.

Legend: B users, W width of an embedding, k items asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.search import Found
from recsys.serving.pipeline import Restriction, StepUsers


class NearestItems:
    """Finds the ``k`` items of an index that have the highest cosine with a user."""

    name = "nearest"

    def __init__(self, index: ItemIndex, k: int) -> None:
        self._index = index
        self._k = k

    def find(
        self, users: StepUsers, embedding: NDArray[np.float32], restriction: Restriction
    ) -> Found:
        """Items [B, k] for embeddings [B, W]; fewer only where no more may be given.

        Raises:
            ArtifactError: the embeddings do not fit the index.
        """
        return self._index.search(
            embedding, self._k, exclude=restriction.exclude, eligible=restriction.eligible
        )

"""Searching an index for the items nearest to each user.

Legend: B users, W width of an embedding, k items asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys.index.catalogue import SLOT, Catalogue
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.search import NONE, Found
from recsys.serving.pipeline import Restriction, StepUsers

#: Scores that are held at a time: 32 MiB.
_SCORES_AT_A_TIME = 2**23


def with_norm_column(items: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Items [V, W + 1] whose cosine with [user, 0] orders them as their products [V, W] do.

    With the largest norm M the column is √(M² − ‖x‖²), so that every row has norm M and its cosine
    with a user u is ⟨u, x⟩ / (M ‖u‖) (Bachrach et al., RecSys 2014).

    Returns:
        The rows, and M.
    """
    norm = np.linalg.norm(items.astype(np.float64), axis=1)
    column = np.sqrt(norm.max() ** 2 - norm**2)
    rows = np.concatenate([items, column[:, None].astype(np.float32)], axis=1)
    return rows, float(norm.max())


class LargestProducts:
    """Finds the ``k`` items with the largest products with a user.

    Args:
        index: of the rows of ``with_norm_column``.
        k: items per user.
        largest_norm: M of ``with_norm_column``.
    """

    name = "largest_products"

    def __init__(self, index: ItemIndex, k: int, largest_norm: float) -> None:
        self._products = Products(index, k, largest_norm)

    def find(
        self, users: StepUsers, embedding: NDArray[np.float32], restriction: Restriction
    ) -> Found:
        """Items [B, k] for embeddings [B, W], with their products as scores."""
        column = np.zeros((len(embedding), 1), np.float32)
        return self._products.find(users, np.concatenate([embedding, column], axis=1), restriction)


class Products:
    """Finds the ``k`` items with the largest products with a user, among items of one length.

    Args:
        index: of items whose embeddings all have this length.
        k: items per user.
        length: of the items' embeddings.
    """

    name = "products"

    def __init__(self, index: ItemIndex, k: int, length: float) -> None:
        self._nearest = NearestItems(index, k)
        self._length = length

    def find(
        self, users: StepUsers, embedding: NDArray[np.float32], restriction: Restriction
    ) -> Found:
        """Items [B, k] for embeddings [B, W], with their products as scores."""
        found = self._nearest.find(users, embedding, restriction)
        norm = np.linalg.norm(embedding, axis=1, keepdims=True)
        return Found(found.slot, (found.score * norm * self._length).astype(np.float32))


#: [b] users and slots [C] → scores [b, C].
ScoreItems = Callable[[StepUsers, NDArray[np.int64]], NDArray[np.floating]]


class BestScores:
    """Finds the ``k`` items with the best scores among all that a user may get, each scored.

    Args:
        catalogue: of the items.
        k: items per user.
        score: what the model says of items.
    """

    name = "scores"

    def __init__(self, catalogue: Catalogue, k: int, score: ScoreItems) -> None:
        self._catalogue = catalogue
        self._k = min(k, max(len(catalogue), 1))
        self._score = score

    def find(
        self, users: StepUsers, embedding: NDArray[np.float32], restriction: Restriction
    ) -> Found:
        """Items [B, k] by their scores; of equal ones the one that came first."""
        found = Found(
            np.full((len(users), self._k), NONE, np.int64),
            np.full((len(users), self._k), np.nan, np.float32),
        )
        slots = self._catalogue.items[SLOT].to_numpy()
        if restriction.eligible is not None:
            slots = slots[restriction.eligible[slots]]
        if not len(slots):
            return found
        step = max(_SCORES_AT_A_TIME // len(slots), 1)
        for start in range(0, len(users), step):
            places = np.arange(start, min(start + step, len(users)))
            scores = np.asarray(self._score(users.at(places), slots), np.float32)
            if restriction.exclude is not None:
                for row, place in enumerate(places.tolist()):
                    scores[row, np.isin(slots, restriction.exclude[place])] = -np.inf
            best = np.argsort(-scores, axis=1, kind="stable")[:, : self._k]
            of_best = np.take_along_axis(scores, best, axis=1)
            there = of_best != -np.inf
            width = best.shape[1]
            found.slot[places, :width] = np.where(there, slots[best], NONE)
            found.score[places, :width] = np.where(there, of_best, np.float32(np.nan))
        return found


class NearestItems:
    """Finds the ``k`` items of an index that have the highest cosine with a user."""

    name = "nearest"

    def __init__(self, index: ItemIndex, k: int) -> None:
        self._index = index
        self._k = min(k, max(len(index.items), 1))  # what is asked for is held for each user

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

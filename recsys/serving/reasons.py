"""Why an item was recommended: the items of the user's history that are nearest to it.

Legend: B users, V items of the data set, W width of an embedding, n items of a history.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.serving.histories import Histories
from recsys.serving.item_facts import ItemFacts
from recsys.serving.pipeline import StepUsers

#: Items of the history that are named, and what stands between them.
NEAREST, BETWEEN = 2, " | "


class Reasons:
    """Names the nearest items of users' histories, by the cosine of the model's embeddings.

    Args:
        histories: of the users.
        embedding: [V, W]; zeros where an item has none.
        facts: their ids and titles.
    """

    def __init__(
        self, histories: Histories, embedding: NDArray[np.float32], facts: ItemFacts
    ) -> None:
        norm = np.linalg.norm(embedding, axis=1, keepdims=True)
        self._embedding = embedding / np.where(norm > 0, norm, 1)
        self._histories = histories
        self._facts = facts

    def of(self, users: StepUsers, rows: NDArray[np.int64], ids: pl.Series) -> pl.Series:
        """The reasons of some recommendations, null where nothing in the history is near.

        Args:
            users: of a step.
            rows: [n] which user each recommendation is for.
            ids: [n] raw ids of the items.
        """
        items = self._facts.vocabulary.indices(ids).to_numpy()
        nearest = np.zeros((len(rows), NEAREST), np.int64)
        for place, history in self._of_users(users):
            mine = np.flatnonzero(rows == place)
            nearest[mine] = self._nearest(items[mine], history)
        names = self._names(pl.Series(nearest.ravel())).to_numpy().reshape(nearest.shape)
        texts = [BETWEEN.join(filter(None, of_item)) or None for of_item in names]
        return pl.Series("reasons", texts, pl.String())

    def _of_users(self, users: StepUsers) -> list[tuple[int, NDArray[np.int64]]]:
        """Each user and the distinct items of the history."""
        found = []
        for places, batch in self._histories.parts(users):
            each = torch.split(batch.item, batch.lengths.tolist())
            found += [
                (int(place), torch.unique(items).numpy())
                for place, items in zip(places, each, strict=True)
            ]
        return found

    def _nearest(self, items: NDArray[np.int64], history: NDArray[np.int64]) -> NDArray[np.int64]:
        """[m, NEAREST] items of a history nearest to each of m items; 0 where none is near."""
        cosine = self._embedding[items] @ self._embedding[history].T  # [m, n]
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :NEAREST]
        found = np.zeros((len(items), NEAREST), np.int64)
        is_near = np.take_along_axis(cosine, best, axis=1) > 0
        found[:, : best.shape[1]] = np.where(is_near, history[best], 0)
        return found

    def _names(self, indices: pl.Series) -> pl.Series:
        """Titles where there are any, else ids; null for 0."""
        ids = self._facts.raw(indices)
        names = pl.DataFrame([self._facts.titles(ids).alias("title"), ids.alias("id")])
        return names.select(pl.coalesce("title", pl.col("id").cast(pl.String))).to_series()


def no_reasons(what: str) -> ConfigError:
    """The sentence of a model that has no embeddings of items."""
    return ConfigError(
        f"{what} has no embeddings of items, by which reasons= finds the nearest of the history; "
        "leave reasons= out."
    )

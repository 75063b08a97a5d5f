"""Recommending items to users: embed, search, and leave out what a user has seen.

Legend: B users of a step, W width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.files import cast_column
from recsys.data.contract.schema import Column, TimelineKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import RAW, UNKNOWN_INDEX, Vocabulary
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.search import NONE, Found
from recsys.index.usable_items import POST_ID, TITLE

RANK = "rank"  # 1 is the best
SCORE = "score"  # cosine
BASIS = "basis"

#: What a user's recommendation rests on.
HISTORY, NO_HISTORY, NOT_IN_LOG = "history", "no history", "not in the log"

#: User indices [B] and a moment (ms) → embeddings [B, W] and events they are made from [B].
Embedder = Callable[[NDArray[np.int64], int], tuple[NDArray[np.float32], NDArray[np.int64]]]

_UNKNOWN_SHOWN = 5


@dataclass(frozen=True)
class RecommendRules:
    """Which items users get.

    Attributes:
        as_of: ms; histories and what users have seen end strictly before it.
        k: items per user, at most.
        min_score: lowest cosine (NxtPost §6.3); None for any.
        seen_after: ms; items last seen before it are too old; None for any age.
        strict: refuse users that are not in the log; otherwise they get what a user without
            history gets, and ``basis`` says so.
    """

    as_of: int
    k: int = 10
    min_score: float | None = None
    seen_after: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        """Refuse what no search can do."""
        if self.k < 1:
            raise ConfigError(f"k={self.k} items per user; ask for at least 1.")


class Recommender:
    """Finds items for the users of a data set.

    Args:
        index: of items.
        dataset: whose log says who has seen what.
        embed: users to embeddings, made by the model that ``index`` is for.

    Raises:
        DataError: the index is of another log.
    """

    def __init__(self, index: ItemIndex, dataset: PreparedDataset, embed: Embedder) -> None:
        self._index = index
        self._timelines = dataset.timelines
        self._embed = embed
        folder = dataset.path / "vocabulary"
        self._users = Vocabulary.load(folder / "user.parquet")
        items = Vocabulary.load(folder / "item.parquet")
        self._slots = _SlotsOfItems(index, items)

    def recommend(
        self, users: pl.Series, rules: RecommendRules, batch_users: int = 1024
    ) -> Iterator[pl.DataFrame]:
        """Recommendations of some users at a time.

        Args:
            users: raw ids.
            rules: which items they get.
            batch_users: users per frame.

        Yields:
            ``user_id`` (as given), ``rank``, ``post_id``, ``score``, ``title`` and ``basis``,
            users in the order given, each user's best item first. A user for whom no item is left,
            or of whom the tower knows nothing at all (its embedding is 0), has no row.

        Raises:
            DataError: with ``strict``, a user is not in the log.
            ArtifactError: embeddings do not fit the index.
        """
        indices = self._indices(users)
        if rules.strict and (indices == UNKNOWN_INDEX).any():
            missing = users.filter(pl.Series(indices == UNKNOWN_INDEX))
            named = ", ".join(map(str, missing.head(_UNKNOWN_SHOWN).to_list()))
            more = ", …" * (len(missing) > _UNKNOWN_SHOWN)
            raise DataError(
                f"{len(missing)} of {len(users)} users are not in the log ({named}{more}); correct "
                "the ids, or take strict=false to give them what a user without history gets."
            )
        for start in range(0, len(users), batch_users):
            step = slice(start, start + batch_users)
            yield self._recommend_step(users[step], indices[step], rules)

    def _indices(self, users: pl.Series) -> NDArray[np.int64]:
        # an id of another kind than the log's is one the log does not have
        typed = cast_column(users, self._users.table.schema[RAW])
        indices: NDArray[np.int64] = self._users.indices(typed).cast(pl.Int64).to_numpy()
        return indices

    def _recommend_step(
        self, users: pl.Series, indices: NDArray[np.int64], rules: RecommendRules
    ) -> pl.DataFrame:
        embedding, events = self._embed(indices, rules.as_of)
        there = np.linalg.norm(embedding, axis=1) > 0
        found = self._index.search(
            embedding[there],
            rules.k,
            exclude=self._seen(indices[there], rules.as_of),
            min_score=rules.min_score,
            seen_after=rules.seen_after,
        )
        basis = np.where(events > 0, HISTORY, NO_HISTORY)
        basis = np.where(indices == UNKNOWN_INDEX, NOT_IN_LOG, basis)
        return self._frame(users.filter(pl.Series(there)), basis[there], found)

    def _seen(self, indices: NDArray[np.int64], as_of: int) -> list[NDArray[np.int64]]:
        """Per user the slots of items shown to the user or engaged with, before ``as_of``."""
        before = np.full(len(indices), as_of)
        seen = [
            self._timelines.histories(indices, before, kind, np.iinfo(np.int64).max)
            for kind in TimelineKind
        ]
        ends = [np.cumsum(one["lengths"])[:-1] for one in seen]
        items = [np.split(one["item"], end) for one, end in zip(seen, ends, strict=True)]
        return [
            self._slots.of(np.unique(np.concatenate(both)))
            if user != UNKNOWN_INDEX
            # events of unknown users are nobody's in particular
            else np.empty(0, np.int64)
            for user, *both in zip(indices, *items, strict=True)
        ]

    def _frame(self, users: pl.Series, basis: NDArray[np.str_], found: Found) -> pl.DataFrame:
        rows, columns = np.nonzero(found.slot != NONE)
        items = self._index.at(found.slot[rows, columns])
        return pl.DataFrame(
            [
                users[rows].alias(Column.USER),
                pl.Series(RANK, columns + 1, pl.Int32()),
                items[POST_ID],
                pl.Series(SCORE, found.score[rows, columns], pl.Float32()),
                items[TITLE],
                pl.Series(BASIS, basis[rows], pl.String()),
            ]
        )


class _SlotsOfItems:
    """From the item indices of a data set to the slots of an index.

    Under hashed ids several items share an item index, and a user may have seen any of them.
    """

    def __init__(self, index: ItemIndex, items: Vocabulary) -> None:
        ids, expected = index.items.schema[POST_ID], items.table.schema[RAW]
        if (ids == pl.String) != (expected == pl.String):
            raise DataError(
                f"The index names items by {ids} ids, the data set by {expected}: it is of another "
                "log; build an index of this data set's items with `recsys index build`."
            )
        item = items.indices(index.items[POST_ID]).to_numpy()
        order = np.argsort(item, kind="stable")
        self._items = item[order]
        self._slots = index.items["slot"].to_numpy()[order]

    def of(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """Slots of the items with these item indices; the unknown item 0 is no item."""
        known = items[items != UNKNOWN_INDEX]
        first = np.searchsorted(self._items, known, side="left")
        last = np.searchsorted(self._items, known, side="right")
        parts = [self._slots[a:b] for a, b in zip(first, last, strict=True) if b > a]
        return np.concatenate([np.empty(0, np.int64), *parts])

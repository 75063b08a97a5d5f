"""Recommending items to the users of a data set, a step of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.bounds import Finite, ItemsPerUser, Settings
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import UNKNOWN_INDEX
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.search import NONE
from recsys.index.usable_items import POST_ID, TITLE
from recsys.serving.pipeline import Embedder, Pipeline, Recommended, SearchFilter, Source, StepUsers
from recsys.serving.stages.given import GivenItems
from recsys.serving.stages.search import LargestProducts, NearestItems
from recsys.serving.stages.seen import SeenItems
from recsys.serving.stages.thresholds import BelowScore, TooOld

RANK = "rank"  # 1 is the best
SCORE = "score"  # cosine, or product
BASIS = "basis"

#: What a user's recommendation rests on.
HISTORY, NO_HISTORY, NOT_IN_LOG = "history", "no history", "not in the log"

_UNKNOWN_SHOWN = 5


@dataclass(frozen=True)
class RecommendRules(Settings):
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
    k: ItemsPerUser = 10
    min_score: Finite | None = None
    seen_after: int | None = None
    strict: bool = False


class Recommender:
    """Finds items for the users of a data set.

    Args:
        index: of items.
        dataset: whose log says who has seen what.
        embedder: of users, by the model that ``index`` is for.
        largest_norm: where scores are products, not cosines: that of ``with_norm_column``, whose
            rows ``index`` holds.

    Attributes:
        index: as given.
        dataset: as given.

    Raises:
        DataError: the index is of another log.
    """

    def __init__(
        self,
        index: ItemIndex,
        dataset: PreparedDataset,
        embedder: Embedder,
        largest_norm: float | None = None,
    ) -> None:
        self.index = index
        self._largest_norm = largest_norm
        self.dataset = dataset
        self._embedder = embedder
        self._users = dataset.vocabulary("user")
        self._seen = SeenItems(dataset.timelines, dataset.vocabulary("item"), index)

    def given(self, table: pl.DataFrame) -> GivenItems:
        """Leaves out the items of a table: ``item_id``, or ``user_id`` and ``item_id``."""
        return GivenItems(table, self.index)

    def pipeline(self, rules: RecommendRules, given: GivenItems | None = None) -> Pipeline:
        """The stages that give users what the rules say, without the items that are given."""
        before: list[SearchFilter] = [self._seen]
        if given is not None:
            before.append(given)
        if rules.seen_after is not None:
            before.append(TooOld(self.index, rules.seen_after))
        after = [] if rules.min_score is None else [BelowScore(rules.min_score)]
        source: Source = NearestItems(self.index, rules.k)
        if self._largest_norm is not None:
            source = LargestProducts(self.index, rules.k, self._largest_norm)
        return Pipeline(self._embedder, before, source, after)

    def recommend(
        self,
        users: pl.Series,
        rules: RecommendRules,
        batch_users: int = 1024,
        given: GivenItems | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Recommendations of some users at a time.

        Args:
            users: raw ids, matched with those of the log as they are written.
            rules: which items they get.
            batch_users: users per frame.
            given: items to leave out besides.

        Yields:
            ``user_id`` (as given), ``rank``, ``post_id``, ``score``, ``title`` and ``basis``,
            users in the order given, each user's best item first. A user for whom no item is left,
            or of whom the tower knows nothing at all (its embedding is 0), has no row.

        Raises:
            DataError: with ``strict``, a user is not in the log.
            ArtifactError: embeddings do not fit the index.
            ConfigError: ``batch_users`` is below 1.
        """
        if batch_users < 1:
            raise ConfigError(f"batch_users={batch_users}; take at least 1 user at a time.")
        indices: NDArray[np.int64] = self._users.indices(users).cast(pl.Int64).to_numpy()
        if rules.strict and (indices == UNKNOWN_INDEX).any():
            missing = users.filter(pl.Series(indices == UNKNOWN_INDEX))
            named = ", ".join(map(str, missing.head(_UNKNOWN_SHOWN).to_list()))
            more = ", …" * (len(missing) > _UNKNOWN_SHOWN)
            raise DataError(
                f"{len(missing)} of {len(users)} users are not in the log ({named}{more}); correct "
                "the ids, or take strict=false to give them what a user without history gets."
            )
        pipeline = self.pipeline(rules, given)
        for start in range(0, len(users), batch_users):
            step = slice(start, start + batch_users)
            yield self._frame(pipeline.run(StepUsers(users[step], indices[step], rules.as_of)))

    def _frame(self, recommended: Recommended) -> pl.DataFrame:
        users, found = recommended.users, recommended.found
        basis = np.where(recommended.events > 0, HISTORY, NO_HISTORY)
        basis = np.where(users.indices == UNKNOWN_INDEX, NOT_IN_LOG, basis)
        rows, columns = np.nonzero(found.slot != NONE)
        items = self.index.at(found.slot[rows, columns])
        return pl.DataFrame(
            [
                users.raw[rows].alias(Column.USER),
                pl.Series(RANK, columns + 1, pl.Int32()),
                items[POST_ID],
                pl.Series(SCORE, found.score[rows, columns], pl.Float32()),
                items[TITLE],
                pl.Series(BASIS, basis[rows], pl.String()),
            ]
        )

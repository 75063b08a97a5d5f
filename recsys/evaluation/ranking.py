"""The rank of each query's target among a stated set of candidates.

Rank 1 is best. An item with the target's score counts as better than it (ties between different
items count against the model). The items of the user's history are no candidates; the target
always is. Every metric follows from the ranks (:mod:`recsys.evaluation.retrieval_metrics`).

Legend: Q queries, q queries of a chunk, V indices of the item vocabulary, W width of an item
embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.errors import DataError
from recsys.evaluation.division import in_parts
from recsys.evaluation.groups import QueryGroup
from recsys.evaluation.queries import EvaluationQueries

#: How equal scores count, for :class:`recsys.evaluation.protocol.Protocol`.
TIE_RULE = "a tie with another item counts against the model"

#: What is no candidate of any set, for the same; and where a user engages with an item repeatedly.
HISTORY_RULE = "the user's history is removed"
REPEATS_RULE = "the user's history stays"

#: Rank of a target that is not in the corpus: a miss at every K, however large.
OUTSIDE_CORPUS = int(np.iinfo(np.int64).max)

#: Rank of a query that a candidate set leaves out; it is not part of :class:`Ranks`.
LEFT_OUT = 0

#: Memory for the scores of a chunk: a few MB are kept between chunks, not given back to the system.
SCORE_BYTES = 8 * 2**20
#: A chunk of a large corpus has this many queries, which share one product, in at most this memory.
FEWEST_QUERIES, MOST_SCORE_BYTES = 16, 128 * 2**20
#: The most queries of a chunk.
MOST_QUERIES = 1024


class Scorer(Protocol):
    """Anything that scores every item for a run of queries."""

    def score(self, queries: slice) -> Tensor:
        """Scores of all item indices, [q, V] float32, all finite; higher is better."""
        ...


class CandidateSet(Protocol):
    """The items a target is ranked among."""

    @property
    def description(self) -> str:
        """Which items, for the protocol of a metric."""
        ...

    def ranks(self, rows: slice, scores: Tensor) -> NDArray[np.int64]:
        """Rank of each target of ``rows`` given scores [q, V], :data:`OUTSIDE_CORPUS` or
        :data:`LEFT_OUT`; [q].
        """
        ...


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of n queries' targets among one candidate set.

    Attributes:
        query: [n] int64, position of the query in its split.
        user: [n] int64.
        target: [n] int64.
        rank: [n] int64, 1 = best, :data:`OUTSIDE_CORPUS` where the target is no candidate.
        candidates: description of the candidate set.
        part: which queries of the split these are; empty for all that the candidate set answers.
    """

    query: NDArray[np.int64]
    user: NDArray[np.int64]
    target: NDArray[np.int64]
    rank: NDArray[np.int64]
    candidates: str
    part: str = ""

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def share_outside(self) -> float:
        """Share of the targets that are outside the corpus: the metric's ceiling is 1 minus it."""
        return float(np.mean(self.rank == OUTSIDE_CORPUS))

    def only(self, chosen: NDArray[np.bool_]) -> Self:
        """The queries under a mask [n]."""
        return replace(
            self,
            query=self.query[chosen],
            user=self.user[chosen],
            target=self.target[chosen],
            rank=self.rank[chosen],
        )

    def of(self, group: QueryGroup) -> Self:
        """The queries of a group."""
        return replace(self.only(group.chosen[self.query]), part=group.description)


class DotProductScorer:
    """Scores are dot products of user and item embeddings.

    Args:
        users: [Q, W] float32, one row per query.
        items: [V, W] float32, one row per item index.
    """

    def __init__(self, users: Tensor, items: Tensor) -> None:
        self.users = users
        self.items = items

    def score(self, queries: slice) -> Tensor:
        """Scores of all item indices, [q, V]."""
        return self.users[queries] @ self.items.T


class SameScorer:
    """One score for everything: by the tie rule a target's rank is its number of candidates.

    Args:
        num_items: V.
    """

    def __init__(self, num_items: int) -> None:
        self.scores = torch.zeros(num_items)

    def score(self, queries: slice) -> Tensor:
        """Zeros, [q, V]."""
        return self.scores.expand(queries.stop - queries.start, -1)


def rank_targets(
    scorer: Scorer,
    queries: EvaluationQueries,
    candidates: Mapping[str, CandidateSet],
    num_items: int,
    progress: str = "Ranking",
) -> dict[str, Ranks]:
    """Rank every query's target in one pass over the scores, which are held a chunk at a time.

    Args:
        scorer: scores of the queries.
        queries: Q queries.
        candidates: candidate sets of these queries, by name.
        num_items: V.
        progress: what the progress bar says.

    Returns:
        The ranks by name of the candidate set.

    Raises:
        DataError: a score is not finite, or the scores do not have V columns.
    """

    def ranks(rows: slice) -> dict[str, NDArray[np.int64]]:
        scores = checked_scores(scorer, rows, num_items)
        return {name: one.ranks(rows, scores) for name, one in candidates.items()}

    found = in_parts(list(query_chunks(len(queries), num_items)), ranks, progress)
    return {
        name: gather_ranks(queries, [part[name] for part in found], candidate_set.description)
        for name, candidate_set in candidates.items()
    }


def query_chunks(num_queries: int, num_items: int) -> Iterator[slice]:
    """Runs of queries whose scores fit the memory set aside for them."""
    fewest = min(FEWEST_QUERIES, MOST_SCORE_BYTES // (4 * num_items))
    size = min(max(SCORE_BYTES // (4 * num_items), fewest, 1), MOST_QUERIES)
    for first in range(0, num_queries, size):
        yield slice(first, min(first + size, num_queries))


def checked_scores(scorer: Scorer, rows: slice, num_items: int) -> Tensor:
    """The scores of ``rows``, [q, V] float32.

    Raises:
        DataError: a score is not finite, or the shape is wrong.
    """
    scores = scorer.score(rows)
    expected = (rows.stop - rows.start, num_items)
    if tuple(scores.shape) != expected:
        raise DataError(
            f"{type(scorer).__name__} returned scores of shape {tuple(scores.shape)} for queries "
            f"{rows.start} to {rows.stop - 1}; expected {expected}, one column per item index."
        )
    low, high = scores.aminmax()  # both are NaN where any score is
    if not torch.isfinite(low) or not torch.isfinite(high):
        bad = (~torch.isfinite(scores)).nonzero()
        query, item = bad[0].tolist()
        raise DataError(
            f"{type(scorer).__name__} gave the score {scores[query, item].item()} to item index "
            f"{item} for query {rows.start + query} ({len(bad)} scores of this chunk are not "
            "finite). Only finite scores can be ranked: check the checkpoint for a training that "
            "diverged and the item embeddings for NaN."
        )
    return scores


def as_good_as_target(
    scores: Tensor,
    targets: NDArray[np.int64],
    row: NDArray[np.int64],
    removed: NDArray[np.int64],
) -> Tensor:
    """The items that count against each query's target: at least its score, and not removed.

    Args:
        scores: [q, V].
        targets: [q], the target of each query; it is marked, also where it is among ``removed``.
        row: [n], the query an item is no candidate of.
        removed: [n], that item.

    Returns:
        [q, V] of 0 and 1 in float32: sums of them count exactly below 2^24 items. The number of
        marks among candidates that the target is one of is its rank.
    """
    target = torch.from_numpy(targets).to(scores.device)[:, None]  # [q, 1]
    marks = torch.empty_like(scores)
    torch.ge(scores, scores.gather(1, target), out=marks)
    marks[torch.from_numpy(row).to(marks.device), torch.from_numpy(removed).to(marks.device)] = 0
    marks.scatter_(1, target, 1)
    return marks


def gather_ranks(
    queries: EvaluationQueries, parts: list[NDArray[np.int64]], description: str
) -> Ranks:
    """Put the ranks of the chunks together, without the queries that were left out."""
    rank = np.concatenate([*parts, np.empty(0, dtype=np.int64)])
    query = np.flatnonzero(rank != LEFT_OUT)
    return Ranks(query, queries.user[query], queries.target[query], rank[query], description)


def rank_table(queries: EvaluationQueries, ranks: Mapping[str, Ranks]) -> pl.DataFrame:
    """One row per query: the content of ``predictions/<split>.parquet``.

    Returns:
        ``query_id``, ``user``, ``request_time`` (ms), ``item``, ``history_events`` and
        ``rank_<name>`` per candidate set: null where the set leaves the query out,
        :data:`OUTSIDE_CORPUS` where the target is outside the corpus.
    """
    columns: dict[str, Any] = {
        "query_id": np.arange(len(queries)),
        "user": queries.user,
        "request_time": queries.time,
        "item": queries.target,
        "history_events": queries.history_events,
    }
    for name, measured in ranks.items():
        rank = np.full(len(queries), LEFT_OUT, dtype=np.int64)
        rank[measured.query] = measured.rank
        columns[f"rank_{name}"] = pl.Series(rank).replace(LEFT_OUT, None)
    return pl.DataFrame(columns)

"""What the evaluation of every retrieval system shares: queries, candidate sets, metrics."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.bounds import Count, OneOf, Seed, Settings, WholeDays, WholeHours
from recsys.core.errors import DataError
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.baselines.popularity import FitPopularity, RecentPopularity
from recsys.evaluation.baselines.similarity import last_item_embeddings, mean_history_embeddings
from recsys.evaluation.batch_hits import BatchPools, batch_pools
from recsys.evaluation.corpora import Corpus, alive_items, all_items, items_before
from recsys.evaluation.groups import QueryGroup, day_groups, history_groups, item_groups
from recsys.evaluation.queries import EvaluationQueries, EventsByTime
from recsys.evaluation.ranking import (
    HISTORY_RULE,
    REPEATS_RULE,
    CandidateSet,
    DotProductScorer,
    Ranks,
    Scorer,
    rank_targets,
)
from recsys.evaluation.retrieval_metrics import RetrievalMetric

#: Candidate sets by the name they have in metrics.
BATCH, UNSEEN_BATCH, ALL, ALIVE = CANDIDATES = ("batch", "unseen_batch", "all", "alive")

#: Untrained scorers of the same queries, by name.
BASELINES = (
    "fit_popularity",
    "popularity",
    "recent_popularity",
    "last_post",
    "mean_of_history",
)


@dataclass(frozen=True)
class RetrievalEvaluationConfig(Settings):
    """How retrieval is measured.

    Attributes:
        metrics: ``hits@K``, ``ndcg@K`` and ``mrr``.
        candidates: among which items targets are ranked: ``batch``, ``unseen_batch`` (batches of
            queries whose item was first engaged with after the fit period), ``all``, ``alive``.
        alive_hours: an item is alive so long after an engagement.
        recent_hours: what recent popularity counts.
        baselines: untrained scorers to measure beside the model.
        batch_seed: of the shuffle that makes the batches of ``batch``.
        cold_start: measure users with at most four engagements with stand-in histories too
            (NxtPost table 4); for models of content embeddings.
        stale_days: measure user embeddings that are so many days old (figure 10); 0 is fresh.
        max_queries: queries of a split at most, evenly drawn; None for all.
    """

    metrics: list[str] = field(
        default_factory=lambda: ["hits@1", "hits@10", "hits@20", "hits@100", "ndcg@10", "mrr"]
    )
    candidates: list[Annotated[str, OneOf(CANDIDATES)]] = field(
        default_factory=lambda: list(CANDIDATES)
    )
    alive_hours: WholeHours = 24
    recent_hours: WholeHours = 1
    baselines: list[Annotated[str, OneOf(BASELINES)]] = field(
        default_factory=lambda: list(BASELINES)
    )
    batch_seed: Seed = 0
    cold_start: bool = False
    stale_days: list[WholeDays] = field(default_factory=list)
    max_queries: Count | None = None

    def __post_init__(self) -> None:
        """Refuse names that stand for nothing."""
        super().__post_init__()
        for name in self.metrics:
            RetrievalMetric.parse(name)

    def without_times(self) -> Self:
        """Without what asks for moments: items alive at the time, and popularity of late."""
        candidates = [name for name in self.candidates if name != ALIVE]
        baselines = [name for name in self.baselines if name != "recent_popularity"]
        return replace(self, candidates=candidates or self.candidates, baselines=baselines)


class RetrievalProtocol:
    """The queries of a split and the candidate sets they are ranked among.

    Args:
        config: how retrieval is measured.
        dataset: the prepared data set.
        engagements: its sequences.
        known: [V], the items that can be recommended.
        split: ``choose`` or ``report``.

    Raises:
        DataError: no engagement lies in the split.
    """

    def __init__(
        self,
        config: RetrievalEvaluationConfig,
        dataset: PreparedDataset,
        engagements: EngagementStore,
        known: NDArray[np.bool_],
        split: Split,
    ) -> None:
        self.config = config
        self.engagements = engagements
        self.known = known
        self.fit_end = dataset.manifest.split_bounds[Split.FIT][1]
        first, last = dataset.manifest.split_bounds[split]
        self.queries = EvaluationQueries.of_period(engagements, first, last, config.max_queries)
        self._in_period = len(engagements.events_between(first, last))
        if not len(self.queries):
            raise DataError(
                f"no engagement lies in the {split} period of {dataset.manifest.name}; count other "
                "actions as engagements (sequences.actions), or prepare it with other splits."
            )
        self.period_end = last
        self.fit_items = items_before(engagements, self.fit_end, len(known))
        self.metrics = [RetrievalMetric.parse(name) for name in config.metrics]

    @cached_property
    def events(self) -> EventsByTime:
        """All engagements in order of time."""
        return EventsByTime.of(self.engagements)

    @property
    def num_items(self) -> int:
        """V, the number of item indices."""
        return len(self.known)

    def only(self, chosen: NDArray[np.bool_]) -> RetrievalProtocol:
        """The same on the queries under a mask [Q]; their ids count anew."""
        part = copy(self)
        part.queries = self.queries.only(chosen)
        return part

    def candidates(self, names: list[str] | None = None) -> dict[str, CandidateSet]:
        """The candidate sets by name; those of the configuration where none are named.

        ``unseen_batch`` is left out where every item was engaged with in the fit period.
        """
        found = {name: self._candidates(name) for name in names or self.config.candidates}
        return {name: self._described(one) for name, one in found.items() if one is not None}

    def groups(self) -> list[QueryGroup]:
        """The queries measured apart: by the length of the history, by the age of the item."""
        return [*history_groups(self.queries), *item_groups(self.queries, self.fit_items)]

    def days(self) -> list[QueryGroup]:
        """The queries by day; none where the split lasts no longer than one."""
        days = day_groups(self.queries, self.fit_end)
        return days if len(days) > 1 else []

    def _described(self, candidates: Corpus | BatchPools) -> CandidateSet:
        """The candidates, which say whether queries are drawn and the history is among them."""
        said = [candidates.description]
        most = self.config.max_queries
        if most is not None and self._in_period > most:
            said.append(f"{most:,} of {self._in_period:,} queries, evenly drawn")
        said.append(REPEATS_RULE if self.engagements.repeats else HISTORY_RULE)
        return replace(candidates, description="; ".join(said))

    @property
    def _ranked(self) -> EvaluationQueries:
        """The queries with the histories that are removed from the candidates.

        Where repeated engagements count, the next item may well be one of the history: removing
        all of it but the target would give the target away.
        """
        if not self.engagements.repeats:
            return self.queries
        return replace(self.queries, history_start=self.queries.history_end)

    def _candidates(self, name: str) -> Corpus | BatchPools | None:
        if name == BATCH:
            return self._batch_pools()
        if name == UNSEEN_BATCH:
            [_, unseen] = item_groups(self.queries, self.fit_items)
            if not unseen.chosen.any():
                return None
            return self._batch_pools(unseen)
        if name == ALL:
            return all_items(self.engagements, self._ranked, self.period_end, self.known)
        hours = self.config.alive_hours
        return alive_items(self.events, self._ranked, self.engagements, self.known, hours)

    def _batch_pools(self, group: QueryGroup | None = None) -> BatchPools:
        seed = self.config.batch_seed
        return batch_pools(self._ranked, self.engagements, self.num_items, seed, group=group)

    def rank(
        self, scorer: Scorer, candidates: dict[str, CandidateSet], place: str = "targets"
    ) -> dict[str, Ranks]:
        """The rank of every target, by candidate set; the progress bar names ``place``."""
        return rank_targets(scorer, self.queries, candidates, self.num_items, f"Ranking {place}")

    def values(self, ranks: dict[str, Ranks]) -> dict[str, float]:
        """``hits@10/batch`` and so on."""
        return {
            f"{metric}/{name}": float(metric.gains(one.rank).mean())
            for name, one in ranks.items()
            for metric in self.metrics
        }

    def baseline(self, name: str, items: Tensor | None) -> Scorer | None:
        """The scorer called ``name``; None for a content scorer where items have no embeddings."""
        if name == "fit_popularity":
            return FitPopularity(self.engagements, self.fit_end, self.num_items)
        if name in ("popularity", "recent_popularity"):
            recent = self.config.recent_hours * MILLISECONDS_PER_HOUR
            window = recent if name == "recent_popularity" else None
            return self.popularity(window)
        if items is None:
            return None
        embed = last_item_embeddings if name == "last_post" else mean_history_embeddings
        return DotProductScorer(embed(self.engagements, self.queries, items), items)

    def popularity(self, window_ms: int | None) -> RecentPopularity:
        """Engagements before each query, at most ``window_ms`` before it."""
        return RecentPopularity(self.events, self.queries, self.num_items, window_ms)


class ChooseValidation:
    """Ranks the targets of the choose split while a model is trained.

    Args:
        protocol: of the choose split.
        scorer: from what the model gives after an epoch, such as user embeddings [Q, W].
        candidates: names of candidate sets.
    """

    def __init__(
        self,
        protocol: RetrievalProtocol,
        scorer: Callable[[Tensor], Scorer],
        candidates: list[str],
    ) -> None:
        self.protocol = protocol
        self.scorer = scorer
        self.candidates = protocol.candidates(candidates)

    @torch.no_grad()
    def __call__(self, embeddings: Tensor) -> dict[str, float]:
        """Metrics of what the model gave."""
        return self.protocol.values(
            self.protocol.rank(self.scorer(embeddings), self.candidates, "validation")
        )


def log_shares(engagements: EngagementStore, fit_end: int, num_items: int) -> Tensor:
    """[V] logarithm of each item's share of the engagements before ``fit_end``, ms.

    One is added to every count, so that an item without any has a logarithm.
    """
    fit = engagements.timestamp < fit_end
    counts = np.bincount(engagements.item[fit], minlength=num_items) + 1.0
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))

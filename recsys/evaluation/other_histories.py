"""Retrieval with other histories than the user's own of the moment: stand-ins, and stale ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from recsys.data.contract.schema import (
    MILLISECONDS_PER_DAY,
    Column,
    FeatureKind,
    FeatureSide,
)
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.cold_start import (
    StandInConfig,
    StandInHistories,
    attribute_groups,
    popular_stand_ins,
)
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.groups import MARGINAL_EVENTS, history_groups
from recsys.evaluation.identity import RunIdentity
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.query_embedder import QueryEmbedder
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import RetrievalProtocol
from recsys.evaluation.retrieval_evaluation import measured_groups, measured_ranks
from recsys.evaluation.similar_users import similar_user_stand_ins

#: In the names of metrics: users with few engagements, and whose engagements they are given.
COLD = "cold"
HISTORIES = ("own_history", "popular_posts", "similar_users")


@dataclass(frozen=True, eq=False)
class MeasuredTower:
    """A user tower whose embeddings are compared with those of items.

    Attributes:
        run: which model it is of.
        embedder: the tower over queries.
        items: [V, W] embeddings of all item indices.
        dataset: the prepared data set.
    """

    run: RunIdentity
    embedder: QueryEmbedder
    items: Tensor
    dataset: PreparedDataset


def cold_start_metrics(
    tower: MeasuredTower, config: EvaluateConfig, protocol: RetrievalProtocol
) -> Metrics:
    """Table 4: users with at most four engagements, with and without stand-in histories.

    Candidates of ``batch`` are the targets of such users alone.

    Returns:
        ``report/cold/own_history/hits@1/batch`` and so on for ``popular_posts`` and
        ``similar_users`` (popular items where there is no history to compare), and of users with
        and without history ``report/cold/own_history/no_event/…`` and ``…/1_to_4_events/…``.
    """
    cold = protocol.only(protocol.queries.history_events <= MARGINAL_EVENTS)
    if not len(cold.queries):
        return {}
    candidates = cold.candidates()
    ranks = {}
    for name, stand_ins in _stand_ins(tower, cold).items():
        users = tower.embedder.with_histories(cold.queries, stand_ins=stand_ins)
        place = f"{config.prefix}/{COLD}/{name}"
        ranks[place] = cold.rank(DotProductScorer(users, tower.items), candidates, place)
    metrics = measured_ranks(tower.run, config, cold, ranks)
    groups = history_groups(cold.queries)
    return metrics | measured_groups(tower.run, config, cold, ranks, groups)


def stale_metrics(
    tower: MeasuredTower, config: EvaluateConfig, protocol: RetrievalProtocol
) -> Metrics:
    """Figure 10: user embeddings that are days old, on queries whose users had a history then.

    Returns:
        ``report/stale/<d>_days/hits@20/alive`` and so on for the days of the configuration; all on
        the queries that have a history at the largest of them.
    """
    days = protocol.config.stale_days
    if not days:
        return {}
    time, engagements = protocol.queries.time, protocol.engagements
    oldest = protocol.queries.as_of(engagements, time - max(days) * MILLISECONDS_PER_DAY)
    known = protocol.only(oldest.history_events > 0)
    if not len(known.queries):
        return {}
    candidates = known.candidates()
    ranks = {}
    for day in days:
        moment = known.queries.time - day * MILLISECONDS_PER_DAY
        users = tower.embedder.with_histories(known.queries.as_of(engagements, moment), moment)
        scorer = DotProductScorer(users, tower.items)
        place = f"{config.prefix}/stale/{day}_days"
        ranks[place] = known.rank(scorer, candidates, place)
    return measured_ranks(tower.run, config, known, ranks)


def _stand_ins(tower: MeasuredTower, cold: RetrievalProtocol) -> dict[str, StandInHistories | None]:
    config = StandInConfig()
    dataset = tower.dataset
    columns = [
        position
        for position, feature in enumerate(
            dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
        )
        if feature.name != Column.USER
    ]
    groups = attribute_groups(np.asarray(dataset.user_features.categorical)[:, columns])
    popular = popular_stand_ins(cold.events, cold.engagements, cold.queries, groups, config)
    similar = similar_user_stand_ins(cold.engagements, cold.queries, tower.items, config)
    return dict(zip(HISTORIES, (None, popular, similar.or_else(popular)), strict=True))

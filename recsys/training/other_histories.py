"""Retrieval with other histories than the user's own of the moment: stand-ins, and stale ones."""

from __future__ import annotations

import numpy as np

from recsys.data.schema import MILLISECONDS_PER_DAY, Column, FeatureKind, FeatureSide, Split
from recsys.evaluation.cold_start import (
    StandInConfig,
    StandInHistories,
    attribute_groups,
    popular_stand_ins,
)
from recsys.evaluation.groups import MARGINAL_EVENTS, history_groups
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.similar_users import similar_user_stand_ins
from recsys.training.evaluate import PREFIXES, EvaluateConfig
from recsys.training.metrics_file import Metrics
from recsys.training.query_embedder import QueryEmbedder
from recsys.training.retrieval import RetrievalProtocol
from recsys.training.retrieval_evaluation import measured_groups, measured_ranks

#: In the names of metrics: users with few engagements, and whose engagements they are given.
COLD = "cold"
HISTORIES = ("own_history", "popular_posts", "similar_users")


def cold_start_metrics(
    embedder: QueryEmbedder, config: EvaluateConfig, protocol: RetrievalProtocol
) -> Metrics:
    """Table 4: users with at most four engagements, with and without stand-in histories.

    Candidates of ``batch`` are the targets of such users alone.

    Returns:
        ``report/cold/own_history/hits@1/batch`` and so on for ``popular_posts`` and
        ``similar_users`` (popular posts where there is no history to compare), and of users with
        and without history ``report/cold/own_history/no_event/…`` and ``…/1_to_4_events/…``.
    """
    cold = protocol.only(protocol.queries.history_events <= MARGINAL_EVENTS)
    if not len(cold.queries):
        return {}
    candidates = cold.candidates()
    posts = embedder.run.model.posts
    ranks = {}
    for name, stand_ins in _stand_ins(embedder, cold).items():
        users = embedder.with_histories(cold.queries, stand_ins=stand_ins)
        place = f"{PREFIXES[Split(config.split)]}/{COLD}/{name}"
        ranks[place] = cold.rank(DotProductScorer(users, posts), candidates, place)
    metrics = measured_ranks(embedder.run, config, cold, ranks)
    groups = history_groups(cold.queries)
    return metrics | measured_groups(embedder.run, config, cold, ranks, groups)


def stale_metrics(
    embedder: QueryEmbedder, config: EvaluateConfig, protocol: RetrievalProtocol
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
        users = embedder.with_histories(known.queries.as_of(engagements, moment), moment)
        scorer = DotProductScorer(users, embedder.run.model.posts)
        place = f"{PREFIXES[Split(config.split)]}/stale/{day}_days"
        ranks[place] = known.rank(scorer, candidates, place)
    return measured_ranks(embedder.run, config, known, ranks)


def _stand_ins(
    embedder: QueryEmbedder, cold: RetrievalProtocol
) -> dict[str, StandInHistories | None]:
    config = StandInConfig()
    dataset = embedder.run.dataset
    columns = [
        position
        for position, feature in enumerate(
            dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
        )
        if feature.name != Column.USER
    ]
    groups = attribute_groups(np.asarray(dataset.user_features.categorical)[:, columns])
    popular = popular_stand_ins(cold.events, cold.engagements, cold.queries, groups, config)
    posts = embedder.run.model.posts
    similar = similar_user_stand_ins(cold.engagements, cold.queries, posts, config)
    return dict(zip(HISTORIES, (None, popular, similar.or_else(popular)), strict=True))

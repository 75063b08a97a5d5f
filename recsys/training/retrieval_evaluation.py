"""Evaluation of retrieval models: ranks of every query's target, and the metrics they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.data.progress import track
from recsys.data.schema import MILLISECONDS_PER_DAY, Split
from recsys.data.sequences import SequenceDataModule
from recsys.evaluation.baselines.popularity import WithPopularity, choose_weight
from recsys.evaluation.cold_start import history_groups
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.ranking import TIE_RULE, DotProductScorer, Ranks, Scorer, rank_table
from recsys.evaluation.retrieval_metrics import RetrievalMetric, difference, measure
from recsys.training.evaluate import PREFIXES, EvaluateConfig
from recsys.training.load import LoadedRun
from recsys.training.metrics_file import Metrics
from recsys.training.predict import write_predictions
from recsys.training.retrieval import ALL, RetrievalProtocol

#: λ of score + λ · ln(recent popularity + 1) is chosen by this, among all posts.
WEIGHT_METRIC = RetrievalMetric("hits", 10)


def embed_queries(run: LoadedRun[Any, Any], data: SequenceDataModule, split: Split) -> Tensor:
    """The user embedding of every query of a split, in their order, [Q, W] float32."""
    ids, users = [], []
    with torch.inference_mode():
        for index, batch in enumerate(
            track(data.loader(split, shuffle=False), f"Embedding users of {split}")
        ):
            output = run.model.predict_step(batch, index)
            ids.append(output["query_id"])
            users.append(output["user_embedding"])
    return torch.cat(users)[torch.cat(ids).argsort()]


def evaluate_retrieval(
    run: LoadedRun[Any, Any],
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    scorer: Scorer,
    posts: Tensor | None,
) -> Metrics:
    """Rank the targets of a split with a model and with the untrained baselines.

    Args:
        run: the trained model.
        config: the split, and how intervals are made.
        protocol: queries and candidate sets of the split.
        scorer: the model's scores.
        posts: [V, W], content embeddings for the baselines that need them.

    Returns:
        ``report/hits@10/all`` and so on; by history length ``report/no_event/…``; by day after
        the fit period ``report/day_1/…``; of a baseline
        ``report/<baseline>/hits@10/all``, and of the model against it
        ``report/<baseline>/difference/hits@10/all``.
    """
    split = Split(config.split)
    candidates = protocol.candidates()
    ranks = protocol.rank(scorer, candidates)
    write_predictions(run, split, rank_table(protocol.queries, ranks))
    prefix = PREFIXES[split]
    metrics: Metrics = {}
    for name, one in ranks.items():
        groups = {"": one, **history_groups(one, protocol.queries)}
        for group, part in groups.items():
            place = "/".join(filter(None, (prefix, group.replace(" ", "_"))))
            metrics |= measured_ranks(run, config, protocol, place, {name: part})
        outside = protocol_of(run, split, one).measure(one.share_outside)
        metrics[f"{prefix}/share_outside_corpus/{name}"] = outside.as_dict()
    metrics |= _by_day(run, config, protocol, ranks)
    for baseline in protocol.config.baselines:
        other = protocol.baseline(baseline, posts)
        if other is not None:
            place = f"{prefix}/{baseline}"
            theirs = protocol.rank(other, candidates)
            metrics |= measured_ranks(run, config, protocol, place, theirs)
            metrics |= _differences(run, config, protocol, place, ranks, theirs)
    return metrics


def with_popularity(
    run: LoadedRun[Any, Any],
    config: EvaluateConfig,
    choose: tuple[RetrievalProtocol, DotProductScorer],
    measured: tuple[RetrievalProtocol, DotProductScorer],
) -> Metrics:
    """The model's score + λ · ln(recent popularity + 1), λ from the choose split.

    Args:
        run: the trained model.
        config: the split, and how intervals are made.
        choose: queries of the choose split and the model's scores of them.
        measured: the same of the split that is measured.

    Returns:
        ``report/with_recent_popularity/…``, and its λ.
    """
    protocol, scorer = choose
    chosen = choose_weight(
        scorer,
        _recent(protocol),
        protocol.queries,
        protocol.candidates([ALL])[ALL],
        protocol.num_items,
        WEIGHT_METRIC,
    )
    protocol, scorer = measured
    combined = WithPopularity(scorer, _recent(protocol), chosen.weight)
    ranks = protocol.rank(combined, protocol.candidates())
    place = f"{PREFIXES[Split(config.split)]}/with_recent_popularity"
    metrics = measured_ranks(run, config, protocol, place, ranks)
    how = (
        f"best {chosen.metric} of {sorted(chosen.values)} on the choose split among "
        f"{chosen.candidates}"
    )
    return metrics | {f"{place}/weight": {"value": chosen.weight, "protocol": how}}


def _by_day(
    run: LoadedRun[Any, Any],
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    ranks: Mapping[str, Ranks],
) -> Metrics:
    """``report/day_<n>/…`` where a split lasts longer than a day: n days after the fit period
    (NxtPost §6.2, with fresh histories).
    """
    day = (protocol.queries.time - protocol.fit_end) // MILLISECONDS_PER_DAY
    numbers = np.unique(day).tolist()
    metrics: Metrics = {}
    for number in numbers if len(numbers) > 1 else ():
        parts = {name: one.only(day[one.query] == number) for name, one in ranks.items()}
        place = f"{PREFIXES[Split(config.split)]}/day_{number}"
        metrics |= measured_ranks(run, config, protocol, place, parts)
    return metrics


def _recent(protocol: RetrievalProtocol) -> Scorer:
    scorer = protocol.baseline("recent_popularity", None)
    assert scorer is not None
    return scorer


def measured_ranks(
    run: LoadedRun[Any, Any],
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    place: str,
    ranks: Mapping[str, Ranks],
) -> Metrics:
    """Every metric of some ranks under ``place``, with its interval and protocol."""
    metrics: Metrics = {}
    for name, one in ranks.items():
        if not len(one):
            continue
        sentence = _sentence(run, config, one)
        for metric, interval in measure(one, protocol.metrics, config.bootstrap).items():
            metrics[f"{place}/{metric}/{name}"] = {
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "protocol": sentence,
            }
    return metrics


def _differences(
    run: LoadedRun[Any, Any],
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    place: str,
    ours: Mapping[str, Ranks],
    theirs: Mapping[str, Ranks],
) -> Metrics:
    metrics: Metrics = {}
    for name, one in ours.items():
        sentence = f"{_sentence(run, config, one)}; model minus {place.rsplit('/', 1)[1]}"
        for metric in protocol.metrics:
            gap = difference(one, theirs[name], metric, config.bootstrap)
            metrics[f"{place}/difference/{metric}/{name}"] = {
                "value": gap.value,
                "low": gap.low,
                "high": gap.high,
                "protocol": sentence,
            }
    return metrics


def _sentence(run: LoadedRun[Any, Any], config: EvaluateConfig, ranks: Ranks) -> str:
    bootstrap = config.bootstrap
    return (
        f"{protocol_of(run, Split(config.split), ranks).sentence()}; interval: "
        f"{bootstrap.confidence:.0%} of {bootstrap.resamples} bootstrap resamples of users, seed "
        f"{bootstrap.seed}"
    )


def protocol_of(run: LoadedRun[Any, Any], split: Split, ranks: Ranks) -> Protocol:
    """How the ranks of a run's queries were measured."""
    return Protocol(
        dataset=run.manifest.name,
        split=split.value,
        rows=len(ranks),
        users=len(set(ranks.user.tolist())),
        seed=run.config.seed,
        checkpoint=f"{run.checkpoint} of step {run.step}",
        chosen_by=run.chosen_by,
        candidates=f"{ranks.candidates}; the user's history is removed",
        tie_rule=TIE_RULE,
    )

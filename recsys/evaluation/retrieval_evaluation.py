"""Evaluation of retrieval models: ranks of every query's target, and the metrics they give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from recsys.data.contract.schema import Split
from recsys.evaluation.baselines.popularity import WithPopularity, choose_weight
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.division import once
from recsys.evaluation.groups import QueryGroup
from recsys.evaluation.identity import RunIdentity
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.paired import Interval
from recsys.evaluation.predictions import write_predictions
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.ranking import (
    TIE_RULE,
    CandidateSet,
    DotProductScorer,
    Ranks,
    SameScorer,
    Scorer,
    rank_table,
)
from recsys.evaluation.retrieval import ALL, RetrievalProtocol
from recsys.evaluation.retrieval_metrics import (
    RetrievalMetric,
    Unit,
    effective_items,
    measure_together,
)

#: Ranks by place, for example ``report/last_post``, and by name of the candidate set.
PlacedRanks = Mapping[str, Mapping[str, Ranks]]

#: The model's score with popularity added, as a scorer's name.
WITH_POPULARITY = "with_recent_popularity"
RECENT_POPULARITY = "recent_popularity"

#: What a random ranking of the same candidates is worth, as a scorer's name.
CHANCE = "chance"

#: In an entry of ``metrics.json``: how many queries were measured.
QUERIES = "queries"

#: What stands behind a place in the name of how much more the model has.
DIFFERENCE = "difference"
#: In the entry of a difference: its interval where items are drawn instead of users.
LOW_OVER_ITEMS, HIGH_OVER_ITEMS = "low_over_posts", "high_over_posts"

#: λ of score + λ · ln(recent popularity + 1) is chosen by this, among all items.
WEIGHT_METRIC = RetrievalMetric("hits", 10)


def evaluate_retrieval(
    run: RunIdentity,
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    scorer: Scorer,
    items: Tensor | None,
) -> Metrics:
    """Rank the targets of a split with a model and with the untrained baselines.

    Args:
        run: which model was measured.
        config: the split, and how intervals are made.
        protocol: queries and candidate sets of the split.
        scorer: the model's scores.
        items: [V, W], content embeddings for the baselines that need them.

    Returns:
        ``report/hits@10/all``; of some queries ``report/no_event/…``, ``report/unseen_posts/…``
        and so on, by day after the fit period ``report/day_1/…``; of a baseline
        ``report/<baseline>/…``, of some queries ``report/<baseline>/no_event/…``, and of the model
        against it ``report/<baseline>/difference/hits@10/all``, with intervals over users and over
        items; ``report/chance/hits@10/all`` of a random ranking, as is expected of it;
        ``report/effective_posts/all`` says how many items that is about.
    """
    split, prefix = Split(config.split), config.prefix
    candidates = protocol.candidates()
    baselines = {name: protocol.baseline(name, items) for name in protocol.config.baselines}
    ranks = {prefix: protocol.rank(scorer, candidates, prefix)} | {
        f"{prefix}/{name}": protocol.rank(baseline, candidates, f"{prefix}/{name}")
        for name, baseline in baselines.items()
        if baseline is not None
    }
    once(lambda: write_predictions(run, split, rank_table(protocol.queries, ranks[prefix])))
    metrics = measured_ranks(run, config, protocol, ranks, differences=True)
    metrics |= measured_groups(run, config, protocol, ranks, protocol.groups())
    metrics |= measured_groups(run, config, protocol, {prefix: ranks[prefix]}, protocol.days())
    metrics |= _at_random(run, config, protocol, candidates)
    for name, one in ranks[prefix].items():
        how = protocol_of(run, split, one)
        outside = how.measure(one.share_outside)
        metrics[f"{prefix}/share_outside_corpus/{name}"] = outside.as_dict()
        metrics[f"{prefix}/effective_posts/{name}"] = how.measure(effective_items(one)).as_dict()
    return metrics


def _at_random(
    run: RunIdentity,
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    candidates: dict[str, CandidateSet],
) -> Metrics:
    """What is expected of a random ranking of the same candidates."""
    place = f"{config.prefix}/{CHANCE}"
    metrics: Metrics = {}
    counts = protocol.rank(SameScorer(protocol.num_items), candidates, place)
    for name, one in counts.items():
        how = protocol_of(run, Split(config.split), one).sentence()
        sentence = f"{how}; expected of a random ranking of the same candidates"
        for metric in protocol.metrics:
            value = float(metric.at_random(one.rank).mean()) if len(one) else math.nan
            metrics[f"{place}/{metric}/{name}"] = {
                "value": value,
                QUERIES: len(one),
                "protocol": sentence,
            }
    return metrics


def with_popularity(
    run: RunIdentity,
    config: EvaluateConfig,
    choose: tuple[RetrievalProtocol, DotProductScorer],
    measured: tuple[RetrievalProtocol, DotProductScorer],
) -> Metrics:
    """The model's score + λ · ln(recent popularity + 1), λ from the choose split.

    Args:
        run: which model was measured.
        config: the split, and how intervals are made.
        choose: queries of the choose split and the model's scores of them.
        measured: the same of the split that is measured.

    Returns:
        ``report/with_recent_popularity/…``, what popularity alone has less,
        ``report/with_recent_popularity/recent_popularity/difference/…``, and λ.
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
    place = f"{config.prefix}/{WITH_POPULARITY}"
    alone = f"{place}/{RECENT_POPULARITY}"
    candidates = protocol.candidates()
    ranks = {
        place: protocol.rank(combined, candidates, place),
        alone: protocol.rank(_recent(protocol), candidates, alone),
    }
    metrics = measured_ranks(run, config, protocol, ranks, differences=True)
    metrics |= measured_groups(run, config, protocol, {place: ranks[place]}, protocol.groups())
    how = (
        f"best {chosen.metric} of {sorted(chosen.values)} on the choose split among "
        f"{chosen.candidates}"
    )
    return metrics | {f"{place}/weight": {"value": chosen.weight, "protocol": how}}


def _recent(protocol: RetrievalProtocol) -> Scorer:
    scorer = protocol.baseline(RECENT_POPULARITY, None)
    assert scorer is not None
    return scorer


def measured_groups(
    run: RunIdentity,
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    ranks: PlacedRanks,
    groups: Sequence[QueryGroup],
) -> Metrics:
    """Every metric of each group of queries under ``<place>/<group>``.

    A group that has none of a candidate set's queries is left out there, and so is one that has
    all of them, unless it asks for that.
    """
    metrics: Metrics = {}
    for group in groups:
        parts: dict[str, dict[str, Ranks]] = {}
        for place, by_name in ranks.items():
            of_group = {name: (one, one.of(group)) for name, one in by_name.items()}
            parts[f"{place}/{group.name}"] = {
                name: part
                for name, (one, part) in of_group.items()
                if len(part) and (group.also_all or len(part) < len(one))
            }
        metrics |= measured_ranks(run, config, protocol, parts)
    return metrics


def measured_ranks(
    run: RunIdentity,
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    ranks: PlacedRanks,
    differences: bool = False,
) -> Metrics:
    """Every metric of some ranks under their place, with its interval and protocol.

    Args:
        run: which model was measured.
        config: the split, and how intervals are made.
        protocol: which metrics.
        ranks: of the same queries at all places; the first place is the model's.
        differences: also how much more the model has, under ``<place>/difference/…``.
    """
    return once(lambda: _measured_ranks(run, config, protocol, ranks, differences))


def _measured_ranks(
    run: RunIdentity,
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    ranks: PlacedRanks,
    differences: bool,
) -> Metrics:
    metrics: Metrics = {}
    for name, first in next(iter(ranks.values())).items():
        sentence = _sentence(run, config, first)
        of_set = {place: by_name[name] for place, by_name in ranks.items()}
        found = measure_together(of_set, protocol.metrics, config.bootstrap)
        for place, values in found.values.items():
            for metric, interval in values.items():
                metrics[f"{place}/{metric}/{name}"] = _entry(interval, sentence, len(first))
        if not differences:
            continue
        over_items = measure_together(of_set, protocol.metrics, config.bootstrap, Unit.ITEM)
        first_place, *others = ranks
        for place in others:
            minus = (
                f"{sentence}, and of items for low and high over items; {_scorer(first_place)} "
                f"minus {_scorer(place)}"
            )
            for metric, gap in found.differences[place].items():
                drawn = over_items.differences[place][metric]
                metrics[f"{place}/{DIFFERENCE}/{metric}/{name}"] = _entry(
                    gap, minus, len(first)
                ) | {
                    LOW_OVER_ITEMS: drawn.low,
                    HIGH_OVER_ITEMS: drawn.high,
                }
    return metrics


def _scorer(place: str) -> str:
    """``report`` is the model's place, ``report/last_post`` that of another scorer."""
    return place.rpartition("/")[2] if "/" in place else "model"


def _entry(interval: Interval, sentence: str, queries: int) -> dict[str, Any]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        QUERIES: queries,
        "protocol": sentence,
    }


def _sentence(run: RunIdentity, config: EvaluateConfig, ranks: Ranks) -> str:
    bootstrap = config.bootstrap
    return (
        f"{protocol_of(run, Split(config.split), ranks).sentence()}; interval: "
        f"{bootstrap.confidence:.0%} of {bootstrap.resamples} bootstrap resamples of users, seed "
        f"{bootstrap.seed}"
    )


def protocol_of(run: RunIdentity, split: Split, ranks: Ranks) -> Protocol:
    """How the ranks of a run's queries were measured."""
    return Protocol(
        dataset=run.dataset,
        split=split.value,
        rows=len(ranks),
        users=len(set(ranks.user.tolist())),
        seed=run.seed,
        checkpoint=f"{run.checkpoint.name} of step {run.checkpoint.step}",
        chosen_by=run.checkpoint.chosen_by,
        candidates=ranks.candidates,
        tie_rule=TIE_RULE,
        part=ranks.part,
    )

"""Retrieval metrics as tables for the terminal and the report: a row per scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.groups import GROUPS, TASK_GROUP
from recsys.evaluation.metrics_file import Metrics, is_defined
from recsys.evaluation.retrieval import BASELINES, BATCH, CANDIDATES, UNSEEN_BATCH
from recsys.evaluation.retrieval_evaluation import (
    CHANCE,
    HIGH_OVER_ITEMS,
    LOW_OVER_ITEMS,
    QUERIES,
    RECENT_POPULARITY,
    WITH_POPULARITY,
)
from recsys.evaluation.retrieval_metrics import METRIC_NAMES, RetrievalMetric

#: What the rows of the model itself are called.
MODEL = "model"

#: Who is measured, by the name in metrics; the model has none.
SCORERS = ("", *BASELINES, WITH_POPULARITY)

OVER_ITEMS = LOW_OVER_ITEMS, HIGH_OVER_ITEMS

#: The metric of the table by groups, or else the first that was measured.
GROUP_METRIC = "hits@10"


def print_retrieval(metrics: Metrics, config: EvaluateConfig) -> None:
    """Print every candidate set's tables, its candidates, and how intervals were made."""
    prefix = config.prefix
    console = output_console()
    for candidates in candidate_names(metrics, prefix):
        title = f"{config.run_dir} on the split {config.split}, candidates: {candidates}"
        console.print(text_table(title, scorer_rows(metrics, prefix, candidates)))
        metric = group_metric(metrics, prefix, candidates)
        minus = difference_rows(metrics, prefix, candidates)
        if len(minus) > 1:
            console.print(text_table(_differences_title(metrics, prefix, candidates), minus))
        by_group = group_rows(metrics, prefix, candidates, metric)
        if len(by_group[0]) > 2:
            console.print(text_table(f"{metric} by group, {candidates}", by_group))
        if not telling(metrics, prefix, candidates):
            console.print(not_telling(metrics, prefix, candidates))
        elif best := winner(metrics, prefix, candidates):
            console.print(best)
        protocol = metrics[f"{prefix}/{metric}/{candidates}"]["protocol"]
        console.print(f"Protocol: {protocol}", end="\n\n")
        if sentence := not_above_chance(metrics, prefix, candidates):
            console.print(sentence, end="\n\n")


def not_above_chance(metrics: Metrics, prefix: str, candidates: str) -> str | None:
    """A sentence where a model is not known to beat a random ranking; None where it does."""
    for name in (
        group_metric(metrics, prefix, candidates),
        *metric_names(metrics, prefix, candidates),
    ):
        model = entry(metrics, prefix, "", "", name, candidates) or {}
        random = (entry(metrics, prefix, CHANCE, "", name, candidates) or {}).get("value")
        if is_defined(random) and random < 1:  # at K among K candidates everybody finds everything
            break
    else:
        return None
    value, low, high = (model.get(key) for key in ("value", "low", "high"))
    if not is_defined(low) or low > random:
        return None
    return (
        f"Among the candidates {candidates} the model is not above chance: its {name} is "
        f"{value:.4f} [{low:.4f}, {high:.4f}], that of a random ranking of the same candidates "
        f"{random:.4f}."
    )


def _differences_title(metrics: Metrics, prefix: str, candidates: str) -> str:
    items = metrics.get(f"{prefix}/effective_posts/{candidates}", {}).get("value")
    return f"differences, {candidates}" + (
        "" if items is None else f": {items:.0f} effective items"
    )


def candidate_names(metrics: Metrics, prefix: str) -> list[str]:
    """The candidate sets the model was measured on."""
    return [name for name in CANDIDATES if metric_names(metrics, prefix, name)]


def metric_names(metrics: Metrics, prefix: str, candidates: str) -> list[str]:
    """The metrics of the model on a candidate set, in the order they were measured."""
    parts = (name.split("/") for name in metrics)
    found = [p[1] for p in parts if len(p) == 3 and p[0] == prefix and p[2] == candidates]
    return [name for name in found if name.partition("@")[0] in METRIC_NAMES]


def group_metric(metrics: Metrics, prefix: str, candidates: str) -> str:
    """What groups are compared by."""
    names = metric_names(metrics, prefix, candidates)
    return GROUP_METRIC if GROUP_METRIC in names else names[0]


def telling(metrics: Metrics, prefix: str, candidates: str, num_items: int | None = None) -> bool:
    """Whether what groups are compared by says anything: K items among K or fewer are all of them.

    Args:
        metrics: of the run.
        prefix: of the split.
        candidates: name of the candidate set.
        num_items: of the data set, the most candidates there can be; None where it is not known.
    """
    name = group_metric(metrics, prefix, candidates)
    k = RetrievalMetric.parse(name).k
    queries = metrics[f"{prefix}/{name}/{candidates}"].get(QUERIES)
    known = [] if num_items is None else [num_items]
    if queries is not None and candidates in (BATCH, UNSEEN_BATCH):
        # fewer queries than a batch are one smaller batch: no more candidates than queries
        known.append(queries)
    return k is None or not known or min(known) > k


def not_telling(metrics: Metrics, prefix: str, candidates: str) -> str:
    """What is said of a candidate set that tells nothing."""
    name = group_metric(metrics, prefix, candidates)
    return (
        f"Not telling: {name} finds every item where there are no more candidates than that; "
        "read another candidate set."
    )


def winner(metrics: Metrics, prefix: str, candidates: str) -> str:
    """Whether the model or another scorer is best, as a sentence; empty where none is defined."""
    metric = group_metric(metrics, prefix, candidates)
    others = {}
    for scorer in BASELINES:
        found = entry(metrics, prefix, scorer, "", metric, candidates)
        if found and is_defined(found["value"]):
            others[scorer] = found["value"]
    model = entry(metrics, prefix, "", "", metric, candidates)
    if not others or model is None or not is_defined(model["value"]):
        return ""
    best = max(others, key=lambda scorer: others[scorer])
    minus = entry(metrics, prefix, best, "difference", metric, candidates) or {}
    low, high = minus.get("low"), minus.get("high")
    numbers = f"{metric} {model['value']:.4f} against {others[best]:.4f}"
    if is_defined(low) and is_defined(high):
        numbers += f", difference {_signed(minus['value'])} [{_signed(low)}, {_signed(high)}]"
        if low > 0:
            return f"The model wins among {candidates}: {numbers} of {best}, the next best."
        if high < 0:
            return f"The model loses to {best} among {candidates}: {numbers}."
    return f"Among {candidates} the model cannot be told from {best}: {numbers}."


def scorer_rows(metrics: Metrics, prefix: str, candidates: str) -> list[list[str]]:
    """Headings, then all metrics of each scorer, with half the interval's width."""
    names = metric_names(metrics, prefix, candidates)
    rows = [["", *names]]
    for scorer in (*SCORERS, CHANCE):
        found = [entry(metrics, prefix, scorer, "", name, candidates) for name in names]
        if any(found):
            rows.append([scorer or MODEL, *map(cell, found)])
    return rows


def difference_rows(metrics: Metrics, prefix: str, candidates: str) -> list[list[str]]:
    """Headings, then what the model has more than each scorer, and with popularity more than
    popularity alone, with both intervals.
    """
    metric = group_metric(metrics, prefix, candidates)
    rows = [["difference", metric, "95 % over users", "95 % over items"]]
    pairs = [(MODEL, scorer, scorer) for scorer in BASELINES]
    pairs.append((WITH_POPULARITY, RECENT_POPULARITY, f"{WITH_POPULARITY}/{RECENT_POPULARITY}"))
    for first, second, place in pairs:
        found = entry(metrics, prefix, place, "difference", metric, candidates)
        if found:
            intervals = _interval(found, "low", "high"), _interval(found, *OVER_ITEMS)
            rows.append([f"{first} - {second}", _signed(found["value"]), *intervals])
    return rows


def group_rows(
    metrics: Metrics,
    prefix: str,
    candidates: str,
    metric: str,
    scorers: Sequence[str] = SCORERS,
) -> list[list[str]]:
    """Headings with the number of queries, then a metric of each scorer by group of queries."""
    parts = (name.removeprefix(f"{prefix}/").partition("/")[0] for name in metrics)
    tasks = dict.fromkeys(part for part in parts if part.startswith(TASK_GROUP))
    headings = {
        group: entry(metrics, prefix, scorers[0], group, metric, candidates)
        for group in ("", *GROUPS, *tasks)
    }
    groups = {group: found for group, found in headings.items() if found}
    rows = [["", *(f"{group or 'all'} ({_count(found)})" for group, found in groups.items())]]
    for scorer in scorers:
        cells = [entry(metrics, prefix, scorer, group, metric, candidates) for group in groups]
        if any(cells):
            rows.append([scorer or MODEL, *map(cell, cells)])
    return rows


def entry(
    metrics: Metrics, prefix: str, scorer: str, group: str, metric: str, candidates: str
) -> Mapping[str, Any] | None:
    """A scorer's metric of a group of queries; ``""`` is the model, and all queries."""
    return metrics.get("/".join(filter(None, (prefix, scorer, group, metric, candidates))))


def _count(metric: Mapping[str, Any]) -> str:
    return f"{metric[QUERIES]:,}" if QUERIES in metric else UNDEFINED


def _signed(value: float | None) -> str:
    return f"{value:+.4f}" if is_defined(value) else UNDEFINED


def _interval(metric: Mapping[str, Any], low: str, high: str) -> str:
    return f"[{_signed(metric.get(low))}, {_signed(metric.get(high))}]"


def cell(metric: Mapping[str, Any] | None) -> str:
    """A metric as text, with half its interval's width where it has one."""
    value, low, high = ((metric or {}).get(key) for key in ("value", "low", "high"))
    if not is_defined(value):
        return UNDEFINED
    if is_defined(low) and is_defined(high):
        return f"{value:.4f} ±{(high - low) / 2:.4f}"
    return f"{value:.4f}"

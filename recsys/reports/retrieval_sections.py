"""Sections of a retrieval run's report that show what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recsys.evaluation.metrics_file import is_defined
from recsys.evaluation.other_histories import COLD, HISTORIES
from recsys.evaluation.retrieval_evaluation import QUERIES
from recsys.evaluation.retrieval_metrics import RetrievalMetric
from recsys.reports import figures
from recsys.reports.page import Section, table_of_lines
from recsys.reports.rank_numbers import (
    FEWEST_QUERIES,
    by_history_length,
    hits_curve,
    ranked_candidates,
)
from recsys.reports.retrieval_material import RetrievalMaterial
from recsys.reports.retrieval_tables import (
    MODEL,
    SCORERS,
    cell,
    difference_rows,
    entry,
    group_rows,
    metric_names,
    not_above_chance,
    scorer_rows,
)


def measured(material: RetrievalMaterial) -> Iterator[Section]:
    """A section per candidate set: every scorer with its intervals."""
    metrics, prefix = material.metrics, material.prefix
    split = "report" if prefix == "report" else "choose (the report split was not evaluated)"
    for candidates in material.candidates:
        metric = material.metric(candidates)
        values = {
            scorer or MODEL: found
            for scorer in SCORERS
            if (found := entry(metrics, prefix, scorer, "", metric, candidates))
        }
        share = metrics.get(f"{prefix}/share_outside_corpus/{candidates}")
        outside = f" Targets outside: {share['value']:.2%}." if share and share["value"] else ""
        chance = not_above_chance(metrics, prefix, candidates)
        chance = f" {chance}" if chance else ""
        label = f"{metric}, %; the dashed line is the model"
        reference = values[MODEL]["value"] or 0
        problem = material.problem(candidates)
        said = f"{problem} " if problem else ""
        shown = not problem and len(values) > figures.FEW_POINTS
        yield Section(
            f"Candidates {candidates}: split {split}",
            note=f"{said}{values[MODEL]['protocol']}.{outside}{chance}",
            figure=figures.intervals(values, label, reference, percent=True) if shown else "",
            rows=scorer_rows(metrics, prefix, candidates),
        )


def differences(material: RetrievalMaterial) -> Iterator[Section]:
    """How much more one scorer finds than another, a section per candidate set."""
    for candidates in filter(material.tells, material.candidates):
        rows = difference_rows(material.metrics, material.prefix, candidates)
        if len(rows) == 1:
            continue
        items = material.metrics.get(f"{material.prefix}/effective_posts/{candidates}")
        spread = (
            f" The targets are as concentrated as those of {items['value']:.0f} equally frequent "
            "items: on other days there are others, so read the interval over items."
            if items
            else ""
        )
        yield Section(
            f"Differences, candidates {candidates}",
            note=(
                "On the same queries; 95 % bootstrap intervals, drawn for both at once. Above 0 "
                f"the first finds more.{spread}"
            ),
            rows=rows,
        )


def groups(material: RetrievalMaterial) -> Iterator[Section]:
    """Every scorer by group of queries, a section per candidate set."""
    for candidates in filter(material.tells, material.candidates):
        metric = material.metric(candidates)
        rows = group_rows(material.metrics, material.prefix, candidates, metric)
        if len(rows[0]) > 2:
            yield Section(
                f"Groups of queries, candidates {candidates}",
                note=(
                    f"{metric}, with half the interval's width; in brackets the number of queries. "
                    "Items are seen if anyone engaged with them before the end of the fit period."
                ),
                rows=rows,
            )


def from_ranks(material: RetrievalMaterial) -> Iterator[Section]:
    """What follows from the rank of every query's target."""
    if material.frame is None:
        return
    frame = material.frame
    names = [name for name in ranked_candidates(frame) if material.tells(name)]
    if not names:
        return
    points = {
        candidates: {
            scorer: found
            for scorer in SCORERS
            if scorer and (found := _hits_by_k(material, scorer, candidates))
        }
        for candidates in names
    }
    yield Section(
        "Hits@K over K",
        note=(
            "The line is the model, from the rank of every target; dots are the other scorers, "
            "at the K that were measured (their ranks are not kept)."
        ),
        figure=figures.hits_over_k({name: hits_curve(frame, name) for name in names}, points),
    )
    metric = material.metric(names[0])
    labels, lines = by_history_length(frame, names, RetrievalMetric.parse(metric))
    if labels:
        few = len(labels) <= figures.FEW_POINTS
        x = "engagements before the query"
        yield Section(
            "By length of the history",
            note=(
                f"{metric} by {x}; n counts the queries. Lengths with fewer than {FEWEST_QUERIES} "
                "queries are not shown."
            ),
            figure="" if few else figures.by_history(labels, lines, x, metric),
            rows=table_of_lines(labels, lines) if few else [],
        )


def _hits_by_k(material: RetrievalMaterial, scorer: str, candidates: str) -> dict[int, float]:
    found = {}
    for name in metric_names(material.metrics, material.prefix, candidates):
        measured = entry(material.metrics, material.prefix, scorer, "", name, candidates)
        metric = RetrievalMetric.parse(name)
        if not measured or not is_defined(measured["value"]):
            continue
        if metric.name == "hits" and metric.k is not None:
            found[metric.k] = float(measured["value"])
    return found


def over_time(material: RetrievalMaterial) -> Iterator[Section]:
    """Days after the training, and user embeddings that are days old, where they were measured."""
    titles = {
        r"day_(\d+)": ("By day after the fit period", "day", "Each day has its own queries."),
        r"stale/(\d+)_days": (
            "User embeddings that are days old",
            "days old",
            "The same queries at every age: those of users with a history at the highest.",
        ),
    }
    for pattern, (title, unit, note) in titles.items():
        for candidates in material.candidates[:1]:
            metric = material.metric(candidates)
            name = re.compile(f"{material.prefix}/{pattern}/{re.escape(metric)}/{candidates}")
            found = {
                int(match[1]): measured
                for key, measured in material.metrics.items()
                if (match := name.fullmatch(key))
            }
            if found:
                values = {
                    f"{unit} {number} (n={measured[QUERIES]:,})": measured
                    for number, measured in sorted(found.items())
                }
                reference = next(iter(values.values()))["value"] or 0
                label = f"{metric}, {candidates}, %; the dashed line is the first"
                few = len(values) <= figures.FEW_POINTS
                yield Section(
                    title,
                    note,
                    "" if few else figures.intervals(values, label, reference, percent=True),
                    [["", metric], *([one, cell(values[one])] for one in values)] if few else [],
                )


def cold_start(material: RetrievalMaterial) -> Iterator[Section]:
    """Stand-in histories, where they were measured."""
    place = f"{material.prefix}/{COLD}"
    for candidates in material.candidates:
        metric = material.metric(candidates)
        rows = group_rows(material.metrics, place, candidates, metric, HISTORIES)
        if len(rows) > 1:
            yield Section(
                f"Users with at most four engagements, candidates {candidates}",
                note=f"{metric} with their own history, and with one that stands in for it.",
                rows=rows,
            )

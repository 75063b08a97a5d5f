"""The outcome of a study without a baseline: metrics of each variant over seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from recsys.core.errors import ArtifactError
from recsys.evaluation.metrics_file import Metrics, read_metrics_file
from recsys.evaluation.paired import Interval
from recsys.evaluation.retrieval_evaluation import DIFFERENCE, QUERIES
from recsys.studies.over_seeds import by_variant, revisions, spreads, training_seconds
from recsys.studies.plan import POINT, StudyConfig, StudyRun
from recsys.studies.spread import Spread


@dataclass(frozen=True)
class MetricRow:
    """One line of the table.

    Attributes:
        line: what the row, or the curve it is a point of, is called; "" for the row's own name.
        at: where it lies on the axis, by the mean over seeds where a metric says so; None without
            one.
        seeds: of the runs; none for an untrained scorer.
        diverged: seeds whose training diverged; then no metric is defined.
        training_seconds: wall time of `recsys train`, mean over seeds; NaN for a scorer.
        metrics: by name, without the split's prefix and the place of the point.
        queries: number measured, by name of the metric.
    """

    line: str
    at: float | str | None
    seeds: list[int]
    diverged: list[int]
    training_seconds: float
    metrics: dict[str, Spread]
    queries: dict[str, int]


@dataclass(frozen=True)
class MetricTable:
    """A study's outcome.

    Attributes:
        title: of the study, with the view's outcome.
        split: the rows that were measured.
        axis: what the points of the rows are; None without them.
        reference: the row that the changes of the others are against.
        shown: names of the metrics in the table.
        rows: by variant (and point within it), then by untrained scorer.
        protocols: sentence of each shown metric, of the first run.
        revisions: git revisions the runs were made with.
    """

    title: str
    split: str
    axis: str | None
    reference: str | None
    shown: list[str]
    rows: dict[str, MetricRow]
    protocols: dict[str, str]
    revisions: list[str]

    @property
    def lines(self) -> dict[str, list[MetricRow]]:
        """The points of each curve from left to right; empty where points are no numbers."""
        lines: dict[str, list[MetricRow]] = {}
        for row in self.rows.values():
            if isinstance(row.at, float):
                lines.setdefault(row.line, []).append(row)
        return {name: sorted(line, key=attrgetter("at")) for name, line in lines.items()}


def metric_table(
    config: StudyConfig, runs: Sequence[StudyRun], diverged: Sequence[StudyRun] = ()
) -> MetricTable:
    """Gather the finished runs of a study, and those that diverged.

    Raises:
        ArtifactError: no run has points where ``config.within`` says.
    """
    rows: dict[str, MetricRow] = {}
    for variant, own in by_variant(config, runs).items():
        rows |= _rows(config, variant, own, [run for run in diverged if run.variant == variant])
    if not rows:
        raise ArtifactError(
            f"no run of {config.name} has metrics at {config.prefix}/{config.within}. Stale "
            "embeddings are measured with evaluation.stale_days=[…], stand-in histories with "
            "evaluation.cold_start=true, days where the split has several."
        )
    first, untrained = read_metrics_file(runs[0].folder), spreads(runs[:1])
    for scorer in config.scorers:
        place = f"{config.prefix}/{scorer}/"
        found, queries = _below(place, untrained), _queries(place, first)
        rows[scorer] = MetricRow("", None, [], [], math.nan, found, queries)
    return MetricTable(
        title=config.title,
        split=config.split,
        axis=config.axis,
        reference=config.reference,
        shown=config.metrics,
        rows=rows,
        protocols=_protocols(config, first),
        revisions=revisions(runs),
    )


def change(row: MetricRow, first: MetricRow, metric: str) -> Spread | None:
    """Percent change of a metric against the first point of the line, over seeds both have."""
    ours, theirs = row.metrics.get(metric), first.metrics.get(metric)
    if ours is None or theirs is None:
        return None
    by_seed = {}
    for seed in ours.by_seed.keys() & theirs.by_seed.keys():
        before = theirs.by_seed[seed].value
        value = 100 * (ours.by_seed[seed].value / before - 1) if before else math.nan
        by_seed[seed] = Interval(value, math.nan, math.nan)
    return Spread.of(by_seed)


def _rows(
    config: StudyConfig, variant: str, runs: Sequence[StudyRun], diverged: Sequence[StudyRun]
) -> dict[str, MetricRow]:
    """A row for the variant, or one for each point within its runs."""
    one, found = config.variants[variant], spreads(runs, diverged)
    first = read_metrics_file(runs[0].folder)
    rows = {}
    for point in _points(config, first):
        at, place = one.at if point is None else point, _place(config, point)
        values = _below(place, found)
        if config.along is not None:
            at = _along(config.along, variant, values)
        rows[variant if point is None else f"{variant}, {point}"] = MetricRow(
            line=one.line or ("" if point is None else variant),
            at=None if at is None else _number(at),
            seeds=[run.seed for run in runs],
            diverged=[run.seed for run in diverged],
            training_seconds=training_seconds(runs),
            metrics=values,
            queries=_queries(place, first),
        )
    return rows


def _points(config: StudyConfig, metrics: Metrics) -> Sequence[str | None]:
    """What stands for the points in the names of a run's metrics, in their order; None alone for
    the run as a whole.
    """
    if config.within is None:
        return [None]
    before, after = map(re.escape, f"{config.prefix}/{config.within}/".split(POINT))
    shown = "|".join(map(re.escape, config.metrics))
    found = (re.fullmatch(f"{before}(.+){after}({shown})", name) for name in metrics)
    named = dict.fromkeys(match[1] for match in found if match)
    # how much more one has than another is no point of its own
    points = [point for point in named if not point.endswith(f"/{DIFFERENCE}")]
    if all(isinstance(_number(point), float) for point in points):
        points.sort(key=float)
    return points


def _place(config: StudyConfig, point: str | None) -> str:
    """What the names of a point's metrics begin with."""
    if config.within is None or point is None:
        return f"{config.prefix}/"
    return f"{config.prefix}/{config.within.replace(POINT, point)}/"


def _along(along: str, variant: str, values: Mapping[str, Spread]) -> float:
    """Where some metrics lie on the axis, to four digits."""
    if along not in values:
        raise ArtifactError(
            f"the runs of {variant} have no {along}, along which they are to be shown: name a "
            f"metric of theirs, or leave along={along} out."
        )
    return float(f"{values[along].mean:.4g}")


def _number(point: float | str) -> float | str:
    """The point as a number where it is one."""
    try:
        return float(point)
    except ValueError:
        return point


def _below(place: str, found: Mapping[str, Spread]) -> dict[str, Spread]:
    """The metrics whose names begin with a place, without it."""
    return {
        name.removeprefix(place): spread for name, spread in found.items() if name.startswith(place)
    }


def _queries(place: str, metrics: Metrics) -> dict[str, int]:
    return {
        name.removeprefix(place): metric[QUERIES]
        for name, metric in metrics.items()
        if name.startswith(place) and QUERIES in metric
    }


def _protocols(config: StudyConfig, metrics: Metrics) -> dict[str, str]:
    """The sentence of each shown metric, at the first point where there are points."""
    place = _place(config, _points(config, metrics)[0])
    measured = {name: metrics.get(f"{place}{name}") for name in config.metrics}
    return {name: str(metric["protocol"]) for name, metric in measured.items() if metric}

"""The outcome of a study without a baseline: metrics of each variant over seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import ArtifactError
from recsys.data.contract.schema import Split
from recsys.evaluation.config import PREFIXES
from recsys.evaluation.metrics_file import Metrics, read_metrics_file
from recsys.evaluation.paired import Interval
from recsys.evaluation.retrieval_evaluation import QUERIES
from recsys.studies.plan import POINT, StudyConfig, StudyRun
from recsys.studies.summary import Spread, revisions, spreads, training_seconds


@dataclass(frozen=True)
class MetricRow:
    """One line of the table.

    Attributes:
        line: what the row, or the curve it is a point of, is called; "" for the row's own name.
        at: where it lies on the axis; None without one.
        seeds: of the runs; none for an untrained scorer.
        training_seconds: wall time of `recsys train`, mean over seeds; NaN for a scorer.
        metrics: by name, without the split's prefix and the place of the point.
        queries: number measured, by name of the metric.
    """

    line: str
    at: float | str | None
    seeds: list[int]
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
        shown: names of the metrics in the table.
        rows: by variant (and point within it), then by untrained scorer.
        protocols: sentence of each shown metric, of the first run.
        revisions: git revisions the runs were made with.
    """

    title: str
    split: str
    axis: str | None
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
        return {name: sorted(line, key=_place) for name, line in lines.items()}


def metric_table(config: StudyConfig, runs: Sequence[StudyRun]) -> MetricTable:
    """Gather the finished runs of a study.

    Raises:
        ArtifactError: no run has points where ``config.within`` says.
    """
    prefix = PREFIXES[Split(config.split)]
    metrics = {run.folder: read_metrics_file(run.folder) for run in runs}
    rows = {}
    for variant in config.chosen:
        own = [run for run in runs if run.variant == variant]
        if own and config.within is None:
            rows[variant] = _row(config, variant, own, metrics, prefix)
        elif own:
            for point in _points(config, metrics[own[0].folder], prefix):
                place = f"{prefix}/{_filled(config, point)}"
                rows[f"{variant}, {point}"] = _row(config, variant, own, metrics, place, point)
    if not rows:
        raise ArtifactError(
            f"no run of {config.name} has metrics at {prefix}/{config.within}. Stale embeddings "
            "are measured with evaluation.stale_days=[…], stand-in histories with "
            "evaluation.cold_start=true, days where the split has several."
        )
    untrained = spreads(runs[:1], metrics)
    first = metrics[runs[0].folder]
    for scorer in config.scorers:
        place = f"{prefix}/{scorer}/"
        found, queries = _below(place, untrained), _queries(place, first)
        rows[scorer] = MetricRow("", None, [], math.nan, found, queries)
    return MetricTable(
        title=config.title,
        split=config.split,
        axis=config.axis,
        shown=config.metrics,
        rows=rows,
        protocols=_protocols(config, first, prefix),
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


def _row(
    config: StudyConfig,
    variant: str,
    runs: Sequence[StudyRun],
    metrics: Mapping[Path, Metrics],
    place: str,
    point: str | None = None,
) -> MetricRow:
    one = config.variants[variant]
    at = one.at if point is None else point
    return MetricRow(
        line=one.line or ("" if point is None else variant),
        at=None if at is None else _number(at),
        seeds=[run.seed for run in runs],
        training_seconds=training_seconds(runs),
        metrics=_below(f"{place}/", spreads(runs, metrics)),
        queries=_queries(f"{place}/", metrics[runs[0].folder]),
    )


def _points(config: StudyConfig, metrics: Metrics, prefix: str) -> list[str]:
    """What stands for the point in the names of a run's metrics, in their order."""
    assert config.within is not None
    before, after = map(re.escape, f"{prefix}/{config.within}/".split(POINT))
    shown = "|".join(map(re.escape, config.metrics))
    found = (re.fullmatch(f"{before}(.+){after}({shown})", name) for name in metrics)
    points = list(dict.fromkeys(match[1] for match in found if match))
    numbers = [_number(point) for point in points]
    return sorted(points, key=float) if all(isinstance(n, float) for n in numbers) else points


def _filled(config: StudyConfig, point: str) -> str:
    return str(config.within).replace(POINT, point)


def _number(point: float | str) -> float | str:
    """The point as a number where it is one."""
    try:
        return float(point)
    except ValueError:
        return point


def _place(row: MetricRow) -> float:
    assert isinstance(row.at, float)
    return row.at


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


def _protocols(config: StudyConfig, metrics: Metrics, prefix: str) -> dict[str, str]:
    """The sentence of each shown metric, at the first point where there are points."""
    place = prefix
    if config.within is not None:
        place = f"{prefix}/{_filled(config, _points(config, metrics, prefix)[0])}"
    measured = {name: metrics.get(f"{place}/{name}") for name in config.metrics}
    return {name: str(metric["protocol"]) for name, metric in measured.items() if metric}

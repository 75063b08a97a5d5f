"""What the finished runs of a study say over their seeds, whatever is measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from recsys.core.environment import ENVIRONMENT_FILE, read_environment
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.evaluation.paired import Interval
from recsys.studies import process
from recsys.studies.plan import StudyConfig, StudyRun
from recsys.studies.spread import Spread


def by_variant(config: StudyConfig, runs: Sequence[StudyRun]) -> dict[str, list[StudyRun]]:
    """The runs of each variant that has some, in the order of the tables."""
    found = {name: [run for run in runs if run.variant == name] for name in config.chosen}
    return {name: own for name, own in found.items() if own}


def spreads(runs: Sequence[StudyRun], diverged: Sequence[StudyRun] = ()) -> dict[str, Spread]:
    """Every metric over the seeds of a variant's runs, by name as in ``metrics.json``.

    None is defined of a variant that diverged with a seed.
    """
    by_name: dict[str, dict[int, Interval]] = {}
    for run in runs:
        for name, metric in read_metrics_file(run.folder).items():
            ends = (metric.get(end) for end in ("value", "low", "high"))
            value, low, high = (math.nan if end is None else end for end in ends)
            by_name.setdefault(name, {})[run.seed] = Interval(value, low, high)
    undefined = {run.seed: Interval(math.nan, math.nan, math.nan) for run in diverged}
    found = {name: Spread.of(values | undefined) for name, values in by_name.items()}
    return {name: spread for name, spread in found.items() if spread is not None}


def diverged_sentences(diverged: Sequence[StudyRun]) -> list[str]:
    """What became of the runs that diverged, a sentence each."""
    return [f"{run.name} diverged: {process.divergence(run.folder)}" for run in diverged]


def training_seconds(runs: Sequence[StudyRun]) -> float:
    """Mean wall time of the trainings; NaN where it was not noted."""
    timings = [timing for run in runs if (timing := process.read_timing(run.folder))]
    return statistics.fmean(one["training_seconds"] for one in timings) if timings else math.nan


def most_jobs(runs: Sequence[StudyRun]) -> int:
    """Runs at a time while training; the most where it differed."""
    return max(process.read_timing(run.folder).get("jobs", 1) for run in runs)


def revisions(runs: Sequence[StudyRun]) -> list[str]:
    """The git revisions the runs were made with."""
    return sorted({_revision(run.folder) for run in runs})


def _revision(run_dir: Path) -> str:
    noted = (run_dir / ENVIRONMENT_FILE).is_file()
    git = read_environment(run_dir).get("git") if noted else None
    if not git:
        return "unknown"
    changed = " with uncommitted changes" if git["dirty"] else ""
    return f"{git['revision'][:12]}{changed}"

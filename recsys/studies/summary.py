"""What the finished runs of a study say together: every metric over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.core.environment import ENVIRONMENT_FILE
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split, TaskKind
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.evaluation.config import PREFIXES
from recsys.evaluation.metrics_file import Metrics, read_metrics_file
from recsys.evaluation.paired import Interval
from recsys.evaluation.predictions import read_predictions
from recsys.evaluation.tasks import groups
from recsys.runs.checkpoints import BEST, CHECKPOINTS
from recsys.studies.plan import StudyConfig, StudyRun
from recsys.systems.choice import system_of_run

#: Where a study notes how long the training of a run took.
TIMING_FILE = "timing.json"


@dataclass(frozen=True)
class Spread:
    """One metric over seeds.

    Attributes:
        mean: over the seeds for which it is defined.
        sd: standard deviation over them (n - 1); None with fewer than two.
        low: smallest value.
        high: largest value.
        by_seed: the value of each seed, with its bootstrap interval where there is one.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    by_seed: dict[int, Interval]

    @classmethod
    def of(cls, by_seed: dict[int, Interval]) -> Spread | None:
        """None where no seed defines the metric."""
        values = [one.value for one in by_seed.values() if math.isfinite(one.value)]
        if not values:
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, min(values), max(values), by_seed)


@dataclass(frozen=True)
class VariantSummary:
    """A variant's runs.

    Attributes:
        seeds: of its finished runs.
        weights: number of weights by part of the model.
        training_seconds: wall time of `recsys train`, mean over seeds; validations included.
        metrics: by name as in ``metrics.json``.
    """

    seeds: list[int]
    weights: dict[str, int]
    training_seconds: float
    metrics: dict[str, Spread]


@dataclass(frozen=True)
class Group:
    """Rows that are measured together: all of them (named ""), seen items, unseen items.

    Attributes:
        rows: number of rows.
        positives: by binary task the rows labelled 1; by regression task the observed rows.
    """

    rows: int
    positives: dict[str, int]


@dataclass(frozen=True)
class Summary:
    """A study's outcome.

    Attributes:
        title: of the study, with the view's outcome.
        split: the rows that were measured.
        baseline: the variant the others are compared with.
        binary: names of the binary tasks.
        regression: names of the regression tasks.
        groups: by name.
        rare_positives: tasks with fewer positives are marked.
        variants: by name, those with a finished run.
        protocol: how the first variant's first seed was measured.
        revisions: git revisions the runs were made with.
        jobs: runs at a time while training; the most where it differed.
    """

    title: str
    split: str
    baseline: str
    binary: list[str]
    regression: list[str]
    groups: dict[str, Group]
    rare_positives: int
    variants: dict[str, VariantSummary]
    protocol: str
    revisions: list[str]
    jobs: int

    @property
    def compared(self) -> dict[str, VariantSummary]:
        """The variants without the baseline."""
        return {name: one for name, one in self.variants.items() if name != self.baseline}

    @property
    def tasks(self) -> list[str]:
        """Binary tasks, then regression tasks."""
        return [*self.binary, *self.regression]

    def change(self, variant: str, group: str, task: str) -> Spread | None:
        """Relative change of NE (MSE for a regression task) against the baseline, percent; None
        without positives, where no NE is defined.
        """
        if self.groups[group].positives.get(task) == 0:
            return None
        loss = "mse" if task in self.regression else "ne"
        return self.metric(variant, group, f"relative_{loss}_delta/{task}")

    def metric(self, variant: str, group: str, name: str) -> Spread | None:
        """A metric of a variant on a group of rows."""
        prefix = PREFIXES[Split(self.split)]
        return self.variants[variant].metrics.get(f"{prefix}/{group}/{name}".replace("//", "/"))

    def is_rare(self, group: str, task: str) -> bool:
        """Whether a binary task has too few positives in a group for its value to say much."""
        return task in self.binary and self.groups[group].positives[task] < self.rare_positives


def summarise(config: StudyConfig, runs: Sequence[StudyRun]) -> Summary:
    """Gather the finished runs of a study that has a baseline."""
    assert config.baseline is not None
    prefix = PREFIXES[Split(config.split)]
    metrics = {run.folder: read_metrics_file(run.folder) for run in runs}
    manifest = DatasetManifest.load(runs[0].folder)
    kinds = {kind: [t.name for t in manifest.tasks if t.kind == kind] for kind in TaskKind}
    compared = next(run for run in runs if run.variant != config.baseline)
    names = [name for name in config.chosen if any(run.variant == name for run in runs)]
    timings = [_read_json(run.folder / TIMING_FILE) for run in runs]
    return Summary(
        title=config.title,
        split=config.split,
        baseline=config.baseline,
        binary=kinds[TaskKind.BINARY],
        regression=kinds[TaskKind.REGRESSION],
        groups=_groups(read_predictions(runs[0].folder, Split(config.split)), manifest),
        rare_positives=config.rare_positives,
        variants={
            name: _variant([run for run in runs if run.variant == name], metrics) for name in names
        },
        protocol=metrics[compared.folder][f"{prefix}/relative_ne_delta/mean"]["protocol"],
        revisions=revisions(runs),
        jobs=max(timing.get("jobs", 1) for timing in timings),
    )


def _variant(runs: Sequence[StudyRun], metrics: Mapping[Path, Metrics]) -> VariantSummary:
    return VariantSummary(
        seeds=[run.seed for run in runs],
        weights=_weights(runs[0].folder),
        training_seconds=training_seconds(runs),
        metrics=spreads(runs, metrics),
    )


def spreads(runs: Sequence[StudyRun], metrics: Mapping[Path, Metrics]) -> dict[str, Spread]:
    """Every metric over the seeds of a variant's runs."""
    by_name: dict[str, dict[int, Interval]] = {}
    for run in runs:
        for name, metric in metrics[run.folder].items():
            ends = (metric.get(end) for end in ("value", "low", "high"))
            value, low, high = (math.nan if end is None else end for end in ends)
            by_name.setdefault(name, {})[run.seed] = Interval(value, low, high)
    found = {name: Spread.of(values) for name, values in by_name.items()}
    return {name: spread for name, spread in found.items() if spread is not None}


def training_seconds(runs: Sequence[StudyRun]) -> float:
    """Mean wall time of the trainings; NaN where it was not noted."""
    seconds = [_read_json(run.folder / TIMING_FILE).get("training_seconds") for run in runs]
    known = [value for value in seconds if value is not None]
    return statistics.fmean(known) if known else math.nan


def revisions(runs: Sequence[StudyRun]) -> list[str]:
    """The git revisions the runs were made with."""
    return sorted({_revision(run.folder) for run in runs})


def _groups(frame: pl.DataFrame, manifest: DatasetManifest) -> dict[str, Group]:
    counted = {}
    for name, rows in groups(frame, manifest).items():
        positives = {}
        for task in manifest.tasks:
            labels = rows[task.column].drop_nans()
            binary = task.kind == TaskKind.BINARY
            positives[task.name] = int((labels > 0).sum()) if binary else len(labels)
        counted[name] = Group(len(rows), positives)
    return counted


def _weights(run_dir: Path) -> dict[str, int]:
    """Number of weights by part, from the checkpoint's tensors."""
    tensors = open_checkpoint(run_dir / CHECKPOINTS / BEST).weights()
    parts = system_of_run(run_dir).parts
    counts = dict.fromkeys(parts, 0)
    for name, tensor in tensors.items():
        part = next(part for part, start in parts.items() if name.startswith(start))
        counts[part] += tensor.numel()
    return counts


def _revision(run_dir: Path) -> str:
    git = _read_json(run_dir / ENVIRONMENT_FILE).get("git")
    if not git:
        return "unknown"
    changed = " with uncommitted changes" if git["dirty"] else ""
    return f"{git['revision'][:12]}{changed}"


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def as_json(outcome: Any) -> str:
    """A dataclass as text; what is not defined is null."""
    return json.dumps(_without_nan(asdict(outcome)), indent=2, ensure_ascii=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

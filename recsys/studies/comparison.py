"""The outcome of a study with a baseline: the change of every task, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split, TaskKind
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.evaluation.config import PREFIXES
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.evaluation.predictions import read_predictions
from recsys.evaluation.tasks import groups
from recsys.evaluation.together import MSE_DELTA, NE_DELTA
from recsys.runs.checkpoints import BEST, CHECKPOINTS
from recsys.studies import over_seeds
from recsys.studies.plan import StudyConfig, StudyRun
from recsys.studies.spread import Spread
from recsys.systems.choice import system_of_run


@dataclass(frozen=True)
class MeasuredVariant:
    """A variant's runs.

    Attributes:
        seeds: of its finished runs.
        diverged: seeds whose training diverged; then no metric is defined.
        weights: number of weights by part of the model.
        training_seconds: wall time of `recsys train`, mean over seeds; validations included.
        metrics: by name as in ``metrics.json``.
    """

    seeds: list[int]
    diverged: list[int]
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
class Comparison:
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
    variants: dict[str, MeasuredVariant]
    protocol: str
    revisions: list[str]
    jobs: int

    @property
    def compared(self) -> dict[str, MeasuredVariant]:
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
        name = MSE_DELTA if task in self.regression else NE_DELTA
        return self.metric(variant, group, f"{name}/{task}")

    def metric(self, variant: str, group: str, name: str) -> Spread | None:
        """A metric of a variant on a group of rows."""
        prefix = PREFIXES[Split(self.split)]
        return self.variants[variant].metrics.get(f"{prefix}/{group}/{name}".replace("//", "/"))

    def is_rare(self, group: str, task: str) -> bool:
        """Whether a binary task has too few positives in a group for its value to say much."""
        return task in self.binary and self.groups[group].positives[task] < self.rare_positives


def compare_variants(
    config: StudyConfig, runs: Sequence[StudyRun], diverged: Sequence[StudyRun] = ()
) -> Comparison:
    """Gather the finished runs of a study that has a baseline, and those that diverged."""
    assert config.baseline is not None
    manifest = DatasetManifest.load(runs[0].folder)
    kinds = {kind: [t.name for t in manifest.tasks if t.kind == kind] for kind in TaskKind}
    compared = next(run for run in runs if run.variant != config.baseline)
    return Comparison(
        title=config.title,
        split=config.split,
        baseline=config.baseline,
        binary=kinds[TaskKind.BINARY],
        regression=kinds[TaskKind.REGRESSION],
        groups=_groups(read_predictions(runs[0].folder, Split(config.split)), manifest),
        rare_positives=config.rare_positives,
        variants={
            name: _measured(own, [run for run in diverged if run.variant == name])
            for name, own in over_seeds.by_variant(config, runs).items()
        },
        protocol=read_metrics_file(compared.folder)[f"{config.prefix}/{NE_DELTA}/mean"]["protocol"],
        revisions=over_seeds.revisions(runs),
        jobs=over_seeds.most_jobs(runs),
    )


def _measured(runs: Sequence[StudyRun], diverged: Sequence[StudyRun]) -> MeasuredVariant:
    return MeasuredVariant(
        seeds=[run.seed for run in runs],
        diverged=[run.seed for run in diverged],
        weights=_weights(runs[0].folder),
        training_seconds=over_seeds.training_seconds(runs),
        metrics=over_seeds.spreads(runs, diverged),
    )


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

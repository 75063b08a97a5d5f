"""Evaluation of models that predict tasks for logged rows: NE, AUC, calibration, comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.stores.requests import TRUTHS
from recsys.evaluation.comparisons import compare, measure
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.identity import CheckpointUsed, RunIdentity
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.with_protocol import interval_with_protocol, with_protocol

#: Count in the manifest: item indices below it were seen in the fit period.
FIT_ITEMS = "fit_vocabulary_item"


@dataclass(frozen=True, eq=False)
class Control:
    """The run that another one is compared with.

    Attributes:
        run_dir: its folder, as the user named it.
        frame: its predictions of the same rows.
        checkpoint: which of its weights made them.
    """

    run_dir: str
    frame: pl.DataFrame
    checkpoint: CheckpointUsed


def evaluate_tasks(
    run: RunIdentity,
    manifest: DatasetManifest,
    frame: pl.DataFrame,
    config: EvaluateConfig,
    control: Control | None,
) -> Metrics:
    """Measure the predictions of a split, alone or against another run's.

    Args:
        run: which made them.
        manifest: of the data set it was trained on.
        frame: the predictions (``recsys.evaluation.predictions``).
        config: the split, and how intervals are made.
        control: the run to compare with.
    """
    metrics = _measure_groups(run, manifest, frame, config)
    if control is not None:
        metrics |= _compare_groups(run, manifest, frame, control, config)
    return metrics


def groups(frame: pl.DataFrame, manifest: DatasetManifest) -> dict[str, pl.DataFrame]:
    """All rows (name ``""``), and apart those whose item was and was not seen in the fit period."""
    seen = (pl.col("item") > 0) & (pl.col("item") < manifest.counts[FIT_ITEMS])
    parts = {"": frame, "seen_items": frame.filter(seen), "unseen_items": frame.filter(~seen)}
    return {name: rows for name, rows in parts.items() if len(rows)}


def _measure_groups(
    run: RunIdentity, manifest: DatasetManifest, frame: pl.DataFrame, config: EvaluateConfig
) -> Metrics:
    metrics: Metrics = {}
    split, prefix, tasks = Split(config.split), config.prefix, manifest.tasks
    for name, rows in groups(frame, manifest).items():
        place = f"{prefix}/{name}".rstrip("/")
        metrics |= with_protocol(measure(rows, tasks), place, run_protocol(run, rows, split))
    for truth in TRUTHS:
        if f"{truth}_{tasks[0].name}" in frame.columns:
            protocol = run_protocol(run, frame, split, truth)
            metrics |= with_protocol(measure(frame, tasks, truth), f"{prefix}/{truth}", protocol)
    return metrics


def _compare_groups(
    run: RunIdentity,
    manifest: DatasetManifest,
    frame: pl.DataFrame,
    control: Control,
    config: EvaluateConfig,
) -> Metrics:
    metrics: Metrics = {}
    parts = groups(control.frame, manifest)
    for name, rows in groups(frame, manifest).items():
        protocol = run_protocol(run, rows, Split(config.split))
        comparisons = compare(rows, parts[name], manifest.tasks, config.bootstrap)
        for metric, interval in comparisons.items():
            place = f"{config.prefix}/{name}/{metric}".replace("//", "/")
            metrics[place] = interval_with_protocol(
                interval, protocol, control.run_dir, control.checkpoint, config.bootstrap
            )
    return metrics


def run_protocol(
    run: RunIdentity, rows: pl.DataFrame, split: Split, truth: str | None = None
) -> Protocol:
    """How the predictions of a run, or the simulator's truth, were measured on ``rows``."""
    used = run.checkpoint
    return Protocol(
        dataset=run.dataset,
        split=split.value,
        rows=len(rows),
        users=rows["user"].n_unique(),
        seed=run.seed,
        checkpoint=f"{used.name} of step {used.step}" if truth is None else "none",
        chosen_by=used.chosen_by if truth is None else f"{truth} probabilities of the simulator",
    )

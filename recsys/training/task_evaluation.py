"""Evaluation of models that predict tasks for logged rows: NE, AUC, calibration, comparisons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.manifest import DatasetManifest
from recsys.data.requests import TRUTHS
from recsys.data.schema import Split
from recsys.errors import ArtifactError
from recsys.evaluation.protocol import Protocol
from recsys.training.compare import compare, measure
from recsys.training.evaluate import PREFIXES, EvaluateConfig, evaluate
from recsys.training.load import (
    NAMED_CHECKPOINTS,
    CheckpointUsed,
    LoadedRun,
    checkpoint_of,
    load_config,
)
from recsys.training.metrics_file import Metrics
from recsys.training.predict import predict, predicted_by, read_predictions
from recsys.training.protocols import interval_with_protocol, with_protocol

#: Count in the manifest: item indices below it were seen in the fit period.
FIT_ITEMS = "fit_vocabulary_item"


def evaluate_tasks(run: LoadedRun[Any, Any], config: EvaluateConfig) -> Metrics:
    """Predict every row of the split and measure it, alone or against another run.

    Raises:
        ArtifactError: the other run was not trained on the same data set.
    """
    split = Split(config.split)
    if config.against is not None:
        check_comparable(Path(config.against), run.manifest)
    frame = predict(run, split)
    prefix = PREFIXES[split]
    metrics = _measure_groups(run, frame, split, prefix)
    if config.against is not None:
        control, used = _control_predictions(config)
        metrics |= _compare_groups(run, frame, control, used, config, prefix)
    return metrics


def groups(frame: pl.DataFrame, manifest: DatasetManifest) -> dict[str, pl.DataFrame]:
    """All rows (name ``""``), and apart those whose item was and was not seen in the fit period."""
    seen = (pl.col("item") > 0) & (pl.col("item") < manifest.counts[FIT_ITEMS])
    parts = {"": frame, "seen_items": frame.filter(seen), "unseen_items": frame.filter(~seen)}
    return {name: rows for name, rows in parts.items() if len(rows)}


def _measure_groups(
    run: LoadedRun[Any, Any], frame: pl.DataFrame, split: Split, prefix: str
) -> Metrics:
    metrics: Metrics = {}
    for name, rows in groups(frame, run.manifest).items():
        protocol = run_protocol(run, rows, split)
        place = f"{prefix}/{name}".rstrip("/")
        metrics |= with_protocol(measure(rows, run.manifest.tasks), place, protocol)
    for truth in TRUTHS:
        if f"{truth}_{run.manifest.tasks[0].name}" in frame.columns:
            values = measure(frame, run.manifest.tasks, truth)
            metrics |= with_protocol(
                values, f"{prefix}/{truth}", run_protocol(run, frame, split, truth)
            )
    return metrics


def _compare_groups(
    run: LoadedRun[Any, Any],
    frame: pl.DataFrame,
    control: pl.DataFrame,
    control_checkpoint: CheckpointUsed,
    config: EvaluateConfig,
    prefix: str,
) -> Metrics:
    metrics: Metrics = {}
    parts = groups(control, run.manifest)
    for name, rows in groups(frame, run.manifest).items():
        protocol = run_protocol(run, rows, Split(config.split))
        comparisons = compare(rows, parts[name], run.manifest.tasks, config.bootstrap)
        for metric, interval in comparisons.items():
            metrics[f"{prefix}/{name}/{metric}".replace("//", "/")] = interval_with_protocol(
                interval, protocol, str(config.against), control_checkpoint, config.bootstrap
            )
    return metrics


def run_protocol(
    run: LoadedRun[Any, Any], rows: pl.DataFrame, split: Split, truth: str | None = None
) -> Protocol:
    """How the predictions of a run, or the simulator's truth, were measured on ``rows``."""
    return Protocol(
        dataset=run.manifest.name,
        split=split.value,
        rows=len(rows),
        users=rows["user"].n_unique(),
        seed=run.config.seed,
        checkpoint=f"{run.checkpoint} of step {run.step}" if truth is None else "none",
        chosen_by=run.chosen_by if truth is None else f"{truth} probabilities of the simulator",
    )


def check_comparable(run_dir: Path, manifest: DatasetManifest) -> None:
    """Refuse a run that was trained on another data set than ``manifest`` describes.

    Raises:
        ArtifactError: it was, or the folder is no run folder.
    """
    load_config(run_dir)  # refuses what is no run folder
    trained_on = DatasetManifest.load(run_dir)
    if trained_on.fingerprint != manifest.fingerprint:
        raise ArtifactError(
            f"{run_dir} was trained on another data set ({trained_on.name}, fingerprint "
            f"{trained_on.fingerprint}) than this run ({manifest.name}, {manifest.fingerprint}); "
            "two runs are compared on the same rows only."
        )


def _control_predictions(config: EvaluateConfig) -> tuple[pl.DataFrame, CheckpointUsed]:
    """The other run's predictions, made now unless they were made by the checkpoint wanted."""
    run_dir, split = Path(str(config.against)), Split(config.split)
    name = config.checkpoint if config.checkpoint in NAMED_CHECKPOINTS else "best"
    wanted = checkpoint_of(run_dir, name)
    if predicted_by(run_dir, split) != wanted:
        evaluate(replace(config, run_dir=str(run_dir), against=None, checkpoint=name))
    return read_predictions(run_dir, split), wanted

"""What the report shows of a run of DV365."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import Split
from recsys.errors import ArtifactError
from recsys.training.load import CheckpointUsed, load_config, open_dataset
from recsys.training.metrics_file import Metrics, read_metrics_file
from recsys.training.metrics_log import read_metrics
from recsys.training.predict import predicted_by, predictions_path, read_predictions
from recsys.training.protocols import AGAINST, AGAINST_CHECKPOINT
from recsys.training.report import figures
from recsys.training.report.outcome import EXPORT_PREFIX, Outcome
from recsys.training.report.page import Page, Section, read_environment, revision, setting
from recsys.training.report.sections import (
    by_task,
    calibration_rows,
    history_breakdown,
    slice_occupancy,
)
from recsys.training.systems.dv365 import DV365RunConfig
from recsys.training.tables import BY_ITEM, COMPARED, EXPORTED, MEASURED, metric_rows
from recsys.training.task_evaluation import check_comparable


@dataclass(frozen=True)
class Material:
    """What the sections are made of.

    Attributes:
        folder: the run folder.
        against: the folder of the run it is compared with.
        config: of the run.
        dataset: its data set.
        metrics: of the run.
        prefix: ``report`` where the run was evaluated, otherwise ``val``.
        frame: predictions, where the run was evaluated.
        control: predictions of the other run.
        outcome: both runs in a few lines.
    """

    folder: Path
    against: Path | None
    config: DV365RunConfig
    dataset: PreparedDataset
    metrics: Metrics
    prefix: str
    frame: pl.DataFrame | None
    control: pl.DataFrame | None
    outcome: Outcome


def report_page(material: Material) -> Page:
    """The page and the table a run ends with."""
    environment = read_environment(material.folder)
    return Page(
        folder=material.folder,
        title=material.config.name,
        subtitle=_subtitle(material, environment),
        tiles=material.outcome.tiles(),
        sections=list(_sections(material, environment)),
        closing=material.outcome.table(),
    )


def gather(run_dir: Path, against: Path | None, dataset_folder: str | None = None) -> Material:
    """Read what the report shows.

    Args:
        run_dir: the run folder.
        against: the folder of the run it was evaluated against.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: a folder is no run, a file of it is damaged, or the run was not evaluated
            against what lies in ``against`` now.
    """
    config = cast(DV365RunConfig, load_config(run_dir))
    dataset = open_dataset(run_dir, config, dataset_folder)
    if against is not None:
        check_comparable(against, DatasetManifest.load(run_dir))
    metrics = read_metrics_file(run_dir)
    evaluated = predictions_path(run_dir, Split.REPORT).is_file()
    return Material(
        folder=run_dir,
        against=against,
        config=config,
        dataset=dataset,
        metrics=metrics,
        prefix="report" if evaluated else "val",
        frame=read_predictions(run_dir, Split.REPORT) if evaluated else None,
        control=_control(run_dir, against, metrics) if evaluated and against else None,
        outcome=Outcome.of(run_dir, against, dataset.path),
    )


def _control(run_dir: Path, against: Path, metrics: Metrics) -> pl.DataFrame:
    """The other run's predictions, if they are those the run was compared with."""
    comparison = metrics.get("report/relative_ne_delta/mean", {})
    again = f"run `recsys evaluate run_dir={run_dir} against={against}` before the report."
    if Path(comparison.get(AGAINST, "")).resolve() != against.resolve():
        raise ArtifactError(f"{run_dir} was not evaluated against {against}; {again}")
    if predicted_by(against, Split.REPORT) != CheckpointUsed(**comparison[AGAINST_CHECKPOINT]):
        raise ArtifactError(
            f"The predictions in {against} were made by another checkpoint than the one {run_dir} "
            f"was compared with; {again}"
        )
    return read_predictions(against, Split.REPORT)


def _subtitle(material: Material, environment: dict[str, Any]) -> str:
    manifest = DatasetManifest.load(material.folder)  # the data set may have grown since
    return (
        f"Trained on {manifest.name}: {manifest.counts['events']:,} events of "
        f"{manifest.counts['users']:,} users, {manifest.counts['rows_fit']:,} rows to fit"
        f"{revision(environment)}"
    )


def _sections(material: Material, environment: dict[str, Any]) -> Iterator[Section]:
    outcome = material.outcome
    yield _measured(material)
    yield from _comparison(material)
    yield _training(material)
    if material.frame is not None:
        yield from _predictions(material, material.frame)
    if material.config.encoder.name != "none":
        yield _slices(material)
    if outcome.export_lines():
        yield _export(material, outcome)
    yield Section("Where everything lies", facts=outcome.places())
    yield _setting(material, environment)


def _measured(material: Material) -> Section:
    prefix = material.prefix
    protocol = material.metrics.get(f"{prefix}/ne/mean", {}).get("protocol", "")
    rows = metric_rows(material.metrics, prefix, MEASURED)
    split = "report" if prefix == "report" else "choose (the run was not evaluated yet)"
    return Section(f"Metrics on the split {split}", note=protocol, rows=rows)


def _comparison(material: Material) -> Iterator[Section]:
    tasks, prefix = material.dataset.manifest.tasks, material.prefix
    names = (f"{prefix}/relative_ne_delta", f"{prefix}/relative_mse_delta")
    deltas = by_task(material.metrics, names, tasks)
    if not deltas:
        return
    gains = by_task(material.metrics, (f"{prefix}/gain_captured",), tasks)
    if gains:
        yield Section(
            "Share of the possible gain",
            note=(
                "(NE without timelines - NE with) / (NE without - best NE in reach of a model "
                "with the gap), in per cent, with 95% bootstrap intervals over users; MSE for "
                "watch time. The dashed line is everything that can be had."
            ),
            figure=figures.intervals(gains, "share captured, %", reference=1, percent=True),
        )
    measured_against = next(iter(deltas.values()))[AGAINST]
    yield Section(
        f"Against {measured_against}",
        note="Change in per cent, below 0 is better; 95% bootstrap intervals over users.",
        figure="" if gains else figures.intervals(deltas, "change of NE, %", 0, percent=False),
        rows=metric_rows(material.metrics, prefix, COMPARED),
    )
    by_item = metric_rows(material.metrics, prefix, BY_ITEM)
    if len(by_item[0]) > 1:
        yield Section("Items seen and not seen in the fit period", rows=by_item)


def _training(material: Material) -> Section:
    label, other = material.outcome.labels
    runs = {label: read_metrics(material.folder)}
    if material.against is not None:
        runs[other] = read_metrics(material.against)
    note = "Checkpoints are chosen on the split choose; the report split is not looked at."
    return Section(
        "Training", note=note, figure=figures.curves(runs, "val/ne/mean", "mean NE, choose split")
    )


def _predictions(material: Material, frame: pl.DataFrame) -> Iterator[Section]:
    tasks = material.dataset.manifest.tasks
    labels, lines = history_breakdown(frame, material.control, tasks, material.outcome.labels)
    yield Section(
        "By length of the history",
        note="Mean NE over the binary tasks in bins of equal numbers of rows.",
        figure=figures.by_history(labels, lines, "events in the two timelines", "mean NE"),
    )
    yield Section(
        "Calibration",
        note="Ten bins of equal size per task; bars are two standard errors.",
        figure=figures.calibration(calibration_rows(frame, tasks)),
    )


def _slices(material: Material) -> Section:
    shares = slice_occupancy(material.config, material.dataset)
    empty = [name for name, share in shares.items() if share == 0]
    note = "How often a slice has something to pool, over requests of the split choose."
    if empty:
        note += f" {len(empty)} of {len(shares)} are never filled."
    return Section(
        "Slices",
        note=note,
        figure=figures.occupancy(shares),
        text_title="never filled",
        text="\n".join(empty),
    )


def _export(material: Material, outcome: Outcome) -> Section:
    """Metrics with and without quantisation; the sizes alone where they were not measured."""
    rows = metric_rows(material.metrics, EXPORT_PREFIX, EXPORTED)
    note = ""
    if measured := material.metrics.get(f"{EXPORT_PREFIX}/ne/mean"):
        note = (
            "The same rows scored with the trained tower, and with the exported one after its "
            f"embeddings went through 4-bit rows. {measured['protocol']}"
        )
    return Section(
        "Export and publication",
        note=note,
        rows=rows if len(rows) > 1 else [],
        facts=outcome.export_lines(),
    )


def _setting(material: Material, environment: dict[str, Any]) -> Section:
    config = material.config
    facts = {
        "encoder": config.encoder.name,
        "width": str(config.model.dimension),
        "gap": f"{config.loader.gap_hours:g} hours",
        "batch": f"{config.loader.batch_requests} requests",
    }
    return setting(config, environment, facts)

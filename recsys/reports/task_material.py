"""What the report of a run that predicts tasks is made of, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl

from recsys.core.errors import ArtifactError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.identity import CheckpointUsed
from recsys.evaluation.metrics_file import Metrics, is_defined, read_metrics_file
from recsys.evaluation.predictions import (
    measured_on,
    predicted_by,
    predictions_path,
    read_predictions,
)
from recsys.evaluation.with_protocol import AGAINST, AGAINST_CHECKPOINT
from recsys.reports.task_baselines import (
    called,
    change,
    of_model,
    percent,
    strongest,
    unit,
    verdict,
)
from recsys.runs.config import RunConfig
from recsys.runs.load import check_comparable, open_dataset

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True, eq=False)
class TaskMaterial(Generic[Config]):
    """What the sections are made of.

    Attributes:
        folder: the run folder.
        against: the folder of the run it is compared with.
        labels: what the two runs are called in figures.
        config: of the run.
        dataset: its data set, which may have grown since.
        trained_on: manifest of the data set as trained on.
        metrics: of the run.
        control_metrics: of the other run; empty where there is none.
        frame: predictions, where the run was evaluated.
        control: predictions of the other run.
    """

    folder: Path
    against: Path | None
    labels: tuple[str, str]
    config: Config
    dataset: PreparedDataset
    trained_on: DatasetManifest
    metrics: Metrics
    control_metrics: Metrics
    frame: pl.DataFrame | None
    control: pl.DataFrame | None

    @property
    def prefix(self) -> str:
        """``report`` where the run was evaluated, otherwise ``val``."""
        return "val" if self.frame is None else "report"

    def numbers(self) -> dict[str, str]:
        """The few numbers of the run, by name; with an interval where there is one."""
        prefix, metrics = self.prefix, self.metrics
        other = self.control_metrics.get(f"{prefix}/ne/mean")
        rows = {
            unit(metrics, prefix): with_ends(of_model(metrics, prefix), "{:.4f}"),
            f"mean NE, {self.labels[1]}": with_ends(other, "{:.4f}"),
        }
        for name in strongest(metrics, prefix):
            found = change(metrics, prefix, name)
            sure = found is not None and is_defined(found["value"])
            rows[f"against {called(name)}"] = percent(found) if found and sure else ""
        rows |= {
            "best mean NE in reach": self.value(f"{prefix}/best_within_reach/ne/mean"),
            "best mean NE": self.value(f"{prefix}/best_absolute/ne/mean"),
            "gain captured": with_ends(metrics.get(f"{prefix}/gain_captured/mean"), "{:.1%}"),
        }
        return {name: value for name, value in rows.items() if value}

    def headline(self) -> list[str]:
        """Whether the model beats the strongest baselines."""
        return [
            verdict(self.metrics, self.prefix, name)
            for name in strongest(self.metrics, self.prefix)
        ]

    def tiles(self) -> list[dict[str, Any]]:
        """The head of the report; an interval stands below its number."""
        accents = (unit(self.metrics, self.prefix), "gain captured")
        tiles = []
        for name, text in self.numbers().items():
            value, bracket, interval = text.partition(" [")
            shown = f"{name} {bracket.strip()}{interval}".strip()
            tiles.append({"name": shown, "value": value, "accent": name in accents})
        return tiles

    def value(self, name: str, form: str = "{:.4f}") -> str:
        """A metric of the run as text; empty where it was not measured or is not defined."""
        found = self.metrics.get(name)
        return form.format(found["value"]) if found and is_defined(found["value"]) else ""


def read_material(
    folder: Path,
    against: Path | None,
    labels: tuple[str, str],
    config: Config,
    dataset_folder: str | None = None,
) -> TaskMaterial[Config]:
    """Read what the report shows.

    Args:
        folder: the run folder.
        against: the folder of the run it was evaluated against.
        labels: what the two are called in figures.
        config: of the run.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: a folder is no run, a file of it is damaged, or the run was not evaluated
            against what lies in ``against`` now.
    """
    dataset = open_dataset(folder, config, dataset_folder)
    if against is not None:
        check_comparable(against, DatasetManifest.load(folder))
    metrics = read_metrics_file(folder)
    evaluated = predictions_path(folder, Split.REPORT).is_file()
    return TaskMaterial(
        folder=folder,
        against=against,
        labels=labels,
        config=config,
        dataset=dataset,
        trained_on=DatasetManifest.load(folder),
        metrics=metrics,
        control_metrics=read_metrics_file(against) if against is not None else {},
        frame=read_predictions(folder, Split.REPORT) if evaluated else None,
        control=_control(folder, against, metrics) if evaluated and against else None,
    )


def _control(run_dir: Path, against: Path, metrics: Metrics) -> pl.DataFrame:
    """The other run's predictions, if they are those the run was compared with."""
    comparison = metrics.get("report/relative_ne_delta/mean", {})
    again = f"run `recsys evaluate run_dir={run_dir} against={against}` before the report."
    if Path(comparison.get(AGAINST, "")).resolve() != against.resolve():
        raise ArtifactError(f"{run_dir} was not evaluated against {against}; {again}")
    if measured_on(against, Split.REPORT) != measured_on(run_dir, Split.REPORT):
        raise ArtifactError(
            f"{against} and {run_dir} were measured on other rows, for days were appended between "
            f"the two; {again}"
        )
    if predicted_by(against, Split.REPORT) != CheckpointUsed(**comparison[AGAINST_CHECKPOINT]):
        raise ArtifactError(
            f"The predictions in {against} were made by another checkpoint than the one {run_dir} "
            f"was compared with; {again}"
        )
    return read_predictions(against, Split.REPORT)


def with_ends(metric: Mapping[str, Any] | None, form: str) -> str:
    """A metric as text, with its interval where it has one; empty where it is not defined."""
    if metric is None or not is_defined(metric["value"]):
        return ""
    text = form.format(metric["value"])
    if not is_defined(metric.get("low")) or not is_defined(metric.get("high")):
        return text
    low, high = (form.format(metric[end]) for end in ("low", "high"))
    return f"{text} [{low}, {high}]"

"""What the report of a run that predicts tasks is made of, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl

from recsys.core.errors import ArtifactError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.identity import CheckpointUsed
from recsys.evaluation.metrics_file import Metrics, read_metrics_file
from recsys.evaluation.predictions import (
    measured_on,
    predicted_by,
    predictions_path,
    read_predictions,
)
from recsys.evaluation.with_protocol import AGAINST, AGAINST_CHECKPOINT
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
        dataset: its data set.
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
    metrics: Metrics
    control_metrics: Metrics
    frame: pl.DataFrame | None
    control: pl.DataFrame | None

    @property
    def prefix(self) -> str:
        """``report`` where the run was evaluated, otherwise ``val``."""
        return "val" if self.frame is None else "report"

    def numbers(self) -> dict[str, str]:
        """The few numbers of the run, by name."""
        prefix = self.prefix
        rows = {
            "mean NE": self.value(f"{prefix}/ne/mean"),
            f"mean NE, {self.labels[1]}": _form(
                self.control_metrics.get(f"{prefix}/ne/mean"), "{:.4f}"
            ),
            "best mean NE in reach": self.value(f"{prefix}/best_within_reach/ne/mean"),
            "best mean NE": self.value(f"{prefix}/best_absolute/ne/mean"),
            "gain captured": self.value(f"{prefix}/gain_captured/mean", "{:.1%}"),
        }
        return {name: value for name, value in rows.items() if value}

    def tiles(self) -> list[dict[str, Any]]:
        """The head of the report."""
        accents = ("mean NE", "gain captured")
        return [
            {"name": name, "value": value, "accent": name in accents}
            for name, value in self.numbers().items()
        ]

    def value(self, name: str, form: str = "{:.4f}") -> str:
        """A metric of the run as text; empty where it was not measured or is not defined."""
        return _form(self.metrics.get(name), form)


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


def _form(metric: dict[str, Any] | None, form: str) -> str:
    return form.format(metric["value"]) if metric and metric["value"] is not None else ""

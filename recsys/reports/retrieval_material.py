"""What the report of a retrieval run is made of, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.artifacts.manifest import ARTIFACT, read_manifest_if_any
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.metrics_file import Metrics, read_metrics_file
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.predictions import predictions_path, read_predictions
from recsys.evaluation.retrieval import ALIVE
from recsys.evaluation.retrieval_evaluation import QUERIES
from recsys.reports.retrieval_tables import (
    candidate_names,
    group_metric,
    not_telling,
    telling,
    winner,
)
from recsys.runs.load import open_dataset
from recsys.runs.retrieval_config import RetrievalRunConfig


@dataclass(frozen=True)
class RetrievalMaterial:
    """What the sections are made of.

    Attributes:
        folder: the run folder.
        described: what was trained: ``model``, its name, and its most telling settings.
        monitor: what picked the checkpoint.
        config: of the run.
        dataset: its data set, which may have grown since.
        trained_on: manifest of the data set as trained on.
        metrics: of the run.
        prefix: ``report`` where the run was evaluated on that split, otherwise ``val``.
        frame: ranks of that split; None where the run was not evaluated.
        artifact: manifest of the export; empty where there is none.
    """

    folder: Path
    described: dict[str, str]
    monitor: Monitor
    config: RetrievalRunConfig
    dataset: PreparedDataset
    trained_on: DatasetManifest
    metrics: Metrics
    prefix: str
    frame: pl.DataFrame | None
    artifact: dict[str, Any]

    @property
    def candidates(self) -> list[str]:
        """The candidate sets that were measured."""
        return candidate_names(self.metrics, self.prefix)

    def metric(self, candidates: str) -> str:
        """What is shown of a candidate set where one number has to do."""
        return group_metric(self.metrics, self.prefix, candidates)

    def tells(self, candidates: str) -> bool:
        """Whether a candidate set says anything of the model."""
        return not self.problem(candidates)

    def problem(self, candidates: str) -> str:
        """Why a candidate set says nothing of the model; empty where it does."""
        if candidates == ALIVE and not self.has_times:
            return "Not telling: times of this log are an order, of which no hours are known."
        if telling(self.metrics, self.prefix, candidates, self._num_items):
            return ""
        return not_telling(self.metrics, self.prefix, candidates)

    @property
    def has_times(self) -> bool:
        """Whether moments of the log are times, not an order alone."""
        said = self.config.sequences.has_times
        return self.trained_on.has_times if said is None else said

    def winners(self) -> list[str]:
        """Which scorer is best, a sentence for each candidate set that tells anything."""
        found = (
            winner(self.metrics, self.prefix, name) for name in self.candidates if self.tells(name)
        )
        return [sentence for sentence in found if sentence]

    @property
    def _num_items(self) -> int:
        return self.trained_on.vocabulary_sizes["item"] - 1

    def measured(self) -> dict[str, str]:
        """The few numbers of the run, by name."""
        return headline(self.metrics, self.prefix, self._num_items)


def headline(metrics: Metrics, prefix: str, num_items: int) -> dict[str, str]:
    """A metric of each candidate set, by what is measured on how many queries.

    A metric that tells nothing of the model (:func:`telling`) is left out. Metrics of a run that
    was not evaluated come without the number of queries.

    Args:
        metrics: of the run.
        prefix: of the split.
        num_items: of the data set, the most candidates there can be.
    """
    found = {}
    for candidates in candidate_names(metrics, prefix):
        name = group_metric(metrics, prefix, candidates)
        measured = metrics[f"{prefix}/{name}/{candidates}"]
        queries = measured.get(QUERIES)
        if measured["value"] is not None and telling(metrics, prefix, candidates, num_items):
            number = f" ({queries:,} queries)" if queries is not None else ""
            found[f"{name}, {candidates}{number}"] = f"{measured['value']:.4f}"
    return found


def read_material(
    folder: Path,
    config: RetrievalRunConfig,
    described: dict[str, str],
    monitor: Monitor,
    dataset_folder: str | None = None,
) -> RetrievalMaterial:
    """Read what the report shows.

    Args:
        folder: the run folder.
        config: of the run.
        described: what was trained.
        monitor: what picked the checkpoint.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: a file of the run is damaged, or its data set is not there.
    """
    split = next(
        (one for one in (Split.REPORT, Split.CHOOSE) if predictions_path(folder, one).is_file()),
        None,
    )
    return RetrievalMaterial(
        folder=folder,
        described=described,
        monitor=monitor,
        config=config,
        dataset=open_dataset(folder, config, dataset_folder),
        trained_on=DatasetManifest.load(folder),
        metrics=read_metrics_file(folder),
        prefix="report" if split is Split.REPORT else "val",
        frame=read_predictions(folder, split) if split is not None else None,
        artifact=read_manifest_if_any(folder / ARTIFACT),
    )

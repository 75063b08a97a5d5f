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
from recsys.evaluation.retrieval import BATCH, UNSEEN_BATCH
from recsys.evaluation.retrieval_evaluation import QUERIES
from recsys.evaluation.retrieval_metrics import RetrievalMetric
from recsys.reports.retrieval_tables import candidate_names, group_metric
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

    def measured(self) -> dict[str, str]:
        """The few numbers of the run, by name."""
        return headline(self.metrics, self.prefix, self.trained_on.vocabulary_sizes["item"] - 1)


def headline(metrics: Metrics, prefix: str, num_items: int) -> dict[str, str]:
    """A metric of each candidate set, by what is measured on how many queries.

    A metric at K among K candidates or fewer says nothing of the model; it is left out. Metrics
    of a run that was not evaluated come without the number of queries.

    Args:
        metrics: of the run.
        prefix: of the split.
        num_items: of the data set, the most candidates there can be.
    """
    found = {}
    for candidates in candidate_names(metrics, prefix):
        name = group_metric(metrics, prefix, candidates)
        measured = metrics[f"{prefix}/{name}/{candidates}"]
        queries, most = measured.get(QUERIES), num_items
        if queries is not None and candidates in (BATCH, UNSEEN_BATCH):
            # fewer queries than a batch are one smaller batch: no more candidates than queries
            most = min(most, queries)
        k = RetrievalMetric.parse(name).k
        if measured["value"] is not None and (k is None or most > k):
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

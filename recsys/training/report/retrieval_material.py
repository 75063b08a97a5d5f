"""What the report of a retrieval run is made of, read from its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import Split
from recsys.evaluation.retrieval_metrics import RetrievalMetric
from recsys.training.load import load_config, open_dataset
from recsys.training.metrics_file import Metrics, read_metrics_file
from recsys.training.predict import predictions_path, read_predictions
from recsys.training.report.outcome import ARTIFACT
from recsys.training.retrieval import BATCH, UNSEEN_BATCH
from recsys.training.retrieval_evaluation import QUERIES
from recsys.training.retrieval_tables import candidate_names, group_metric
from recsys.training.systems.retrieval import RetrievalRunConfig, RetrievalSystem


@dataclass(frozen=True)
class Material:
    """What the sections are made of.

    Attributes:
        folder: the run folder.
        system: what was trained.
        config: of the run.
        dataset: its data set, which may have grown since.
        trained_on: manifest of the data set as trained on.
        metrics: of the run.
        prefix: ``report`` where the run was evaluated on that split, otherwise ``val``.
        frame: ranks of that split; None where the run was not evaluated.
        artifact: manifest of the export; empty where there is none.
    """

    folder: Path
    system: RetrievalSystem[Any]
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


def headline(metrics: Metrics, prefix: str, num_posts: int) -> dict[str, str]:
    """A metric of each candidate set, by what is measured on how many queries.

    A metric at K among K candidates or fewer says nothing of the model; it is left out. Metrics
    of a run that was not evaluated come without the number of queries.

    Args:
        metrics: of the run.
        prefix: of the split.
        num_posts: of the data set, the most candidates there can be.
    """
    found = {}
    for candidates in candidate_names(metrics, prefix):
        name = group_metric(metrics, prefix, candidates)
        measured = metrics[f"{prefix}/{name}/{candidates}"]
        queries, most = measured.get(QUERIES), num_posts
        if queries is not None and candidates in (BATCH, UNSEEN_BATCH):
            # fewer queries than a batch are one smaller batch: no more candidates than queries
            most = min(most, queries)
        k = RetrievalMetric.parse(name).k
        if measured["value"] is not None and (k is None or most > k):
            number = f" ({queries:,} queries)" if queries is not None else ""
            found[f"{name}, {candidates}{number}"] = f"{measured['value']:.4f}"
    return found


def gather(
    system: RetrievalSystem[Any], folder: Path, dataset_folder: str | None = None
) -> Material:
    """Read what the report shows.

    Raises:
        ArtifactError: a file of the run is damaged, or its data set is not there.
    """
    config = load_config(folder)
    assert isinstance(config, RetrievalRunConfig)
    split = next(
        (one for one in (Split.REPORT, Split.CHOOSE) if predictions_path(folder, one).is_file()),
        None,
    )
    manifest = folder / ARTIFACT / "manifest.json"
    return Material(
        folder=folder,
        system=system,
        config=config,
        dataset=open_dataset(folder, config, dataset_folder),
        trained_on=DatasetManifest.load(folder),
        metrics=read_metrics_file(folder),
        prefix="report" if split is Split.REPORT else "val",
        frame=read_predictions(folder, split) if split is not None else None,
        artifact=json.loads(manifest.read_text()) if manifest.is_file() else {},
    )

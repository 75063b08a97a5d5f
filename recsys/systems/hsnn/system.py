"""HSNN for the commands."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.core.progress import track
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.hour_of_day import with_hour
from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.content.clusters import candidate_features
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.loaders.nothing_to_learn import refuse_constant_labels
from recsys.data.loaders.unlabelled import UnlabelledDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.vocabulary import INDEX
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.retrieval import RetrievalProtocol
from recsys.evaluation.tasks import Control
from recsys.index.catalogue import Catalogue
from recsys.index.hierarchy.scoring import ItemTree
from recsys.nn.hierarchy.nodes import RANDOM
from recsys.nn.losses import LabelStatistics
from recsys.reports.page import Page
from recsys.runs.system import Assembly
from recsys.serving.recommend import Recommender
from recsys.serving.tree import tree_recommender
from recsys.systems.base import ExportConfig, refuse_undefined
from recsys.systems.hsnn.config import HsnnRun, HsnnRunConfig
from recsys.systems.hsnn.measure import measure_descent
from recsys.systems.hsnn.module import Hsnn
from recsys.systems.hsnn.report import print_descent, report_page
from recsys.systems.hsnn.scoring import Scoring
from recsys.systems.kinds.known_items import known_items
from recsys.systems.kinds.tasks import TaskSystem

#: Fit requests by whose rows what is counted is standardised.
_MEASURED_REQUESTS = 2048
#: Items embedded, and requests whose pairs are scored, at a time.
_ITEMS_AT_A_TIME, _REQUESTS_AT_A_TIME = 8192, 256


class HsnnSystem(TaskSystem[HsnnRunConfig]):
    """Features and counts of users and items, to every task, level by level."""

    name = "hsnn"
    config = HsnnRunConfig
    parts = MappingProxyType(
        {
            "levels": "net.levels.",
            "codes": "net.nodes.",
            "items": "net.items.",
            "net": "",
        }
    )
    compared_part = "items"

    def data(self, config: HsnnRunConfig, dataset: PreparedDataset) -> UnlabelledDataModule:
        """What reads rows, recent events and counts.

        Raises:
            ConfigError: published user embeddings are asked for.
        """
        if config.loader.user_embeddings.stores:
            raise ConfigError(
                "hsnn reads no published user embeddings; leave loader.user_embeddings.stores out, "
                "or train ranker or two_tower."
            )
        return UnlabelledDataModule(config.loader, dataset)

    def assemble(
        self, config: HsnnRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the loss and the counts are scaled by the fit rows."""
        refuse_constant_labels(dataset)
        _task(config, manifest, config.descent.task)
        _refuse_more_codes_than_items(config, manifest)
        labels = torch.tensor(dataset.requests(Split.FIT).labels)
        data = self.data(config, dataset)
        model = _model(config, dataset, manifest, LabelStatistics.from_labels(labels))
        sample = [batch.counted for batch in data.sample(Split.FIT, _MEASURED_REQUESTS)]
        model.net.measure_counted(torch.cat(sample))
        every = np.arange(1, manifest.vocabulary_sizes["item"])
        if config.model.net.levels:
            model.embed_items = lambda: _embed(model, data.reader, every)
        return Assembly(model, data)

    def restore(
        self, config: HsnnRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Hsnn:
        """The model; statistics of labels and counts come with its weights."""
        return _model(config, dataset, manifest)

    def evaluate(self, run: HsnnRun, config: EvaluateConfig, control: Control | None) -> Metrics:
        """NE and so on of every row; hits of every item scored and of descents; the nodes."""
        metrics = super().evaluate(run, config, control)
        known = np.arange(run.dataset.manifest.vocabulary_sizes["item"]) > 0
        engagements = EngagementStore.open(run.dataset, run.config.sequences, known)
        protocol = RetrievalProtocol(
            run.config.evaluation, run.dataset, engagements, known, Split(config.split)
        )
        scoring = self.scoring(run)
        items = ItemTree(scoring, np.flatnonzero(known))
        task = _task(run.config, run.manifest, run.config.descent.task)
        descent = run.config.descent
        return metrics | measure_descent(
            run.identity, config, protocol, scoring, items, descent, task
        )

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per task, a line per baseline, and a table of the beams."""
        super().show(metrics, config)
        print_descent(metrics, config)

    def scoring(self, run: HsnnRun) -> Scoring:
        """Scores by the model, each with the same bits whoever asks."""
        return Scoring(run, self.data(run.config, run.dataset).reader)

    def score(self, run: HsnnRun, rows: GivenRows) -> dict[str, NDArray[np.float64]]:
        """The prediction of every task, of items in the nodes that the model has for them."""
        rows = with_hour(rows, run.dataset.manifest)
        scoring, requests = self.scoring(run), rows.requests
        found = np.empty((len(rows), len(run.manifest.tasks)))
        parts = range(0, len(requests), _REQUESTS_AT_A_TIME)
        for first in track(parts, "Scoring") if len(parts) > 1 else parts:
            some = slice(first, first + _REQUESTS_AT_A_TIME)
            users = scoring.users(requests.user[some], requests.moment[some])
            lengths = np.diff(requests.offsets[first : first + len(users.user) + 1])
            begin = requests.offsets[first]
            place = requests.row[begin : begin + lengths.sum()]
            context = scoring.context(rows.context_of(place), len(place))
            user = np.repeat(np.arange(len(users.user)), lengths)
            found[place] = scoring.given(users, user, rows.item[place], context)
        refuse_undefined(run, found)
        return {task.name: found[:, number] for number, task in enumerate(run.manifest.tasks)}

    def check_request(self, run: HsnnRun, has_only: bool, task: str | None) -> None:
        """It chooses among all items, by one of its tasks."""
        _task(run.config, run.manifest, task)

    def recommender(self, run: HsnnRun, moment: int, task: str | None = None) -> Recommender:
        """By descending the tree of the items that the log had by then."""
        known = known_items(run, None, moment)
        scoring = self.scoring(run)
        return tree_recommender(
            Catalogue.of(known.drop(INDEX)),
            run.dataset,
            scoring,
            ItemTree(scoring, known[INDEX].cast(pl.Int64).to_numpy()),
            _task(run.config, run.manifest, task),
            run.config.descent.beam,
        )

    def export(self, run: HsnnRun, config: ExportConfig) -> Path:
        """Networks and tree in TorchScript, which cannot be parted.

        Raises:
            ConfigError: its nodes are drawn.
        """
        if run.config.model.net.index.method == RANDOM:
            raise ConfigError(
                f"the nodes of {run.folder} are drawn (model.net.index.method=random): they are "
                "what others are compared with, and are not exported. Train with another method."
            )
        # what compiles takes seconds to import
        from recsys.systems.hsnn.export import export_run

        reader = self.data(run.config, run.dataset).reader
        task = _task(run.config, run.manifest, None)
        return export_run(run, config, self.scoring(run), reader, task)

    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """NE and calibration of every task, what descents find, and the nodes."""
        return report_page(folder, against, dataset)


def _task(config: HsnnRunConfig, manifest: DatasetManifest, name: str | None) -> int:
    """Position of a task; of none, that of ``descent.task``, or the first."""
    names = [one.name for one in manifest.tasks]
    wanted = name or config.descent.task or names[0]
    if wanted not in names:
        raise ConfigError(f"hsnn predicts no task {wanted}; it is one of {', '.join(names)}.")
    return names.index(wanted)


def _refuse_more_codes_than_items(config: HsnnRunConfig, manifest: DatasetManifest) -> None:
    items = manifest.vocabulary_sizes["item"] - 1
    for number, level in enumerate(config.model.net.levels):
        if level.codes > items:
            raise ConfigError(
                f"model.net.levels[{number}].codes={level.codes:,} are more than the {items:,} "
                f"items of {manifest.name}; give fewer, about the square root of their number."
            )


@torch.no_grad()
def _embed(model: Hsnn, reader: RankingReader, item: NDArray[np.int64]) -> Tensor:
    """[n, W] on the CPU, by a model that is being trained."""
    training = model.training
    model.eval()
    parts = []
    for first in range(0, len(item), _ITEMS_AT_A_TIME):
        columns = reader.items(item[first : first + _ITEMS_AT_A_TIME])
        parts.append(model.net.embed(*(one.to(model.device) for one in columns)).float().cpu())
    model.train(training)
    return torch.cat(parts)


def _model(
    config: HsnnRunConfig,
    dataset: PreparedDataset,
    manifest: DatasetManifest,
    statistics: LabelStatistics | None = None,
) -> Hsnn:
    counted = len(candidate_features(dataset, config.loader.features).names)
    length = config.loader.max_events
    return Hsnn(config.model, manifest, length, counted, config.optim, statistics)

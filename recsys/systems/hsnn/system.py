"""HSNN for the commands."""

from __future__ import annotations

from pathlib import Path

import torch

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.features.candidate_features import CandidateFeatures
from recsys.data.loaders.nothing_to_learn import refuse_constant_labels
from recsys.data.loaders.ranking import RankingDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.nn.losses import LabelStatistics
from recsys.reports.page import Page
from recsys.runs.system import Assembly
from recsys.systems.hsnn.config import HsnnRunConfig
from recsys.systems.hsnn.module import Hsnn
from recsys.systems.kinds.tasks import TaskSystem
from recsys.systems.sizing import Extent, Given, Sized, power_of_two, schedule

#: Fit requests by whose rows what is counted is standardised.
_MEASURED_REQUESTS = 2048


class HsnnSystem(TaskSystem[HsnnRunConfig]):
    """Features and counts of users and items, to every task, level by level."""

    name = "hsnn"
    config = HsnnRunConfig

    def data(self, config: HsnnRunConfig, dataset: PreparedDataset) -> RankingDataModule:
        """What reads rows, recent events and counts."""
        return RankingDataModule(config.loader, dataset)

    def assemble(
        self, config: HsnnRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the loss and the counts are scaled by the fit rows."""
        refuse_constant_labels(dataset)
        labels = torch.tensor(dataset.requests(Split.FIT).labels)
        data = self.data(config, dataset)
        model = _model(config, dataset, manifest, LabelStatistics.from_labels(labels))
        sample = [batch.counted for batch in data.sample(Split.FIT, _MEASURED_REQUESTS)]
        model.net.measure_counted(torch.cat(sample))
        return Assembly(model, data)

    def restore(
        self, config: HsnnRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Hsnn:
        """The model; statistics of labels and counts come with its weights."""
        return _model(config, dataset, manifest)

    def sized(self, config: HsnnRunConfig, dataset: PreparedDataset, given: Given) -> list[Sized]:
        """Batches of about 512 rows."""
        requests = dataset.requests(Split.FIT)
        rows = requests.num_rows / max(len(requests), 1)
        largest = min(max(power_of_two(512 / rows), 16), 256)
        extent = Extent(16, largest, steps_an_epoch=200, total_steps=1_000, most_epochs=3)
        key = "loader.batch_requests"
        return schedule(extent, len(requests), "requests", key, 50, config.num_processes, given)

    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """NE and calibration of every task."""
        raise NotImplementedError


def _model(
    config: HsnnRunConfig,
    dataset: PreparedDataset,
    manifest: DatasetManifest,
    statistics: LabelStatistics | None = None,
) -> Hsnn:
    counted = len(CandidateFeatures(dataset, config.loader.features).names)
    length = config.loader.max_events
    return Hsnn(config.model, manifest, length, counted, config.optim, statistics)

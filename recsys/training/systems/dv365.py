"""DV365 in run assembly: timelines sliced, pooled and encoded inside a DLRM."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.data.datamodule import LoaderConfig, RequestDataModule
from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import Split
from recsys.data.slice_families import SliceConfig
from recsys.data.slices import SliceSet
from recsys.evaluation.protocol import LOGGED_IMPRESSIONS
from recsys.models.dv365 import DV365, DV365Config, OptimConfig
from recsys.nn.encoders.base import EncoderConfig
from recsys.nn.losses import LabelStatistics
from recsys.training.config import RunConfig
from recsys.training.evaluate import EvaluateConfig
from recsys.training.load import LoadedRun
from recsys.training.metrics_file import Metrics
from recsys.training.systems.base import Assembly, Measured, Monitor, System
from recsys.training.tables import print_evaluation
from recsys.training.task_evaluation import evaluate_tasks

if TYPE_CHECKING:
    from recsys.training.report.page import Page


@dataclass(frozen=True)
class DV365RunConfig(RunConfig):
    """Everything a run of DV365 depends on; conf/train.yaml composes it.

    Attributes:
        slices: which slices of the timelines are pooled.
        encoder: how pooled slices become the user embedding.
        model: sizes of tables and backbone, the gap, weights of the tasks.
        optim: optimisers of the tables and of everything else.
        loader: batches and workers.
    """

    system: str = "dv365"
    slices: SliceConfig = field(default_factory=SliceConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: DV365Config = field(default_factory=DV365Config)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)


#: Fit requests whose slices are counted before the training.
_MEASURED_REQUESTS = 2048

#: A trained DV365 with its run.
DV365Run = LoadedRun[DV365RunConfig, DV365]


class DV365System(System[DV365RunConfig]):
    """The user tower inside the backbone simulation network."""

    name = "dv365"
    primary = "train"
    config = DV365RunConfig
    monitor = Monitor("val/ne/mean")

    def assemble(
        self, config: DV365RunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the loss is scaled by the fit labels, counts by the fit histories."""
        labels = torch.tensor(dataset.requests(Split.FIT).labels)
        model = _model(config, manifest, LabelStatistics.from_labels(labels))
        data = RequestDataModule(config.loader, dataset)
        model.measure_slices(data.sample(Split.FIT, _MEASURED_REQUESTS))
        return Assembly(model, data)

    def restore(
        self, config: DV365RunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> DV365:
        """The model; the statistics of the labels come with its weights."""
        return _model(config, manifest)

    def measured(self, config: DV365RunConfig, dataset: PreparedDataset, split: Split) -> Measured:
        """Every row of the split."""
        requests = dataset.requests(split)
        return Measured(requests.num_rows, len(np.unique(requests.user)), LOGGED_IMPRESSIONS)

    def evaluate(self, run: DV365Run, config: EvaluateConfig) -> Metrics:
        """NE, AUC and calibration of every task."""
        return evaluate_tasks(run, config)

    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """NE of every task, calibration, slices, the export."""
        # figures are drawn with a library that training does not need
        from recsys.training.report.dv365 import gather, report_page

        return report_page(gather(folder, against, dataset))

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per task."""
        print_evaluation(metrics, config)


def _model(
    config: DV365RunConfig, manifest: DatasetManifest, statistics: LabelStatistics | None = None
) -> DV365:
    slice_set = SliceSet.from_config(config.slices, manifest.surfaces, manifest.media_types)
    return DV365(config.model, manifest, slice_set, config.encoder, config.optim, statistics)

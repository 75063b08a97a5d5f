"""DV365 for the commands: timelines sliced, pooled and encoded inside a DLRM."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.loaders.nothing_to_learn import refuse_constant_labels
from recsys.data.loaders.requests import RequestDataModule
from recsys.data.prepare.seen import Seen, slices_seen
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.dataset import PreparedDataset
from recsys.nn.losses import LabelStatistics
from recsys.reports.page import Page
from recsys.runs.system import Assembly
from recsys.systems.base import ExportConfig
from recsys.systems.dv365.config import DV365Run, DV365RunConfig
from recsys.systems.dv365.module import DV365
from recsys.systems.kinds.tasks import TaskSystem
from recsys.systems.sizing import Given, Sized

#: Fit requests whose slices are counted before the training.
_MEASURED_REQUESTS = 2048
#: Events of a log from which on conf/slices/full.yaml is taken.
_FULL_SLICES = 200_000


class DV365System(TaskSystem[DV365RunConfig]):
    """The user tower inside the backbone simulation network."""

    name = "dv365"
    config = DV365RunConfig
    parts = MappingProxyType(
        {
            "tables of the timelines": "tower.pooling.",
            "encoder": "tower.encoder.",
            "recent events": "tower.recent.",
            "backbone": "",
        }
    )
    compared_part = "encoder"

    def data(self, config: DV365RunConfig, dataset: PreparedDataset) -> RequestDataModule:
        """What reads rows and whole timelines."""
        return RequestDataModule(config.loader, dataset)

    def dataset_of(self, config: DV365RunConfig, dataset: PreparedDataset) -> PreparedDataset:
        """The labels of the tasks that are trained."""
        return dataset.of_tasks(config.model.tasks)

    def assemble(
        self, config: DV365RunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the loss is scaled by the fit labels, counts by the fit histories."""
        refuse_constant_labels(dataset)
        labels = torch.tensor(dataset.requests(Split.FIT).labels)
        model = _model(config, manifest, LabelStatistics.from_labels(labels))
        data = self.data(config, dataset)
        model.measure_slices(data.sample(Split.FIT, _MEASURED_REQUESTS))
        return Assembly(model, data)

    def compiled_parts(self, model: lightning.LightningModule) -> list[nn.Module]:
        """The encoder of the user tower."""
        return [model.tower.encoder] if isinstance(model, DV365) and model.tower else []

    def restore(
        self, config: DV365RunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> DV365:
        """The model; the statistics of the labels come with its weights."""
        return _model(config, manifest)

    def sized(self, config: DV365RunConfig, dataset: PreparedDataset, given: Given) -> list[Sized]:
        """Batches of about 512 rows; the full set of slices where there is enough to fill it."""
        sized = super().sized(config, dataset, given)
        events = dataset.manifest.counts["events"]
        if events >= _FULL_SLICES:
            sized.append(Sized("slices", "full", f"{events:,} events fill 200 slices"))
        return sized

    def seen(self, config: DV365RunConfig, dataset: PreparedDataset) -> list[Seen]:
        """What the slices pool of the two timelines; nothing where there are none."""
        without_timelines = config.encoder.name == "none" or config.loader.without_timelines
        if without_timelines or not dataset.manifest.tasks:
            return []
        return slices_seen(dataset, SliceSet.of(config.slices, dataset.manifest))

    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """NE of every task, calibration, slices, the export."""
        # figures are drawn with a library that training does not need
        from recsys.systems.dv365.report import read_material, report_page

        return report_page(read_material(folder, against, dataset))

    def user_embeddings(
        self, run: DV365Run, user: NDArray[np.int64], moment: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """[B, N_out, D] of the two timelines, as a float; published rows have 4 bits."""
        tower = run.model.tower
        if tower is None:
            raise ConfigError(
                f"{run.folder} was trained without timelines (encoder.name=none), so it has no "
                "user embeddings; take a run with an encoder."
            )
        none = np.zeros(len(user), np.int64)
        reader = self.data(run.config, run.dataset).reader
        batch = reader.given(user, moment, none, none[:0])
        with torch.inference_mode():
            found: NDArray[np.float32] = tower(
                batch.explicit, batch.implicit, batch.request_time
            ).numpy()
        return found

    def export(self, run: DV365Run, config: ExportConfig) -> Path:
        """The user tower in TorchScript, with quantised tables."""
        # what compiles and quantises takes seconds to import
        from recsys.systems.dv365.export import export_run

        return export_run(run, config)


def _model(
    config: DV365RunConfig, manifest: DatasetManifest, statistics: LabelStatistics | None = None
) -> DV365:
    slice_set = SliceSet.of(config.slices, manifest)
    return DV365(config.model, manifest, slice_set, config.encoder, config.optim, statistics)

"""The ranker for the commands."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from recsys.core.console import message_console
from recsys.data.content.clusters import candidate_features
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.loaders.nothing_to_learn import refuse_constant_labels
from recsys.data.loaders.ranking import RankingDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.embeddings.point_in_time import PointInTimeEmbeddings
from recsys.evaluation.calibration import Calibration, calibrate
from recsys.evaluation.comparisons import labels_of, scores
from recsys.evaluation.division import once
from recsys.nn.losses import LabelStatistics
from recsys.reports.page import Page
from recsys.runs.load import LoadedRun, load_run
from recsys.runs.system import Assembly
from recsys.systems.base import ExportConfig
from recsys.systems.kinds.tasks import TaskSystem
from recsys.systems.ranker.config import RankerRun, RankerRunConfig
from recsys.systems.ranker.module import Ranker

#: Fit requests by whose rows what is counted is standardised.
_MEASURED_REQUESTS = 2048


class RankerSystem(TaskSystem[RankerRunConfig]):
    """Features, counts and recent events of a candidate, to every task."""

    name = "ranker"
    config = RankerRunConfig
    parts = MappingProxyType(
        {
            "recent events": "net.recent.",
            "counts": "net.counted.",
            "tasks": "net.towers.",
            "net": "",
        }
    )
    compared_part = "net"

    def data(self, config: RankerRunConfig, dataset: PreparedDataset) -> RankingDataModule:
        """What reads rows, recent events, counts and published embeddings."""
        return RankingDataModule(config.loader, dataset, _user_embeddings(config, dataset))

    def assemble(
        self, config: RankerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
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
        self, config: RankerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Ranker:
        """The model; statistics of labels and counts come with its weights."""
        return _model(config, dataset, manifest)

    def finish(self, run_dir: Path) -> None:
        """Calibrate the best checkpoint on the choose split: ``calibration.json``."""
        run = load_run(self, run_dir)
        if (found := self._calibrated(run)) is not None:
            found.save(run_dir)

    def calibration(self, run: LoadedRun[Any, Any]) -> Calibration | None:
        """That of the run folder; of another checkpoint than the best it is made now, not kept."""
        kept = Calibration.read(run.folder)
        if kept is not None and (kept.checkpoint, kept.method) == (
            run.checkpoint,
            run.config.model.calibration,
        ):
            return kept
        if run.model.calibration is None:  # a recommender asks again and again
            run.model.calibration = self._calibrated(run)
        found: Calibration | None = run.model.calibration
        return found

    def _calibrated(self, run: LoadedRun[Any, Any]) -> Calibration | None:
        method = run.config.model.calibration
        if method == "none":
            return None
        frame = self.predicted(run, self.data(run.config, run.dataset), Split.CHOOSE)
        tasks = run.manifest.tasks
        found = calibrate(
            method,
            tasks,
            scores(frame, tasks, "prediction"),
            labels_of(frame, tasks),
            run.checkpoint,
            run.dataset.manifest.fingerprint,
        )
        once(lambda: _say_why(found))
        return found

    def export(self, run: RankerRun, config: ExportConfig) -> Path:
        """The user side of a request and its candidates in TorchScript, with the calibration."""
        # what compiles takes seconds to import
        from recsys.systems.ranker.export import export_run

        data = self.data(run.config, run.dataset)
        return export_run(run, config, data, self.calibration(run))

    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """NE and calibration of every task."""
        # figures are drawn with a library that training does not need
        from recsys.systems.ranker.report import report_page

        return report_page(folder, against, dataset)


def _user_embeddings(
    config: RankerRunConfig, dataset: PreparedDataset
) -> PointInTimeEmbeddings | None:
    asked = config.loader.user_embeddings
    if not asked.stores:
        return None
    return PointInTimeEmbeddings(dataset, asked.stores, asked.delay_hours)


def _model(
    config: RankerRunConfig,
    dataset: PreparedDataset,
    manifest: DatasetManifest,
    statistics: LabelStatistics | None = None,
) -> Ranker:
    counted = len(candidate_features(dataset, config.loader.features).names)
    length = config.loader.max_events
    embeddings = _user_embeddings(config, dataset)
    shape = None if embeddings is None else embeddings.shape
    return Ranker(config.model, manifest, length, counted, shape, config.optim, statistics)


def _say_why(calibration: Calibration) -> None:
    for name, reason in calibration.why.items():
        message_console().print(f"{name} is not calibrated, for {reason}.")

"""What a training needs to know of a system: configuration, parts, what picks checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import lightning
from torch import nn

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.prepare.seen import Seen
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.monitor import Monitor
from recsys.runs.config import RunConfig

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Assembly:
    """What Lightning's trainer is given.

    Attributes:
        model: with its initial weights.
        data: fit to train, choose to validate.
    """

    model: lightning.LightningModule
    data: lightning.LightningDataModule


@dataclass(frozen=True)
class MeasuredRows:
    """What a metric of a split is computed from.

    Attributes:
        rows: number of rows or queries.
        users: number of users they belong to.
        candidates: which items are scored.
    """

    rows: int
    users: int
    candidates: str


class TrainableSystem(ABC, Generic[Config]):
    """A system as its training sees it; ``recsys.systems.base.System`` adds the other commands.

    Attributes:
        name: its key in the registry, and the file of conf/system that a run is composed from.
        config: the schema of a run.
        monitor: what picks its checkpoints, unless ``monitor_of`` a configuration is another.
    """

    name: str
    config: type[Config]
    monitor: Monitor

    def monitor_of(self, config: Config) -> Monitor:
        """What picks the checkpoints of a run."""
        return self.monitor

    def dataset_of(self, config: Config, dataset: PreparedDataset) -> PreparedDataset:
        """What a new run reads of a data set; its manifest is what the run folder keeps.

        Raises:
            ConfigError: the configuration names what the data set does not have.
        """
        return dataset

    @abstractmethod
    def assemble(
        self, config: Config, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data of a run; ``manifest`` is the data set's as of the run's beginning."""

    @abstractmethod
    def restore(
        self, config: Config, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> lightning.LightningModule:
        """The model of a finished run, its weights yet to be loaded."""

    def compiled_parts(self, model: lightning.LightningModule) -> list[nn.Module]:
        """The dense parts of the model that ``trainer.compile`` compiles; none where none can be.

        A part is called as a module, and shapes of its inputs are those of the batch alone.
        """
        return []

    @abstractmethod
    def measured(self, config: Config, dataset: PreparedDataset, split: Split) -> MeasuredRows:
        """What the metrics of a split are computed from."""

    def seen(self, config: Config, dataset: PreparedDataset) -> list[Seen]:
        """Which events of the data set the model will see, and which it will not."""
        return []

    def finish(self, run_dir: Path) -> None:
        """Leave in the run folder what the best weights make; called when the training is over."""
        return

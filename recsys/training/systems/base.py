"""What run assembly needs to know of a system: its configuration, its parts and its protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import lightning.pytorch as pl

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import Split
from recsys.training.config import RunConfig

if TYPE_CHECKING:
    from recsys.training.evaluate import EvaluateConfig
    from recsys.training.load import LoadedRun
    from recsys.training.metrics_file import Metrics
    from recsys.training.report.page import Page

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Monitor:
    """The metric of the choose split that picks a checkpoint.

    Attributes:
        metric: its name, ``val/…``.
        highest: whether the highest value is best, not the lowest.
        fallback: lowest of this where the metric is not defined.
    """

    metric: str
    highest: bool = False
    fallback: str = "val/loss"

    @property
    def rule(self) -> str:
        """The rule as it stands in protocols."""
        best = "highest" if self.highest else "lowest"
        return f"{best} {self.metric}, or lowest {self.fallback} where that is not defined"


@dataclass(frozen=True)
class Assembly:
    """What Lightning's trainer is given.

    Attributes:
        model: with its initial weights.
        data: fit to train, choose to validate.
    """

    model: pl.LightningModule
    data: pl.LightningDataModule


@dataclass(frozen=True)
class Measured:
    """What a metric of a split is computed from.

    Attributes:
        rows: number of rows or queries.
        users: number of users they belong to.
        candidates: which items are scored.
    """

    rows: int
    users: int
    candidates: str


class System(ABC, Generic[Config]):
    """One of the systems of ``SYSTEMS``.

    Attributes:
        name: its key.
        primary: the file of conf/ that a run is composed from.
        config: the schema of that file.
        monitor: what picks its checkpoints.
    """

    name: str
    primary: str
    config: type[Config]
    monitor: Monitor

    @abstractmethod
    def assemble(
        self, config: Config, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data of a run; ``manifest`` is the data set's as of the run's beginning."""

    @abstractmethod
    def restore(
        self, config: Config, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> pl.LightningModule:
        """The model of a finished run, its weights yet to be loaded."""

    @abstractmethod
    def measured(self, config: Config, dataset: PreparedDataset, split: Split) -> Measured:
        """What the metrics of a split are computed from."""

    def finish(self, run_dir: Path) -> None:
        """Leave in the run folder what the best weights make; called when the training is over."""
        return

    @abstractmethod
    def evaluate(self, run: LoadedRun[Any, Any], config: EvaluateConfig) -> Metrics:
        """Predict a split and measure it; names begin with the split's prefix."""

    @abstractmethod
    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """What `recsys report` shows of a run.

        Args:
            folder: the run folder.
            against: the run it was evaluated against.
            dataset: the prepared data set, where it was moved since the training.
        """

    @abstractmethod
    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """Print what :meth:`evaluate` measured."""

"""What the commands need to know of a system beside its training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Generic

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from recsys.artifacts.manifest import ARTIFACT, ARTIFACT_FOLDER
from recsys.core.bounds import OneOf, OutPlace, Settings
from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.folders import check_replaced
from recsys.data.batches.given_rows import GivenRows
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.tasks import Control
from recsys.reports.page import Page
from recsys.runs.load import LoadedRun
from recsys.runs.system import Config, TrainableSystem
from recsys.serving.recommend import Recommender
from recsys.systems.sizing import Given, Sized


@dataclass(frozen=True)
class ExportConfig(Settings):
    """What to export.

    Attributes:
        run_dir: the run folder.
        out: the artifact folder; None makes ``artifact`` in the run folder. An artifact that is
            there is replaced in one step.
        checkpoint: ``best``, ``last``, or a path.
        dataset: the prepared data set, where it was moved since the training.
        table_bits: bits per weight of the embedding tables: 4, 8, or 32 for float.
        measure: predict the choose split with the exported tower and 4-bit embeddings, and put
            the metrics beside those of the trained model.
    """

    run_dir: str = MISSING
    out: OutPlace | None = None
    checkpoint: str = "best"
    dataset: str | None = None
    table_bits: Annotated[int, OneOf((4, 8, 32))] = 4
    measure: bool = True

    def folder(self, run_dir: Path, dataset: Path | str | None = None) -> Path:
        """The artifact folder of a run on this data set.

        Raises:
            ConfigError: it holds something else, or lies in what is exported.
        """
        usual = run_dir / ARTIFACT
        out = Path(self.out) if self.out is not None else usual
        read = [] if out.resolve() == usual.resolve() else [run_dir]
        check_replaced(out, ARTIFACT_FOLDER, read if dataset is None else [*read, dataset])
        return out


class System(TrainableSystem[Config], Generic[Config]):
    """One of the systems of the registry.

    Attributes:
        takes_context: whether scores depend on context features.
        compared: whether `recsys evaluate against=…` measures two runs on the same rows.
        parts: parts of the model whose weights a study counts, by the beginning of their names; a
            weight counts for the first that fits.
        compared_part: the part whose size stands in the short table of a study.
    """

    takes_context: ClassVar[bool] = False
    compared: ClassVar[bool] = False
    parts: ClassVar[Mapping[str, str]] = MappingProxyType({"model": ""})
    compared_part: ClassVar[str] = "model"

    @abstractmethod
    def evaluate(
        self, run: LoadedRun[Any, Any], config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """Predict a split and measure it; names begin with the split's prefix.

        Args:
            run: the trained model.
            config: the split, and how intervals are made.
            control: predictions of the run that it is compared with; None where there is none.
        """

    @abstractmethod
    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """Print what :meth:`evaluate` measured."""

    @abstractmethod
    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """What `recsys report` shows of a run.

        Args:
            folder: the run folder.
            against: the run it was evaluated against.
            dataset: the prepared data set, where it was moved since the training.
        """

    def sized(self, config: Config, dataset: PreparedDataset, given: Given) -> list[Sized]:
        """Settings that follow from the size of the data, for a run that does not give them.

        Args:
            config: of the run, as the user gave it.
            dataset: what it is trained on.
            given: what the user has chosen, from which the others follow.
        """
        return []

    def user_embeddings(
        self, run: LoadedRun[Any, Any], user: NDArray[np.int64], moment: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Embeddings of users as of some moments: [B, W], or [B, N, D] of several vectors.

        Args:
            run: the trained model.
            user: [B] indices; 0 is the unknown user, who has no history.
            moment: [B] ms; histories end strictly before it, less the gap of the training.

        Raises:
            ConfigError: the model has no user embedding.
        """
        raise ConfigError(f"{run.folder} is a run of {self.name}, which has no user embeddings.")

    def score(self, run: LoadedRun[Any, Any], rows: GivenRows) -> dict[str, NDArray[np.float64]]:
        """What the model says of given rows: by name [R]; NaN of items it says nothing of.

        A row's score has the same bits whatever other rows there are.

        Args:
            run: the trained model.
            rows: users, moments, items, and context for models that take any.

        Raises:
            ConfigError: the model scores no given items, or takes no context.
        """
        raise ConfigError(f"{run.folder} is a run of {self.name}, which scores no given items.")

    def check_request(self, run: LoadedRun[Any, Any], has_only: bool, task: str | None) -> None:
        """Refuse what the system cannot be asked to recommend.

        Args:
            run: the trained model.
            has_only: whether the items to choose among are named.
            task: by which they are to be ranked; None where none is named.

        Raises:
            ConfigError: it cannot.
        """
        if task is not None:
            raise ConfigError(
                f"{run.folder} is a run of {self.name}, which predicts no tasks; leave task= out."
            )

    def recommender(
        self, run: LoadedRun[Any, Any], moment: int, task: str | None = None
    ) -> Recommender:
        """Finds a user's best items among all that the model knows and the log had by a moment.

        Args:
            run: the trained model.
            moment: ms; items first seen at it or later are left out.
            task: by which items are ranked, where the model predicts several; None for the first.

        Raises:
            ConfigError: the model recommends nothing.
        """
        raise ConfigError(
            f"{run.folder} is a run of {self.name}, which does not recommend; train sequence, "
            "nxtpost or wide_and_deep."
        )

    def export(self, run: LoadedRun[Any, Any], config: ExportConfig) -> Path:
        """Write the artifact of a run, and what it measured into the run's ``metrics.json`` too.

        Returns:
            The artifact folder.

        Raises:
            ConfigError: the system has nothing to export, or cannot as ``config`` asks.
            ArtifactError: what was written does not agree with the trained model.
        """
        raise ConfigError(
            f"{run.folder} is a run of {self.name}, of which nothing can be exported yet."
        )


def refuse_undefined(run: LoadedRun[Any, Any], scores: NDArray[np.float64]) -> None:
    """Refuse a model that gives NaN or infinity for a score.

    Raises:
        ArtifactError: it does.
    """
    wrong = int((~np.isfinite(scores)).sum())
    if wrong:
        raise ArtifactError(
            f"The model of {run.folder} gives NaN or infinity for {wrong:,} of {scores.size:,} "
            f"scores; its training has diverged: take an earlier checkpoint than "
            f"{run.checkpoint.name}."
        )

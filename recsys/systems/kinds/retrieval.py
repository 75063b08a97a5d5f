"""What the retrieval systems share: engagements, protocol, printed tables, report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.core.progress import track
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split
from recsys.data.prepare.seen import Seen, engagements_seen
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.retrieval import ALL, RetrievalProtocol
from recsys.reports.page import Page
from recsys.reports.retrieval_tables import print_retrieval
from recsys.runs.load import LoadedRun, load_config
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.runs.system import MeasuredRows
from recsys.serving.histories import Histories
from recsys.serving.recommend import SCORE
from recsys.systems.base import System, refuse_undefined

Config = TypeVar("Config", bound=RetrievalRunConfig)

#: The history of one user and item indices [C] → scores [C], each item's by itself.
ScoreOfOne = Callable[[SequenceBatch, NDArray[np.int64]], NDArray[np.float64]]

#: Of more requests the progress is shown.
_MANY = 5_000


class RetrievalSystem(System[Config]):
    """A system whose queries are the engagements of a split.

    Attributes:
        validated_on: candidate set of the metrics of validation.
    """

    validated_on: str = ALL

    def known(self, config: Config, dataset: PreparedDataset) -> NDArray[np.bool_]:
        """[V] the items that can be recommended: all but the unknown one."""
        return np.arange(dataset.manifest.vocabulary_sizes["item"]) > 0

    def engagements(self, config: Config, dataset: PreparedDataset) -> EngagementStore:
        """The sequences of a data set, of the items that can be recommended."""
        return EngagementStore.open(dataset, config.sequences, self.known(config, dataset))

    def protocol(self, config: Config, dataset: PreparedDataset, split: Split) -> RetrievalProtocol:
        """Queries of a split and the candidates they are ranked among."""
        known = self.known(config, dataset)
        engagements = self.engagements(config, dataset)
        return RetrievalProtocol(config.evaluation, dataset, engagements, known, split)

    def seen(self, config: Config, dataset: PreparedDataset) -> list[Seen]:
        """Which events are engagements."""
        if not dataset.manifest.action_counts:
            return []
        return [engagements_seen(dataset.manifest, config.sequences)]

    def measured(self, config: Config, dataset: PreparedDataset, split: Split) -> MeasuredRows:
        """One query per engagement of the split."""
        protocol = self.protocol(config, dataset, split)
        candidates = protocol.candidates([self.validated_on])[self.validated_on]
        users = len(np.unique(protocol.queries.user))
        return MeasuredRows(len(protocol.queries), users, candidates.description)

    def reader(self, run: LoadedRun[Any, Any]) -> SequenceReader:
        """Reads the histories that the run was trained on."""
        engagements = self.engagements(run.config, run.dataset)
        return SequenceReader(run.dataset, engagements, run.config.loader.max_length)

    def histories(self, run: LoadedRun[Any, Any]) -> Histories:
        """As ``reader``, or those that a caller gives instead."""
        known = self.known(run.config, run.dataset)
        return Histories(self.reader(run), gap_of(run), run.config.sequences, known)

    def learned(self, run: LoadedRun[Any, Any]) -> NDArray[np.bool_]:
        """[V] the items that the model says something of: here all that can be recommended."""
        return self.known(run.config, run.dataset)

    def score_of_one(self, run: LoadedRun[Any, Any]) -> ScoreOfOne:
        """Scores items for one user.

        Raises:
            ConfigError: the model says nothing of users.
        """
        raise ConfigError(
            f"{run.folder} is a run of {self.name}, which says nothing of users, so pairs have no "
            "score; train sequence, wide_and_deep, or nxtpost on its embeddings."
        )

    def score(self, run: LoadedRun[Any, Any], rows: GivenRows) -> dict[str, NDArray[np.float64]]:
        """``score`` [R], NaN of items that were not learned.

        Each request is computed alone: in a batch the length of the longest history decides how
        sums are made, and with it the last bits of everybody's score.
        """
        if rows.context is not None:
            raise ConfigError(f"Models of {self.name} take no context; leave context= out.")
        score, reader, gap = self.score_of_one(run), self.reader(run), gap_of(run)
        requests, found = rows.requests, np.empty(len(rows))
        numbers = range(len(requests))
        with torch.inference_mode():
            for number in track(numbers, "Scoring") if len(numbers) > _MANY else numbers:
                one = slice(number, number + 1)
                batch = reader.before(requests.user[one], requests.moment[one], gap)
                of_request = requests.rows(number)
                found[of_request] = score(batch, rows.item[of_request])
        refuse_undefined(run, found)
        return {SCORE: np.where(self.learned(run)[rows.item], found, np.nan)}

    @abstractmethod
    def described(self, config: Config) -> dict[str, str]:
        """What was trained, for the report: ``model``, its name, and its most telling settings."""

    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """Every scorer in every candidate set, groups of queries, Hits@K over K, the export."""
        # figures are drawn with a library that training does not need
        from recsys.reports.retrieval import report_page
        from recsys.reports.retrieval_material import read_material

        if against is not None:
            raise ConfigError(
                f"{folder} is a run of {self.name}: its report has no against=; runs of retrieval "
                "systems are compared by `recsys study`."
            )
        config = load_config(folder, self.config)
        monitor = self.monitor_of(config)
        return report_page(read_material(folder, config, self.described(config), monitor, dataset))

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per scorer."""
        print_retrieval(metrics, config)


def gap_of(run: LoadedRun[Any, Any]) -> int:
    """How long before their moments the histories of a run end, ms."""
    return round(run.config.loader.gap_hours * MILLISECONDS_PER_HOUR)

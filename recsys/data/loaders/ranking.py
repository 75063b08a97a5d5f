"""The Lightning DataModule of rankers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from recsys.core.bounds import Hours, Number, Settings, Store
from recsys.data.batches.ranking_reader import RankingReader, UserVectors
from recsys.data.batches.requests import RankingBatch
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.loaders.requests import LoaderConfig, RowDataModule
from recsys.data.stores.dataset import PreparedDataset


@dataclass(frozen=True)
class UserEmbeddingsConfig(Settings):
    """Published user embeddings that a model reads.

    Attributes:
        stores: folders of LMDB, or addresses of Redis, each with one publication; every row sees
            the newest that was served at its moment. None where empty.
        delay_hours: from the moment a publication was computed for until it is served.
    """

    stores: list[Store] = field(default_factory=list)
    delay_hours: Hours = 0.0


@dataclass(frozen=True)
class RankingLoaderConfig(LoaderConfig):
    """How requests are read and put into batches.

    Attributes:
        gap_hours: how long before the request everything that is read ends; 0 for a ranker that
            sees what has just happened.
        max_events: T, recent events of both timelines together.
        features: what is counted of candidates.
        user_embeddings: published ones that the model reads.
    """

    gap_hours: Hours = 0.0
    max_events: Annotated[int, Number(at_least=1, at_most=512)] = 128
    features: CandidateFeatureConfig = field(default_factory=CandidateFeatureConfig)
    user_embeddings: UserEmbeddingsConfig = field(default_factory=UserEmbeddingsConfig)


class RankingDataModule(RowDataModule[RankingBatch]):
    """Yields ``RankingBatch``: rows with recent events and counts."""

    def __init__(
        self,
        config: RankingLoaderConfig,
        dataset: PreparedDataset,
        user_embeddings: UserVectors | None = None,
    ) -> None:
        super().__init__(config, dataset)
        self._ranking = config
        self._user_embeddings = user_embeddings

    @cached_property
    def reader(self) -> RankingReader:  # type: ignore[override]
        """Reads rows, recent events and counts as the configuration says."""
        config = self._ranking
        return RankingReader(
            self.dataset,
            gap_hours=config.gap_hours,
            recent_events=config.max_events,
            features=config.features,
            user_embeddings=self._user_embeddings,
        )

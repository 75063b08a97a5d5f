"""The Lightning DataModule of two-tower models.

Legend: E engagements, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import CountOrZero
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.batches.ranking_reader import UserVectors
from recsys.data.batches.sequences.candidates import CandidateDataset
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.batches.sequences.shown import ShownItems
from recsys.data.batches.sequences.towers import TowerDataset, TowerReader
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split
from recsys.data.loaders.ranking import UserEmbeddingsConfig
from recsys.data.loaders.sampling import BatchBounds, RequestBatchSampler
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.loaders.split import BatchLoader, SplitDataModule, use_one_thread
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore

#: From a split to whether each engagement is one of a task's [E, K].
TasksOf = Callable[[str], NDArray[np.bool_]]


@dataclass(frozen=True)
class TowerLoaderConfig(SequenceLoaderConfig):
    """How sequences are read for two towers.

    Attributes:
        hard_negatives: items that a user was shown in the fit period and never engaged with,
            drawn for each query and put into the pool of all; 0 draws none, and so does a log
            without impressions.
        user_embeddings: published ones that the model reads.
    """

    hard_negatives: CountOrZero = 2
    user_embeddings: UserEmbeddingsConfig = field(default_factory=UserEmbeddingsConfig)


class TowerDataModule(SequenceDataModule):
    """Yields ``TowerBatch``.

    Args:
        config: cuts, batches, hard negatives.
        dataset: the prepared data set.
        engagements: its sequences.
        corpus: features of every item, a row per item index.
        tasks_of: tells which engagements are a task's.
        shown: what hard negatives are drawn from.
        max_queries: as of ``SequenceDataModule``.
        user_embeddings: published ones; None for a model that reads none.
    """

    reader: TowerReader

    def __init__(
        self,
        config: TowerLoaderConfig,
        dataset: PreparedDataset,
        engagements: EngagementStore,
        corpus: ItemFeatures,
        tasks_of: TasksOf,
        shown: ShownItems | None,
        max_queries: int | None = None,
        user_embeddings: UserVectors | None = None,
    ) -> None:
        super().__init__(config, dataset, engagements, max_queries)
        self.reader = TowerReader(dataset, engagements, config.max_length, user_embeddings)
        self._each = config.hard_negatives
        self._corpus = corpus
        self._tasks_of = tasks_of
        self._shown = shown

    def sequences(self, split: str) -> TowerDataset:
        """The batches of a split; hard negatives are drawn to train alone."""
        return TowerDataset(
            self.reader,
            self.queries(split),
            self.config,
            self._tasks_of(split),
            self._corpus,
            self._shown if split == Split.FIT else None,
            self._each,
        )


class CandidateDataModule(SplitDataModule):
    """Yields ``TowerBatch``: requests, and the candidates that a second stage scored.

    Args:
        config: requests of a batch, length of histories, and when they end.
        dataset: the prepared data set.
        reader: reads histories.
        corpus: features of every item, a row per item index.
    """

    def __init__(
        self,
        config: TowerLoaderConfig,
        dataset: PreparedDataset,
        reader: TowerReader,
        corpus: ItemFeatures,
    ) -> None:
        super().__init__()
        self.config = config
        self.dataset = dataset
        self.reader = reader
        self._corpus = corpus

    def candidates(self, split: str) -> CandidateDataset:
        """The requests of a split."""
        gap = round(self.config.gap_hours * MILLISECONDS_PER_HOUR)
        return CandidateDataset(self.reader, self.dataset.requests(split), gap, self._corpus)

    def loader(self, split: str, *, shuffle: bool) -> BatchLoader:
        """Batches of one split, this rank's share of them.

        Raises:
            ConfigError: the trainer would shard the batches once more.
        """
        config, candidates = self.config, self.candidates(split)
        rank, num_ranks = self._place()
        return BatchLoader(
            candidates,
            batch_size=None,  # the sampler gives whole batches
            sampler=RequestBatchSampler(
                np.zeros(len(candidates), np.int64),
                BatchBounds(config.batch_size, np.iinfo(np.int64).max),
                shuffle=shuffle,
                window=1,
                seed=config.seed,
                rank=rank,
                num_ranks=num_ranks,
            ),
            num_workers=config.num_workers,
            pin_memory=self._pins(config.pin_memory),
            worker_init_fn=use_one_thread,
        )

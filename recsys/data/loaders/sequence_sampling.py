"""Which queries make up which batch of sequences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.batches.sequences.reader import SequenceDataset
from recsys.data.loaders.sampling import BatchBounds, RequestBatchSampler

#: Batches among whose queries those with histories of similar length are brought together.
_BATCHES_PER_WINDOW = 16
_NO_BOUND = np.iinfo(np.int64).max


class SequenceBatchSampler(RequestBatchSampler):
    """Cuts an epoch into batches of queries, each with the first label it has in that epoch.

    Batches are of equal size but for one query. No query is left out and none appears twice; order
    and cuts follow from seed and epoch alone (``RequestBatchSampler``).

    Args:
        dataset: the queries.
        config: size of a batch, and whether histories of a batch are of similar length.
        shuffle: draw a new order every epoch.
        rank: which of ``num_ranks`` data-parallel processes this is.
        num_ranks: number of data-parallel processes.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        config: SequenceLoaderConfig,
        *,
        shuffle: bool,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        super().__init__(
            np.zeros(len(dataset), np.int64),
            BatchBounds(config.batch_size, _NO_BOUND),
            shuffle=shuffle,
            window=_BATCHES_PER_WINDOW * config.batch_size if config.length_bucketing else 1,
            seed=config.seed,
            rank=rank,
            num_ranks=num_ranks,
        )
        self._dataset = dataset
        self._bucketing = config.length_bucketing

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """This rank's batches: ``len(self)`` arrays [B, 2] of query and first label."""
        label = self._dataset.queries.first_label(epoch)
        batches = super().batches(epoch)
        return [np.stack([queries, label[queries]], axis=1) for queries in batches]

    def _lengths(self, epoch: int) -> NDArray[np.int64]:
        return self._dataset.lengths(epoch) if self._bucketing else super()._lengths(epoch)

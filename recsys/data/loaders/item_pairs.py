"""Pairs of items that belong together: a user engaged with one soon after the other.

Legend: B pairs of a batch, n pairs of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from recsys.core.bounds import BatchSize, Count, Seed, Settings, Workers
from recsys.core.errors import DataError
from recsys.data.batches.tensor_batch import TensorBatch
from recsys.data.contract.schema import Split
from recsys.data.loaders.sampling import BatchBounds, RequestBatchSampler
from recsys.data.loaders.split import BatchLoader, SplitDataModule, use_one_thread
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore

_NO_BOUND = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ItemPairConfig(Settings):
    """Which pairs, and how many in a batch.

    Attributes:
        batch_size: pairs per batch; the other pairs' items are the negatives.
        window: an item is paired with each of the user's so many engagements before it.
        seed: with the epoch it decides the order.
        num_workers: processes that build batches beside the training; 0 builds them in between.
    """

    batch_size: BatchSize = 1024
    window: Count = 1
    seed: Seed = 0
    num_workers: Workers = 0


@dataclass
class ItemPairBatch(TensorBatch):
    """Pairs of items.

    Attributes:
        earlier: [B] int64 item index.
        later: [B] int64 item index, never the same as ``earlier``.
    """

    earlier: Tensor
    later: Tensor


class ItemPairs(Dataset[ItemPairBatch]):
    """The pairs whose later engagement lies in a period.

    Args:
        engagements: of all users.
        first_ms: start of the period; None for the beginning of the log.
        last_ms: end of the period.
        window: engagements before each that it is paired with.
    """

    def __init__(
        self, engagements: EngagementStore, first_ms: int | None, last_ms: int, window: int
    ) -> None:
        time = engagements.timestamp
        inside = time < last_ms
        if first_ms is not None:
            inside &= time >= first_ms
        later = np.flatnonzero(inside)
        start = engagements.offsets[engagements.user[later]]
        parts = []
        for distance in range(1, window + 1):
            kept = later[later - distance >= start]
            pair = np.stack([engagements.item[kept - distance], engagements.item[kept]])
            parts.append(pair[:, pair[0] != pair[1]])
        self.pairs: NDArray[np.int32] = np.concatenate(parts, axis=1)  # [2, n]

    def __len__(self) -> int:
        """Number of pairs."""
        return self.pairs.shape[1]

    def __getitem__(self, positions: NDArray[np.int64]) -> ItemPairBatch:
        """The batch of some pairs [B]."""
        earlier, later = torch.from_numpy(self.pairs[:, positions].astype(np.int64))
        return ItemPairBatch(earlier, later)


class ItemPairDataModule(SplitDataModule):
    """Yields ``ItemPairBatch``."""

    def __init__(
        self, config: ItemPairConfig, dataset: PreparedDataset, engagements: EngagementStore
    ) -> None:
        super().__init__()
        self.config = config
        self.dataset = dataset
        self.engagements = engagements

    def loader(self, split: str, *, shuffle: bool) -> BatchLoader:
        """Batches of one split, this rank's share of them.

        Raises:
            DataError: nobody engaged with two items up to the end of the split.
        """
        config = self.config
        first, last = self.dataset.manifest.split_bounds[split]
        start = None if split == Split.FIT else first
        pairs = ItemPairs(self.engagements, start, last, config.window)
        if not len(pairs):
            raise DataError(
                f"no user of {self.dataset.manifest.name} engaged with one item after another in "
                f"the {split} period; count other actions as engagements (sequences.actions)."
            )
        rank, num_ranks = self._place()
        sampler = RequestBatchSampler(
            np.zeros(len(pairs), np.int64),
            BatchBounds(config.batch_size, _NO_BOUND),
            shuffle=shuffle,
            window=1,
            seed=config.seed,
            rank=rank,
            num_ranks=num_ranks,
        )
        return BatchLoader(
            pairs,
            batch_size=None,  # the sampler gives whole batches
            sampler=sampler,
            num_workers=config.num_workers,
            worker_init_fn=use_one_thread,
        )

"""Pairs of items that belong together: a user engaged with one soon after the other.

Legend: B pairs of a batch, n pairs of a split.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from recsys.core.bounds import BatchSize, Count, Seed, Settings, Workers
from recsys.core.errors import DataError
from recsys.data.batches.item_features import ItemFeatures
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
        pin_memory: batches lie in page-locked memory, for copies to a GPU; None: if one trains.
    """

    batch_size: BatchSize = 1024
    window: Count = 1
    seed: Seed = 0
    num_workers: Workers = 0
    pin_memory: bool | None = None


@dataclass
class ItemPairBatch(TensorBatch):
    """Pairs of items.

    Attributes:
        earlier: [B] int64 item index.
        later: [B] int64 item index, never the same as ``earlier``.
        pools: the distinct items, ascending, of ``earlier``, of ``later`` and of ``both``.
        features: of the items of ``both``, by the columns of ``ItemFeatures``.
    """

    earlier: Tensor
    later: Tensor
    pools: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)

    def with_items(self, corpus: ItemFeatures) -> ItemPairBatch:
        """With ``pools`` and ``features``, found on the host, where the corpus lies.

        Args:
            corpus: a row per item index.
        """
        if self.features:
            return self
        sides = {"earlier": self.earlier, "later": self.later}
        columns = sides | {"both": torch.cat([self.earlier, self.later])}
        pools = {name: items.unique() for name, items in columns.items()}
        features = corpus.select(pools["both"].cpu()).to(self.earlier.device).columns()
        return ItemPairBatch(self.earlier, self.later, pools, features)


class ItemPairs(Dataset[ItemPairBatch]):
    """The pairs whose later engagement lies in a period.

    Args:
        engagements: of all users.
        first_ms: start of the period; None for the beginning of the log.
        last_ms: end of the period.
        window: engagements before each that it is paired with.
        corpus: features of every item, a row per item index, which batches have with them.
    """

    def __init__(
        self,
        engagements: EngagementStore,
        first_ms: int | None,
        last_ms: int,
        window: int,
        corpus: ItemFeatures,
    ) -> None:
        self._corpus = corpus
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
        earlier, later = torch.from_numpy(self.pairs[:, positions].astype(np.int64, order="C"))
        return ItemPairBatch(earlier, later).with_items(self._corpus)


class ItemPairDataModule(SplitDataModule):
    """Yields ``ItemPairBatch``.

    Args:
        config: pairs and batches.
        dataset: the prepared data set.
        engagements: of all users.
        corpus: features of every item, a row per item index.
    """

    def __init__(
        self,
        config: ItemPairConfig,
        dataset: PreparedDataset,
        engagements: EngagementStore,
        corpus: ItemFeatures,
    ) -> None:
        super().__init__()
        self.corpus = corpus
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
        pairs = ItemPairs(self.engagements, start, last, config.window, self.corpus)
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
            pin_memory=self._pins(config.pin_memory),
            worker_init_fn=use_one_thread,
        )

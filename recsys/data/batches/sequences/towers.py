"""Batches of a two-tower model: sequences, what items are made of, and what others know of users.

Legend: B queries, E events, L labels, K tasks, H hard negatives, N vectors of width W of a
published user embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.item_features import ItemFeatures
from recsys.data.batches.ranking_reader import UserVectors
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.batches.sequences.queries import Queries
from recsys.data.batches.sequences.reader import SequenceDataset, SequenceReader
from recsys.data.batches.sequences.shown import ShownItems
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import Engagements

#: Names of pools: all items of a batch, and those that the softmax is taken over.
ITEMS, CANDIDATES = "items", "candidates"


@dataclass
class TowerBatch(SequenceBatch):
    """A ``SequenceBatch`` with what two towers look at beside it.

    Attributes:
        label_tasks: [L, K] float32, 1 where a label is one of a task's; None where there are no
            labels.
        negative_item: [H] int64, items that the users of the batch were shown and did nothing
            with; None where none are drawn.
        user_embedding: [B, N, W] float32, zeros where there is none; None for a model that reads
            none.
        has_embedding: [B] bool.
        selected: [L] float32, where labels are candidates of requests: 1 of those that the later
            stages put into the list, 0 of the others; None where labels are engagements.
        value_rank: [L] float32, of candidates the share of the request's others that are worth
            less; NaN where it has no value.
        features: of the items of ``pools["items"]``, by the columns of ``ItemFeatures``.
    """

    label_tasks: Tensor | None = None
    negative_item: Tensor | None = None
    user_embedding: Tensor | None = None
    has_embedding: Tensor | None = None
    selected: Tensor | None = None
    value_rank: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)

    def with_items(self, corpus: ItemFeatures) -> TowerBatch:
        """With ``pools`` and ``features``, found on the host, where the corpus lies.

        Args:
            corpus: a row per item index.
        """
        if self.features:
            return self
        candidates = [self.label_item]
        if self.negative_item is not None:
            candidates.append(self.negative_item)
        self.pools = {
            ITEMS: torch.cat([self.item, *candidates]).unique(),
            CANDIDATES: torch.cat(candidates).unique(),
        }
        of_items = corpus.select(self.pools[ITEMS].cpu()).to(self.item.device)
        self.features = of_items.columns()
        return self


class TowerReader(SequenceReader):
    """Reads published user embeddings beside histories.

    Args:
        dataset: the prepared data set.
        engagements: its sequences.
        max_length: newest events of a history that are kept.
        user_embeddings: as they were served; None for a model that reads none.
        users: as of ``SequenceReader``.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        engagements: Engagements,
        max_length: int,
        user_embeddings: UserVectors | None = None,
        users: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(dataset, engagements, max_length, users)
        self._user_embeddings = user_embeddings

    def of_others(self, engagements: Engagements, users: NDArray[np.int64]) -> TowerReader:
        """Reads other sequences of users, with what is known of those users."""
        return TowerReader(
            self.dataset, engagements, self._max_length, self._user_embeddings, users
        )

    def read(
        self,
        user: NDArray[np.int64],
        request_time: NDArray[np.int64],
        stop: NDArray[np.int64],
        label_lengths: NDArray[np.int64],
        label_item: NDArray[np.integer],
        query_id: NDArray[np.int64],
    ) -> TowerBatch:
        """The batch of some queries; embeddings are those that were served at ``request_time``."""
        read = super().read(user, request_time, stop, label_lengths, label_item, query_id)
        batch = TowerBatch(**{one.name: getattr(read, one.name) for one in fields(read)})
        if self._user_embeddings is not None:
            of_user = user if self._users is None else self._users[user]
            values, known = self._user_embeddings.read(of_user, request_time)
            batch.user_embedding = torch.from_numpy(values)
            batch.has_embedding = torch.from_numpy(known)
        return batch


class TowerDataset(SequenceDataset):
    """Batches with the tasks of labels, hard negatives and the items' features.

    Args:
        reader: reads the batches.
        queries: of the split.
        config: how many labels, and how long before them histories end.
        tasks: [E, K] whether an engagement of the store is one of a task's.
        corpus: features of every item, a row per item index.
        shown: what hard negatives are drawn from; None draws none.
        each: hard negatives of each query.
    """

    def __init__(
        self,
        reader: TowerReader,
        queries: Queries,
        config: SequenceLoaderConfig,
        tasks: NDArray[np.bool_],
        corpus: ItemFeatures,
        shown: ShownItems | None = None,
        each: int = 0,
    ) -> None:
        super().__init__(reader, queries, config)
        self._tasks = tasks
        self._corpus = corpus
        self._shown = shown
        self._each = each
        self._seed = config.seed

    def __getitem__(self, pairs: NDArray[np.int64]) -> TowerBatch:
        """The batch of some queries; the same ones draw the same negatives."""
        batch = super().__getitem__(pairs)
        assert isinstance(batch, TowerBatch)
        _, positions = self.labels(pairs)
        batch.label_tasks = torch.from_numpy(self._tasks[positions].astype(np.float32))
        if self._shown is not None:
            drawn = self._shown.draw(batch.user.numpy(), self._each, self._generator(pairs))
            batch.negative_item = torch.from_numpy(drawn.astype(np.int64))
        return batch.with_items(self._corpus)

    def _generator(self, pairs: NDArray[np.int64]) -> np.random.Generator:
        """Of what is drawn for a batch, which is made of other queries and cuts every epoch."""
        return np.random.default_rng([self._seed, *pairs.sum(axis=0).tolist()])

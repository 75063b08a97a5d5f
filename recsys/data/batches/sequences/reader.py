"""Building batches of sequences from ranges of engagements.

Legend: B queries, E events over all histories, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.batches.sequences.queries import Queries
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, FeatureKind, FeatureSide
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import Engagements
from recsys.data.stores.fit_vocabulary import FitVocabulary


class SequenceReader:
    """Reads histories, labels and user features of given queries.

    Args:
        dataset: the prepared data set.
        engagements: its sequences.
        max_length: newest events of a history that are kept.
        users: where the sequences are not those of the data set's users by their index: [n] the
            index of each, whose features are read.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        engagements: Engagements,
        max_length: int,
        users: NDArray[np.int64] | None = None,
    ) -> None:
        self.engagements = engagements
        self.dataset = dataset
        self._users = users
        self._features = dataset.user_features
        self._fit_vocabulary = FitVocabulary.of(dataset.manifest)
        self._user_ids = dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
        self._max_length = max_length

    def of_others(self, engagements: Engagements, users: NDArray[np.int64]) -> SequenceReader:
        """Reads other sequences of users, with the features that the data set has of them.

        Args:
            engagements: of n users.
            users: [n] the data set's index of each; 0 for one that it does not have.
        """
        return SequenceReader(self.dataset, engagements, self._max_length, users)

    def before(self, user: ArrayLike, moment: ArrayLike, gap_ms: int = 0) -> SequenceBatch:
        """Histories strictly before some moments, without labels: what a recommendation sees.

        Args:
            user: [B] user indices; 0 and users without engagements have an empty history.
            moment: [B] ms, or one for all.
            gap_ms: how long before its moment a history ends.
        """
        user = np.asarray(user, np.int64)
        time = np.broadcast_to(np.asarray(moment, np.int64), user.shape)
        none = np.zeros(len(user), np.int64)
        return self.given(user, time, none, none[:0], gap_ms)

    def given(
        self,
        user: NDArray[np.int64],
        moment: NDArray[np.int64],
        label_lengths: NDArray[np.int64],
        label_item: NDArray[np.integer],
        gap_ms: int = 0,
    ) -> SequenceBatch:
        """Histories strictly before some moments, with items they might go on with as labels.

        Args:
            user: [B] user indices; 0 and users without engagements have an empty history.
            moment: [B] ms.
            label_lengths: [B] items of each user; sums to L.
            label_item: [L] item indices, those of a user side by side.
            gap_ms: how long before its moment a history ends.
        """
        stop = self.engagements.ends_before(user, moment - gap_ms)
        return self.read(user, moment, stop, label_lengths, label_item, query_id=user)

    def read(
        self,
        user: NDArray[np.int64],
        request_time: NDArray[np.int64],
        stop: NDArray[np.int64],
        label_lengths: NDArray[np.int64],
        label_item: NDArray[np.integer],
        query_id: NDArray[np.int64],
    ) -> SequenceBatch:
        """The batch of some queries.

        Args:
            user: [B] user indices.
            request_time: [B] ms.
            stop: [B] position in the store where each history ends.
            label_lengths: [B] labels of each query; sums to L.
            label_item: [L] item indices.
            query_id: [B].
        """
        store = self.engagements
        start = np.maximum(store.offsets[user], stop - self._max_length)
        events = _ranges(start, stop)  # [E]
        of_features = user if self._users is None else self._users[user]
        categorical = self._fit_vocabulary.hide_unseen_features(
            self._features.categorical[of_features], self._user_ids
        )
        return SequenceBatch(
            user=torch.from_numpy(user.copy()),
            request_time=torch.from_numpy(request_time.copy()),
            lengths=torch.from_numpy(stop - start),
            item=_indices(store.item[events]),
            action_type=_indices(store.action_type[events]),
            surface=_indices(store.surface[events]),
            timestamp=torch.from_numpy(store.timestamp[events]),
            label_lengths=torch.from_numpy(label_lengths.copy()),
            label_item=_indices(label_item),
            user_categorical=_indices(categorical),
            user_dense=torch.from_numpy(self._features.dense[of_features]),
            query_id=torch.from_numpy(query_id.copy()),
        )


class SequenceDataset(Dataset[SequenceBatch]):
    """The queries of one split as a map from (query, first label) pairs to a whole batch.

    Args:
        reader: reads the batches.
        queries: of the split.
        config: how many labels, and how long before them histories end.
        pools: columns whose distinct items the batches are to have with them.
    """

    def __init__(
        self,
        reader: SequenceReader,
        queries: Queries,
        config: SequenceLoaderConfig,
        pools: Sequence[str] = (),
    ) -> None:
        self.queries = queries
        self._reader = reader
        self._pools = pools
        self._max_length = config.max_length
        self._labels = config.labels
        self._gap = round(config.gap_hours * MILLISECONDS_PER_HOUR)

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.queries)

    def lengths(self, epoch: int) -> NDArray[np.int64]:
        """[Q] length of each query's history in an epoch."""
        store = self._reader.engagements
        user = self.queries.user
        stop = store.history_end(user, self.queries.first_label(epoch), self._gap)
        return np.minimum(stop - store.offsets[user], self._max_length)

    def __getitem__(self, pairs: NDArray[np.int64]) -> SequenceBatch:
        """The batch of some queries.

        Args:
            pairs: [B, 2] position of the query, position in the store of its first label.
        """
        query, label = pairs.T
        store = self._reader.engagements
        user = self.queries.user[query]
        label_lengths, positions = self.labels(pairs)
        batch = self._reader.read(
            user,
            store.timestamp[label],
            store.history_end(user, label, self._gap),
            label_lengths=label_lengths,
            label_item=store.item[positions],
            query_id=self.queries.query_id[query],
        )
        batch.find_pools(self._pools)
        return batch

    def labels(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many labels each query has [B], and their positions in the store [L]."""
        query, label = pairs.T
        stop = np.minimum(label + self._labels, self.queries.label_stop[query])
        return stop - label, _ranges(label, stop)


def _ranges(start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of every range ``[start, stop)``, side by side."""
    lengths = stop - start
    shift = start - (np.cumsum(lengths) - lengths)
    return np.repeat(shift, lengths) + np.arange(int(lengths.sum()))


def _indices(array: NDArray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))

"""Batches of requests with the candidates that a second stage scored, for a first stage.

Legend: B requests, L candidates over all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from recsys.data.batches.item_features import ItemFeatures
from recsys.data.batches.sequences.towers import TowerBatch, TowerReader
from recsys.data.contract.ledger import SELECTED, VALUE_RANK
from recsys.data.stores.requests import RequestStore


class CandidateDataset(Dataset[TowerBatch]):
    """The requests of a split as a map from positions to a whole batch.

    A batch's labels are the candidates of its requests; ``query_id`` are the positions.

    Args:
        reader: reads histories.
        requests: of the split; their tasks are those of ``options.rows=scored``.
        gap_ms: how long before its request a history ends.
        corpus: features of every item, a row per item index.
    """

    def __init__(
        self, reader: TowerReader, requests: RequestStore, gap_ms: int, corpus: ItemFeatures
    ) -> None:
        self._reader = reader
        self._requests = requests
        self._gap = gap_ms
        self._corpus = corpus
        self._columns = [requests.tasks.index(task.name) for task in (SELECTED, VALUE_RANK)]

    def __len__(self) -> int:
        """Number of requests."""
        return len(self._requests)

    def __getitem__(self, positions: NDArray[np.int64]) -> TowerBatch:
        """The batch of some requests."""
        requests = self._requests
        rows, lengths = requests.row_ids(positions)
        user = requests.user[positions].astype(np.int64)
        moment = requests.request_time[positions]
        stop = self._reader.engagements.ends_before(user, moment - self._gap)
        batch = self._reader.read(user, moment, stop, lengths, requests.item[rows], positions)
        labels = torch.from_numpy(requests.labels[rows][:, self._columns])
        batch.selected, batch.value_rank = labels.T.contiguous()
        return batch.with_items(self._corpus)

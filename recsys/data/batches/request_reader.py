"""Building batches: the requests of one batch in, a ``RequestBatch`` out.

Legend: B requests, R rows, E events, F and D features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from recsys.data.batches.requests import JaggedTimeline, RequestBatch
from recsys.data.contract.schema import (
    LENGTHS,
    MILLISECONDS_PER_HOUR,
    TIMELINE_COLUMNS,
    FeatureKind,
    FeatureSide,
    TimelineKind,
)
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.fit_vocabulary import FitVocabulary


class RequestDataset(Dataset[RequestBatch]):
    """The requests of one split as a map from positions to a whole batch.

    Args:
        dataset: the prepared data set.
        split: fit, choose or report.
        gap_hours: time between a history's cutoff and the request (DV365 §2.3.1: 24 h).
        max_events: newest events read per timeline.
        request_grouping: with False every row is a request of its own, with its own history.
        without_timelines: with True every history is empty, for baselines without timelines.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        split: str,
        *,
        gap_hours: float,
        max_events: int,
        request_grouping: bool = True,
        without_timelines: bool = False,
    ) -> None:
        self._dataset = dataset
        self._store = dataset.requests(split)
        self._gap = round(gap_hours * MILLISECONDS_PER_HOUR)
        self._max_events = max_events
        self._request_grouping = request_grouping
        self._without_timelines = without_timelines
        self._fit_vocabulary = FitVocabulary.of(dataset.manifest)
        self._user_ids = dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
        self._item_ids = dataset.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)

    def __len__(self) -> int:
        """Number of requests; of rows, where rows are not grouped."""
        return len(self._store) if self._request_grouping else self._store.num_rows

    def num_events(self) -> NDArray[np.int64]:
        """[Q] events that each request's batch entry holds, both timelines."""
        events = np.zeros(len(self._store), np.int64)
        if not self._without_timelines:
            before = self._store.request_time - self._gap
            for kind in TimelineKind:
                events += self._dataset.timelines.lengths(
                    self._store.user, before, kind, self._max_events
                )
        return events if self._request_grouping else np.repeat(events, np.diff(self._store.offsets))

    def __getitem__(self, positions: NDArray[np.int64]) -> RequestBatch:
        """The batch of some requests (of some rows, where rows are not grouped)."""
        if self._request_grouping:
            requests = positions
            row_id, rows_per_request = self._store.row_ids(positions)
        else:
            requests = np.searchsorted(self._store.offsets, positions, side="right") - 1
            row_id, rows_per_request = positions, np.ones(len(positions), np.int64)
        user, request_time = self._store.user[requests], self._store.request_time[requests]
        return RequestBatch(
            request_time=torch.from_numpy(request_time),
            explicit=self._timeline(user, request_time, TimelineKind.EXPLICIT),
            implicit=self._timeline(user, request_time, TimelineKind.IMPLICIT),
            user_categorical=self._user_categorical(user),
            user_dense=torch.from_numpy(self._dataset.user_features.dense[user]),
            rows_per_request=torch.from_numpy(rows_per_request),
            item_categorical=self._item_categorical(row_id),
            item_dense=self._item_dense(row_id),
            labels=torch.from_numpy(self._store.labels[row_id]),
            row_id=torch.from_numpy(row_id),
        )

    def _timeline(
        self, user: NDArray[np.int32], request_time: NDArray[np.int64], kind: TimelineKind
    ) -> JaggedTimeline:
        if self._without_timelines:
            timeline = {name: np.empty(0, dtype) for name, dtype in TIMELINE_COLUMNS[kind].items()}
            timeline[LENGTHS] = np.zeros(len(user), np.int64)
        else:
            before = request_time - self._gap
            timeline = self._dataset.timelines.histories(user, before, kind, self._max_events)
            timeline = self._fit_vocabulary.hide_unseen_events(timeline)
        return {name: _tensor(column) for name, column in timeline.items()}

    def _user_categorical(self, user: NDArray[np.int32]) -> Tensor:
        indices = self._dataset.user_features.categorical[user]
        indices = self._fit_vocabulary.hide_unseen_features(indices, self._user_ids)
        return torch.from_numpy(indices.astype(np.int64))  # [B, F_u]

    def _item_categorical(self, row_id: NDArray[np.int64]) -> Tensor:
        indices = self._dataset.item_features.categorical[self._store.item[row_id]]
        indices = self._fit_vocabulary.hide_unseen_features(indices, self._item_ids)
        context = self._store.context_categorical[row_id]
        return torch.from_numpy(np.concatenate([indices, context], axis=1, dtype=np.int64))

    def _item_dense(self, row_id: NDArray[np.int64]) -> Tensor:
        features = self._dataset.item_features.dense[self._store.item[row_id]]
        context = self._store.context_dense[row_id]
        return torch.from_numpy(np.concatenate([features, context], axis=1))  # [R, D_i]


def _tensor(array: NDArray) -> Tensor:
    """The array as a tensor; a view into the store is copied, since tensors may be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())

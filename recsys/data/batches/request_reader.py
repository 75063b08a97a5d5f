"""Building batches of requests, from stored rows or from given users, moments and items.

Legend: B requests, R rows, E events, F and D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from recsys.data.batches.context import Context, context_arrays
from recsys.data.batches.requests import JaggedTimeline, RequestBatch, RowsBatch
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


@dataclass(frozen=True, eq=False)
class RequestRows:
    """What is asked: users, moments, and the items of each request side by side.

    A request of user 7 with items 3 and 5 and one of user 2 with item 3 alone are
    ``user=[7, 2]``, ``rows_per_request=[2, 1]``, ``item=[3, 5, 3]``.

    Attributes:
        user: [B] user indices; 0 is the unknown user, who has no history.
        request_time: [B] int64, ms.
        rows_per_request: [B] int64, sums to R.
        item: [R] item indices.
        context_categorical: [R, F_c] indices, columns in the order of the manifest's features.
        context_dense: [R, D_c] float32, standardised.
        labels: [R, K] float32, NaN where a label is not known.
        row_id: [R] int64, position of the row in its split, or among the rows given.
    """

    user: NDArray[np.integer]
    request_time: NDArray[np.int64]
    rows_per_request: NDArray[np.int64]
    item: NDArray[np.integer]
    context_categorical: NDArray[np.int32]
    context_dense: NDArray[np.float32]
    labels: NDArray[np.float32]
    row_id: NDArray[np.int64]


Batch = TypeVar("Batch", bound=RowsBatch)


class RowReader(ABC, Generic[Batch]):
    """Reads what a model needs of requests, wherever their rows come from.

    Args:
        dataset: the prepared data set.
        gap_hours: time between a history's cutoff and the request (DV365 §2.3.1: 24 h).
        max_events: newest events read per timeline.
        without_timelines: with True every history is empty, for baselines without timelines.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        *,
        gap_hours: float,
        max_events: int,
        without_timelines: bool = False,
    ) -> None:
        self._dataset = dataset
        self._gap = round(gap_hours * MILLISECONDS_PER_HOUR)
        self._max_events = max_events
        self._without_timelines = without_timelines
        self._fit_vocabulary = FitVocabulary.of(dataset.manifest)
        self._user_ids = dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
        self._item_ids = dataset.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)

    @abstractmethod
    def read(self, rows: RequestRows) -> Batch:
        """The batch of some requests."""

    def _of_rows(self, rows: RequestRows) -> dict[str, Tensor]:
        """The fields of ``RowsBatch``."""
        return {
            "request_time": torch.from_numpy(rows.request_time),
            "user_categorical": self._user_categorical(rows.user),
            "user_dense": torch.from_numpy(self._dataset.user_features.dense[rows.user]),
            "rows_per_request": torch.from_numpy(rows.rows_per_request),
            "item_categorical": self._item_categorical(rows),
            "item_dense": self._item_dense(rows),
            "labels": torch.from_numpy(rows.labels),
            "row_id": torch.from_numpy(rows.row_id),
        }

    def given(
        self,
        user: NDArray[np.integer],
        request_time: NDArray[np.int64],
        rows_per_request: NDArray[np.int64],
        item: NDArray[np.integer],
        context: Context = None,
    ) -> Batch:
        """The batch of users at some moments with items they might be shown.

        The history of each ends before its moment less the gap, as everywhere.

        Args:
            user: [B] user indices.
            request_time: [B] ms.
            rows_per_request: [B] items of each request.
            item: [R] item indices, those of a request side by side.
            context: raw values of context features (``surface``, ``hour_of_day``, …): one for all
                rows, or a frame with a row per row; features that are not given are unknown.

        Raises:
            ConfigError: a name that is no context feature, or a frame with another number of rows.
        """
        return self.read(self.given_rows(user, request_time, rows_per_request, item, context))

    def given_rows(
        self,
        user: NDArray[np.integer],
        request_time: NDArray[np.int64],
        rows_per_request: NDArray[np.int64],
        item: NDArray[np.integer],
        context: Context = None,
    ) -> RequestRows:
        """What is asked by the arguments of :meth:`given`, labels unknown."""
        categorical, dense = context_arrays(self._dataset, context, len(item))
        tasks = len(self._dataset.manifest.tasks)
        return RequestRows(
            user=user,
            request_time=request_time,
            rows_per_request=rows_per_request,
            item=item,
            context_categorical=categorical,
            context_dense=dense,
            labels=np.full((len(item), tasks), np.nan, np.float32),
            row_id=np.arange(len(item)),
        )

    def num_events(
        self, user: NDArray[np.integer], request_time: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """[B] events that each request's batch entry holds, both timelines."""
        events = np.zeros(len(user), np.int64)
        if not self._without_timelines:
            for kind in TimelineKind:
                before = request_time - self._gap
                events += self._dataset.timelines.lengths(user, before, kind, self._max_events)
        return events

    def _user_categorical(self, user: NDArray[np.integer]) -> Tensor:
        indices = self._dataset.user_features.categorical[user]
        indices = self._fit_vocabulary.hide_unseen_features(indices, self._user_ids)
        return torch.from_numpy(indices.astype(np.int64))  # [B, F_u]

    def items(self, item: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Features of items [n]: indices [n, F] int64, what came after the fit period unknown, and
        numbers [n, D] float32.
        """
        features = self._dataset.item_features
        return self.given_items(features.categorical[item], features.dense[item])

    def given_items(
        self, categorical: NDArray[np.int32], dense: NDArray[np.float32]
    ) -> tuple[Tensor, Tensor]:
        """The same of features [n, F] and [n, D] as a data set has them."""
        indices = self._hidden(categorical)
        return torch.from_numpy(indices.astype(np.int64)), torch.from_numpy(dense)

    def _hidden(self, indices: NDArray[np.int32]) -> NDArray[np.int32]:
        return self._fit_vocabulary.hide_unseen_features(indices, self._item_ids)

    def _item_categorical(self, rows: RequestRows) -> Tensor:
        indices = self._hidden(self._dataset.item_features.categorical[rows.item])
        both = [indices, rows.context_categorical]
        return torch.from_numpy(np.concatenate(both, axis=1, dtype=np.int64))  # [R, F_i]

    def _item_dense(self, rows: RequestRows) -> Tensor:
        features = self._dataset.item_features.dense[rows.item]
        return torch.from_numpy(np.concatenate([features, rows.context_dense], axis=1))  # [R, D_i]


class RequestReader(RowReader[RequestBatch]):
    """Reads whole timelines beside the features of rows."""

    def read(self, rows: RequestRows) -> RequestBatch:
        """The batch of some requests."""
        user, request_time = rows.user, rows.request_time
        return RequestBatch(
            **self._of_rows(rows),
            explicit=self._timeline(user, request_time, TimelineKind.EXPLICIT),
            implicit=self._timeline(user, request_time, TimelineKind.IMPLICIT),
        )

    def _timeline(
        self, user: NDArray[np.integer], request_time: NDArray[np.int64], kind: TimelineKind
    ) -> JaggedTimeline:
        if self._without_timelines:
            timeline = {name: np.empty(0, dtype) for name, dtype in TIMELINE_COLUMNS[kind].items()}
            timeline[LENGTHS] = np.zeros(len(user), np.int64)
        else:
            before = request_time - self._gap
            timeline = self._dataset.timelines.histories(user, before, kind, self._max_events)
            timeline = self._fit_vocabulary.hide_unseen_events(timeline)
        return {name: _tensor(column) for name, column in timeline.items()}


class RequestDataset(Dataset[Batch], Generic[Batch]):
    """The requests of one split as a map from positions to a whole batch.

    Args:
        dataset: the prepared data set.
        split: fit, choose or report.
        reader: reads timelines and features.
        request_grouping: with False every row is a request of its own, with its own history.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        split: str,
        reader: RowReader[Batch],
        *,
        request_grouping: bool = True,
    ) -> None:
        self._store = dataset.requests(split)
        self._reader = reader
        self._request_grouping = request_grouping

    def __len__(self) -> int:
        """Number of requests; of rows, where rows are not grouped."""
        return len(self._store) if self._request_grouping else self._store.num_rows

    def num_events(self) -> NDArray[np.int64]:
        """[Q] events that each request's batch entry holds, both timelines."""
        events = self._reader.num_events(self._store.user, self._store.request_time)
        return events if self._request_grouping else np.repeat(events, np.diff(self._store.offsets))

    def __getitem__(self, positions: NDArray[np.int64]) -> Batch:
        """The batch of some requests (of some rows, where rows are not grouped)."""
        return self._reader.read(self.rows(positions))

    def rows(self, positions: NDArray[np.int64]) -> RequestRows:
        """The stored rows of some requests (some rows, where rows are not grouped)."""
        store = self._store
        if self._request_grouping:
            requests = positions
            row_id, rows_per_request = store.row_ids(positions)
        else:
            requests = np.searchsorted(store.offsets, positions, side="right") - 1
            row_id, rows_per_request = positions, np.ones(len(positions), np.int64)
        return RequestRows(
            user=store.user[requests],
            request_time=store.request_time[requests],
            rows_per_request=rows_per_request,
            item=store.item[row_id],
            context_categorical=store.context_categorical[row_id],
            context_dense=store.context_dense[row_id],
            labels=store.labels[row_id],
            row_id=row_id,
        )


def _tensor(array: NDArray) -> Tensor:
    """The array as a tensor; a view into the store is copied, since tensors may be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())

"""The Lightning DataModule of request-level models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import BatchSize, Count, Hours, Length, Seed, Settings, Workers
from recsys.core.progress import track
from recsys.data.batches.request_reader import (
    Batch,
    RequestDataset,
    RequestReader,
    RowReader,
)
from recsys.data.batches.requests import RequestBatch
from recsys.data.loaders.sampling import BatchBounds, RequestBatchSampler
from recsys.data.loaders.split import BatchLoader, SplitDataModule, use_one_thread
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.timelines import DEFAULT_MAX_EVENTS


@dataclass(frozen=True)
class LoaderConfig(Settings):
    """How requests are read and put into batches.

    Attributes:
        gap_hours: time between a history's cutoff and the request (DV365 §2.3.1).
        max_events: newest events read per timeline (DV365 §3.1).
        batch_requests: requests per batch, one more at most.
        batch_events: events per batch, both timelines; one history more at most.
        shuffle_window: requests among which those of similar history length form batches.
        seed: with the epoch it decides the order of training.
        num_workers: processes that build batches beside the training; 0 builds them in between.
        request_grouping: rows of a request share one history; with False each row has its own.
        without_timelines: every history is empty, for baselines without timelines.
        pin_memory: batches lie in page-locked memory, for copies to a GPU; None: if one trains.
    """

    gap_hours: Hours = 24.0
    max_events: Length = DEFAULT_MAX_EVENTS
    batch_requests: BatchSize = 64
    batch_events: Count = 2_000_000
    shuffle_window: Count = 16_384
    seed: Seed = 0
    num_workers: Workers = 0
    request_grouping: bool = True
    without_timelines: bool = False
    pin_memory: bool | None = None


class RowDataModule(SplitDataModule, Generic[Batch]):
    """Yields batches of rows: fit to train, choose to validate, report to test.

    Attributes:
        reader: reads what a model needs of rows.
    """

    reader: RowReader[Batch]

    def __init__(self, config: LoaderConfig, dataset: PreparedDataset) -> None:
        super().__init__()
        self.config = config
        self.dataset = dataset

    def loader(self, split: str, *, shuffle: bool) -> BatchLoader:
        """Batches of one split, this rank's share of them.

        Raises:
            ConfigError: the trainer would shard the batches once more.
        """
        rank, num_ranks = self._place()
        return self.reading(split, self._sampler(split, shuffle, rank, num_ranks))

    def batches(self, split: str) -> list[NDArray[np.int64]]:
        """The requests' positions of each batch of a split, in order, of all ranks' batches."""
        return self._sampler(split, shuffle=False).batches(epoch=0)

    def reading(self, split: str, batches: Iterable[NDArray[np.int64]]) -> BatchLoader:
        """The batches of some requests each, by their positions in a split."""
        config = self.config
        return BatchLoader(
            self._requests(split),
            batch_size=None,  # whole batches are given
            sampler=batches,
            num_workers=config.num_workers,
            pin_memory=self._pins(config.pin_memory),
            worker_init_fn=use_one_thread,
        )

    def _sampler(
        self, split: str, shuffle: bool, rank: int = 0, num_ranks: int = 1
    ) -> RequestBatchSampler:
        config = self.config
        return RequestBatchSampler(
            self._requests(split).num_events(),
            BatchBounds(config.batch_requests, config.batch_events),
            shuffle=shuffle,
            window=config.shuffle_window,
            seed=config.seed,
            rank=rank,
            num_ranks=num_ranks,
        )

    def sample(self, split: str, count: int) -> Iterator[Batch]:
        """Batches of at most ``count`` requests spread evenly over a split, the same on all ranks.

        (Of rows, where rows are not grouped.)
        """
        requests = self._requests(split)
        count = min(count, len(requests))
        positions = np.arange(count) * len(requests) // max(count, 1)
        batches = range(0, count, self.config.batch_requests)
        for first in track(batches, f"Sampling requests of {split}"):
            yield requests[positions[first : first + self.config.batch_requests]]

    def _requests(self, split: str) -> RequestDataset[Batch]:
        grouping = self.config.request_grouping
        return RequestDataset(self.dataset, split, self.reader, request_grouping=grouping)


class RequestDataModule(RowDataModule[RequestBatch]):
    """Yields ``RequestBatch``: rows with whole timelines."""

    @cached_property
    def reader(self) -> RequestReader:  # type: ignore[override]
        """Reads timelines and features as the configuration says."""
        config = self.config
        return RequestReader(
            self.dataset,
            gap_hours=config.gap_hours,
            max_events=config.max_events,
            without_timelines=config.without_timelines,
        )

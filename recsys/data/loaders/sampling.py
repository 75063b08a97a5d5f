"""Which requests make up which batch: length-aware, sharded over ranks, resumable.

Legend: Q requests, N batches of all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from recsys.core.errors import ConfigError

#: A sum of equal shares may come out this much beside a whole number of batches.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class BatchBounds:
    """How large a batch may be; the last request of a batch may reach over a bound.

    Attributes:
        requests: requests per batch.
        events: events of both timelines per batch.
    """

    requests: int
    events: int


class RequestBatchSampler(Sampler[NDArray[np.int64]]):
    """Cuts an epoch into batches of requests with histories of similar length.

    Requests are shuffled, sorted by history length within windows, and cut where the batch is
    full: a request fills the share ``max(1 / bounds.requests, events / bounds.events)`` of a batch.
    The shares of all requests sum to the same number in every epoch, so every epoch has the same
    number of batches, on every rank: N = that sum, rounded up to a multiple of the number of ranks
    (down, where there are not as many requests; then batches are larger than their bounds).
    The batches are then shuffled in groups of one per rank, so that the ranks of a step have
    histories of similar length. No request is left out and none appears twice.

    The same seed, epoch and number of ranks give the same batches. An iterator's state is the
    epoch and the position in it; loaded with another number of batches (another number of ranks,
    other bounds), it goes on at the same share of the epoch.

    Args:
        events: [Q] number of events of each request, both timelines.
        bounds: how large a batch may be.
        shuffle: draw a new order every epoch; otherwise requests keep their order but for the
            sorting by length within windows.
        window: requests among which sorting by length takes place.
        seed: with the epoch it decides the order.
        rank: which of ``num_ranks`` data-parallel processes this is.
        num_ranks: number of data-parallel processes.

    Raises:
        ConfigError: there are fewer requests than ranks.
    """

    def __init__(
        self,
        events: NDArray[np.int64],
        bounds: BatchBounds,
        *,
        shuffle: bool,
        window: int,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if 0 < len(events) < num_ranks:
            raise ConfigError(
                f"{len(events)} request(s) cannot be spread over {num_ranks} processes; "
                "use fewer devices or a larger split."
            )
        self._events = events
        self._shares = np.minimum(np.maximum(1 / bounds.requests, events / bounds.events), 1.0)
        self._shuffle = shuffle
        self._window = window
        self._seed = seed
        self._rank = rank
        self._num_ranks = num_ranks
        self._num_steps = min(
            math.ceil((self._shares.sum() - _ROUNDING) / num_ranks), len(events) // num_ranks
        )
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Decide which order the next iterator has; Lightning calls it before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches of this rank, the same in every epoch and on every rank."""
        return self._num_steps

    def __iter__(self) -> _BatchIterator:
        return _BatchIterator(self)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """This rank's batches of one epoch: ``len(self)`` arrays of request positions."""
        if not self._num_steps:
            return []
        generator = np.random.default_rng((self._seed, epoch))
        count = len(self._events)
        order = generator.permutation(count) if self._shuffle else np.arange(count)
        window = np.arange(count) // self._window
        order = order[np.lexsort((self._lengths(epoch)[order], window))]
        batches = np.split(order, self._cuts(self._shares[order]))
        steps = generator.permutation(self._num_steps) if self._shuffle else range(self._num_steps)
        return [batches[step * self._num_ranks + self._rank] for step in steps]

    def _lengths(self, epoch: int) -> NDArray[np.int64]:
        """[Q] lengths of the histories, by which the requests of a window are sorted."""
        return self._events

    def _cuts(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """Where N batches of equal shares, none of them empty, are cut apart: [N - 1]."""
        num_batches = self._num_steps * self._num_ranks
        filled = np.cumsum(shares)
        targets = filled[-1] * np.arange(1, num_batches) / num_batches
        # a request belongs to the batch in which its share begins
        cuts = np.searchsorted(filled - shares, targets - _ROUNDING)
        place = np.arange(1, num_batches)
        cuts = np.maximum.accumulate(np.maximum(cuts - place, 0)) + place
        return np.minimum(cuts, len(shares) - num_batches + place)


class _BatchIterator(Iterator[NDArray[np.int64]]):
    """One pass over a sampler's batches, with the state that torchdata saves and loads."""

    def __init__(self, sampler: RequestBatchSampler) -> None:
        self._sampler = sampler
        self._position = 0
        self._epoch: int | None = None
        self._batches: list[NDArray[np.int64]] = []

    def __iter__(self) -> _BatchIterator:
        return self

    def __next__(self) -> NDArray[np.int64]:
        if self._epoch is None:  # as late as possible: Lightning sets the epoch after `iter`
            self._start(self._sampler.epoch)
        if self._position == len(self._batches):
            raise StopIteration
        self._position += 1
        return self._batches[self._position - 1]

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and how many of its batches were taken."""
        epoch = self._sampler.epoch if self._epoch is None else self._epoch
        return {"epoch": epoch, "position": self._position, "steps": len(self._sampler)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were taken, in the next epoch if they were all of them."""
        finished = state["position"] == state["steps"]
        self._start(state["epoch"] + finished)
        # so that an iterator made anew, without this state, continues there too
        self._sampler.set_epoch(state["epoch"] + finished)
        if not finished:
            self._position = state["position"] * len(self._batches) // state["steps"]

    def _start(self, epoch: int) -> None:
        self._epoch = epoch
        self._batches = self._sampler.batches(epoch)
        self._position = 0

"""The Lightning DataModule of request-level models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from recsys.data.dataset import PreparedDataset
from recsys.data.loading import RequestDataset
from recsys.data.sampling import BatchBounds, RequestBatchSampler
from recsys.data.schema import Split
from recsys.data.timelines import DEFAULT_MAX_EVENTS
from recsys.errors import ConfigError


@dataclass(frozen=True)
class LoaderConfig:
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
        pin_memory: batches lie in page-locked memory, for copies to a GPU.
    """

    gap_hours: float = 24.0
    max_events: int = DEFAULT_MAX_EVENTS
    batch_requests: int = 64
    batch_events: int = 2_000_000
    shuffle_window: int = 16_384
    seed: int = 0
    num_workers: int = 0
    request_grouping: bool = True
    without_timelines: bool = False
    pin_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in ("batch_requests", "batch_events", "shuffle_window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 1.")
        for name in ("gap_hours", "max_events", "num_workers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must not be negative.")


class RequestLoader(StatefulDataLoader):
    """A torchdata loader of whole batches; its state can be loaded in the middle of an epoch."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken.

        Raises:
            ConfigError: it was taken with another number of workers.
        """
        saved = state_dict.get("_snapshot", {}).get("_main_snapshot", {}).get("_num_workers", 0)
        if saved != self.num_workers:
            raise ConfigError(
                f"the checkpoint was made with {saved} loader worker(s), this run has "
                f"{self.num_workers}; resume with num_workers={saved}."
            )
        super().load_state_dict(state_dict)


class RequestDataModule(lightning.LightningDataModule):
    """Yields ``RequestBatch``: fit to train, choose to validate, report to test.

    Under data parallelism every rank gets batches of its own and the same number of them
    (``RequestBatchSampler``), so the trainer must not add a sampler of its own: give it
    ``use_distributed_sampler=False``.
    """

    def __init__(self, config: LoaderConfig, dataset: PreparedDataset) -> None:
        super().__init__()
        self.config = config
        self.dataset = dataset

    def train_dataloader(self) -> RequestLoader:
        """Shuffled batches of the fit split."""
        loader = self.loader(Split.FIT, shuffle=True)
        if self.trainer is not None:
            # Lightning makes the first iterator before it sets the epoch, and drops the loader's
            # state when it resumes at the end of an epoch
            progress = self.trainer.fit_loop.epoch_progress.current
            loader.sampler.set_epoch(progress.processed)  # type: ignore[attr-defined]
        return loader

    def val_dataloader(self) -> RequestLoader:
        """Batches of the choose split."""
        return self.loader(Split.CHOOSE, shuffle=False)

    def test_dataloader(self) -> RequestLoader:
        """Batches of the report split."""
        return self.loader(Split.REPORT, shuffle=False)

    def loader(self, split: str, *, shuffle: bool) -> RequestLoader:
        """Batches of one split, this rank's share of them.

        Raises:
            ConfigError: the trainer would shard the batches once more.
        """
        config = self.config
        requests = RequestDataset(
            self.dataset,
            split,
            gap_hours=config.gap_hours,
            max_events=config.max_events,
            request_grouping=config.request_grouping,
            without_timelines=config.without_timelines,
        )
        rank, num_ranks = self._place()
        sampler = RequestBatchSampler(
            requests.num_events(),
            BatchBounds(config.batch_requests, config.batch_events),
            shuffle=shuffle,
            window=config.shuffle_window,
            seed=config.seed,
            rank=rank,
            num_ranks=num_ranks,
        )
        return RequestLoader(
            requests,
            batch_size=None,  # the sampler gives whole batches
            sampler=sampler,
            num_workers=config.num_workers,
            pin_memory=config.pin_memory,
            worker_init_fn=_use_one_thread,
        )

    def _place(self) -> tuple[int, int]:
        """This process's rank and the number of data-parallel processes."""
        if self.trainer is None:
            return 0, 1
        if (
            self.trainer.world_size > 1
            and self.trainer._accelerator_connector.use_distributed_sampler
        ):
            raise ConfigError(
                "the batches are already divided among the processes; "
                "give the trainer use_distributed_sampler=False."
            )
        return self.trainer.global_rank, self.trainer.world_size


def _use_one_thread(worker: int) -> None:
    """Workers are many and copy memory: more threads would only get in each other's way."""
    torch.set_num_threads(1)

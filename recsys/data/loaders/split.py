"""What every DataModule shares: a loader per split, the rank's share of it, resume in an epoch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import Split


class BatchLoader(StatefulDataLoader):
    """A torchdata loader of whole batches; its state can be loaded in the middle of an epoch.

    Attributes:
        following: while a batch is in use, the one after it, where ``read_ahead`` asked for it and
            there is one.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.following: Any = None
        self._prepare: Callable[[Any], Any] | None = None
        self._state_of_given: dict[str, Any] | None = None

    def read_ahead(self, prepare: Callable[[Any], Any]) -> None:
        """From the next epoch on, read every batch while the one before it is in use.

        Args:
            prepare: makes what is given out of a batch that was read, for example a copy on the
                device.
        """
        self._prepare = prepare

    def __iter__(self) -> Iterator[Any]:
        """The batches from where the state says."""
        self._state_of_given = None
        batches = super().__iter__()
        return batches if self._prepare is None else self._one_ahead(batches, self._prepare)

    def state_dict(self) -> dict[str, Any]:
        """Where the batches that were given out end, whatever has been read ahead of them."""
        if self._state_of_given is not None:
            return self._state_of_given
        state: dict[str, Any] = super().state_dict()
        return state

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
        self._state_of_given = None
        super().load_state_dict(state_dict)

    def _one_ahead(self, batches: Iterator[Any], prepare: Callable[[Any], Any]) -> Iterator[Any]:
        self.following = _read(batches, prepare)
        while self.following is not None:
            given = self.following
            self._state_of_given = super().state_dict()
            self.following = _read(batches, prepare)
            yield given


def _read(batches: Iterator[Any], prepare: Callable[[Any], Any]) -> Any:
    """The next batch, prepared, or ``None`` after the last."""
    try:
        return prepare(next(batches))
    except StopIteration:
        return None


class SplitDataModule(lightning.LightningDataModule):
    """Fit to train, choose to validate, report to test.

    Under data parallelism every rank gets batches of its own and the same number of them
    (``RequestBatchSampler``), so the trainer must not add a sampler of its own: give it
    ``use_distributed_sampler=False``.
    """

    @abstractmethod
    def loader(self, split: str, *, shuffle: bool) -> BatchLoader:
        """Batches of one split, this rank's share of them."""

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of the fit split."""
        loader = self.loader(Split.FIT, shuffle=True)
        if self.trainer is not None:
            # Lightning makes the first iterator before it sets the epoch, and drops the loader's
            # state when it resumes at the end of an epoch
            progress = self.trainer.fit_loop.epoch_progress.current
            loader.sampler.set_epoch(progress.processed)  # type: ignore[attr-defined]
        return loader

    def val_dataloader(self) -> BatchLoader:
        """Batches of the choose split."""
        return self.loader(Split.CHOOSE, shuffle=False)

    def test_dataloader(self) -> BatchLoader:
        """Batches of the report split."""
        return self.loader(Split.REPORT, shuffle=False)

    def _pins(self, wanted: bool | None) -> bool:
        """Whether batches are put into page-locked memory: as wanted, else where a GPU trains."""
        if wanted is not None:
            return wanted
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _place(self) -> tuple[int, int]:
        """This process's rank and the number of data-parallel processes.

        Raises:
            ConfigError: the trainer would shard the batches once more.
        """
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


def use_one_thread(worker: int) -> None:
    """Workers are many and copy memory: more threads would only get in each other's way."""
    torch.set_num_threads(1)

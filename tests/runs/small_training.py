"""A training of a few numbers, with everything of a run around it: loaders, checkpoints, resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from recsys.data.loaders.sampling import BatchBounds, RequestBatchSampler
from recsys.data.loaders.split import BatchLoader, SplitDataModule
from recsys.distributed.training_log import log_losses
from recsys.evaluation.monitor import Monitor
from recsys.runs.checkpoints import CHECKPOINTS, LAST, Checkpoints
from recsys.runs.config import RunConfig, TrainerConfig
from recsys.runs.folder import go_back_to_checkpoint
from recsys.runs.train import build_trainer

ROWS = 3  # of a batch

#: Called with the model before every batch: to cut a run off, or to spoil it.
Before = Callable[["Line", int], None]


class Numbers(Dataset[Tensor]):
    """Row r is the number r; a batch is the numbers of its rows."""

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).float()


class SmallData(SplitDataModule):
    """Batches of ``ROWS`` rows in an order of each epoch's own."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    def loader(self, split: str, *, shuffle: bool) -> BatchLoader:
        """So many batches, of the choose split one."""
        rows = ROWS * (self.batches if shuffle else 1)
        sampler = RequestBatchSampler(
            np.ones(rows, np.int64), BatchBounds(ROWS, ROWS), shuffle=shuffle, window=1, seed=0
        )
        return BatchLoader(Numbers(), sampler=sampler, batch_size=None)


class Line(lightning.LightningModule):
    """Two weights, whose values say which batches came in which steps.

    Attributes:
        before: called before every batch.
        steps: the step of each batch so far, with the sum of its rows.
        validated: steps after which it was validated.
    """

    def __init__(self, before: Before | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.before = before
        self.steps: list[tuple[int, float]] = []
        self.validated: list[int] = []

    def forward(self, batch: Tensor) -> Tensor:
        predicted: Tensor = self.layer(batch[:, None] / 10)[:, 0]
        return predicted

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        if self.before is not None:
            self.before(self, index)
        self.steps.append((self.trainer.global_step + 1, float(batch.sum())))
        loss = (self(batch) - batch.sin()).square().mean()
        log_losses(self, {"loss": loss}, len(batch))
        return loss

    def validation_step(self, batch: Tensor, _: int) -> None:
        loss = self(batch).square().mean()
        self.log_dict({"val/loss": loss, "val/x": loss}, batch_size=len(batch))

    def on_validation_epoch_end(self) -> None:
        self.validated.append(self.trainer.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.1)


def small_run(
    folder: Path, settings: TrainerConfig, batches: int, model: Line, monitor: str = "val/x"
) -> Checkpoints:
    """Train in ``folder``, or go on with what is there; an epoch has so many batches."""
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    last = go_back_to_checkpoint(folder)
    config = RunConfig("small", "small", str(folder), resume=last is not None, trainer=settings)
    checkpoints = Checkpoints(
        folder / CHECKPOINTS,
        settings.checkpoint_every_n_steps,
        Monitor(monitor),
        settings.keep_best,
        settings.patience,
    )
    trainer = build_trainer(config, folder, checkpoints)
    trainer.fit(model, SmallData(batches), ckpt_path=last, weights_only=True)
    return checkpoints


def weights(folder: Path, name: str = LAST) -> dict[str, list[float]]:
    """The step and the weights of a checkpoint."""
    content = torch.load(folder / CHECKPOINTS / name, weights_only=True)
    found = {key: value.reshape(-1).tolist() for key, value in content["state_dict"].items()}
    return {"step": [content["global_step"]], **found}


def told_to_stop_in(step: int) -> Before:
    """SIGUSR1 while a step, counted from 1, is computed."""

    def before(model: Line, _: int) -> None:
        if model.trainer.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGUSR1)

    return before


def killed_in(step: int) -> Before:
    """A power failure while a step, counted from 1, is computed."""

    def before(model: Line, _: int) -> None:
        if model.trainer.global_step + 1 == step:
            raise RuntimeError("power failure")

    return before

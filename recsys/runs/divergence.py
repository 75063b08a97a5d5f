"""A training that diverges ends with a sentence; what is not finite is neither saved nor chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from recsys.core.durable import replace_file
from recsys.core.errors import TrainingError
from recsys.distributed.checkpoint.offline import table_of_state
from recsys.distributed.checkpoint.tensors import (
    DENSE_STATE,
    TABLE_STATE,
    WEIGHTS,
    HeldTensor,
    Place,
    tensors_in,
)
from recsys.distributed.processes import from_all_ranks
from recsys.distributed.training_log import LossListener
from recsys.runs.files import DIVERGED_FILE


@dataclass(frozen=True)
class _Seen:
    """The losses of a step, on their way to the host.

    Attributes:
        step: counted from 1.
        names: of the losses.
        values: [len(names)], on the host once ``copied`` has come to pass.
        copied: of a GPU's stream; None for losses that are there already.
    """

    step: int
    names: tuple[str, ...]
    values: Tensor
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, step: int, names: tuple[str, ...], values: Tensor) -> _Seen:
        """Begin to copy what lies on a GPU."""
        if values.device.type != "cuda":
            return cls(step, names, values, None)
        host = torch.empty_like(values, device="cpu", pin_memory=True)
        host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return cls(step, names, host, copied)

    def not_finite(self) -> dict[str, float]:
        """The losses that are not, by name."""
        if self.copied is not None:
            self.copied.synchronize()
        values = zip(self.names, self.values.tolist(), strict=True)
        return {name: value for name, value in values if not math.isfinite(value)}


class Divergence(LossListener):
    """Ends a training whose losses, weights or states of optimisers are not finite.

    Losses are looked at before the backward of their batch, so that the weights are still those
    that gave them. On a GPU it is those of the batch before: they have come to the host meanwhile,
    and the device does not wait. Weights and states are looked at before they are measured or
    saved, and once at the start. What one rank finds, all ranks raise.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: _Seen | None = None

    def on_losses(self, module: lightning.LightningModule, losses: Mapping[str, Tensor]) -> None:
        """Take the losses of a batch, the same on every rank.

        Raises:
            TrainingError: a loss is not finite, of this batch or on a GPU of the one before.
        """
        values = torch.stack([value.detach() for value in losses.values()])
        seen = _Seen.of(module.trainer.global_step + 1, tuple(losses), values)
        before, self._seen = self._seen, seen
        self._refuse_losses(module.trainer, seen if seen.copied is None else before)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Refuse a checkpoint to go on with, or to start from, that is not finite.

        Raises:
            TrainingError: it is not.
        """
        names = _not_finite(trainer)
        if names:
            raise TrainingError(
                f"The training would begin at step {trainer.global_step} with weights that are not "
                f"finite: {_listed(names)}. Begin a new run, or start it from a checkpoint that is "
                "finite by warm_start.checkpoint=…."
            )

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Refuse to measure what is not finite."""
        if trainer.state.fn == "fit":
            self.refuse(trainer)

    def refuse(self, trainer: lightning.Trainer) -> None:
        """End a training whose state is not finite; every rank must call it.

        Raises:
            TrainingError: a loss, a weight or a state of an optimiser is not finite.
        """
        self._refuse_losses(trainer, self._seen)
        names = _not_finite(trainer)
        if names:
            self._end(trainer.global_step, _listed(names))

    def refuse_validation(self, trainer: lightning.Trainer, name: str, loss: float) -> None:
        """End a training whose predictions of the choose split are not finite.

        Raises:
            TrainingError: their loss is not.
        """
        if not math.isfinite(loss):
            self._end(trainer.global_step, f"{name} is {loss}")

    def _refuse_losses(self, trainer: lightning.Trainer, seen: _Seen | None) -> None:
        losses = {} if seen is None else seen.not_finite()
        if seen is None or not losses:
            return
        names = _not_finite(trainer)
        weights = _listed(names) if names else "all weights are finite"
        values = ", ".join(f"train/{name} is {value}" for name, value in losses.items())
        self._end(seen.step, f"{values}, and {weights}")

    def _end(self, step: int, problem: str) -> None:
        advice = "Lower the learning rates (optim.…learning_rate) in a new run"
        if self.folder.is_dir() and any(self.folder.iterdir()):
            saved = f"{self.folder} keeps the last checkpoint before it"
            advice += ", or go on from there by resume=true trainer.gradient_clip=1.0"
        else:
            saved = "there is no checkpoint before it"
        raise TrainingError(
            f"The training diverged in step {step}: {problem}. It was not saved, {saved}. {advice}."
        )


@contextmanager
def noted_if_diverged(run_dir: Path) -> Iterator[None]:
    """Leave the sentence of a training that diverges in this block in its folder."""
    try:
        yield
    except TrainingError as error:
        replace_file(run_dir / DIVERGED_FILE, f"{error}\n".encode())
        raise


def _listed(names: list[str]) -> str:
    more = f", nor are {len(names) - 1} more weights and states" if len(names) > 1 else ""
    return f"{names[0]} is not finite{more}"


def _not_finite(trainer: lightning.Trainer) -> list[str]:
    """Names of what is not finite on any rank, in the order of the model; all ranks must ask."""
    here = [name for name, value in _state(trainer) if not _is_finite(value)]
    everywhere = [name for names in from_all_ranks(here) for name in names]
    return list(dict.fromkeys(everywhere))


def _state(trainer: lightning.Trainer) -> Iterator[tuple[str, Any]]:
    """What a checkpoint would hold of weights and states of optimisers, and what each is called."""
    strategy = trainer.strategy
    content: dict[str, Any] = {
        WEIGHTS: strategy.lightning_module_state_dict(),
        DENSE_STATE: [strategy.optimizer_state(one) for one in trainer.optimizers],
    }
    trainer.lightning_module.on_save_checkpoint(content)  # the states of tables
    for place, value in tensors_in(content):
        yield _name(place), value


def _name(place: Place) -> str:
    if place[0] == WEIGHTS:
        return str(place[1])
    if place[0] == TABLE_STATE:
        return f"the optimiser's state of {table_of_state(place)}"
    return "the dense optimiser's state"


def _is_finite(value: Any) -> bool:
    held = value if isinstance(value, HeldTensor) else HeldTensor.of(value)
    return all(_is_finite_part(part) for _, part in held.shards)


def _is_finite_part(part: Tensor) -> bool:
    if not part.is_floating_point() or not part.numel():
        return True
    return bool(torch.stack(part.aminmax()).isfinite().all())  # a mask would be as large as a table

"""The TorchRec strategy of Lightning: sharded tables, everything else data-parallel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from recsys.core.errors import RecsysError
from recsys.data.loaders.split import BatchLoader
from recsys.distributed.checkpoint.plugins import ShardedCheckpoints
from recsys.distributed.checkpoint.tensors import WEIGHTS, HeldTensor
from recsys.distributed.checkpoint.weights import held_weights, load_weights, refuse_other_weights
from recsys.distributed.config import TORCHREC, StrategyConfig
from recsys.distributed.input_overlap import HasTableInputs, InputOverlap
from recsys.distributed.placement import Sharded
from recsys.distributed.planning import ModelPlan
from recsys.distributed.sharded_tables import sharded_parameter_names
from recsys.optim.placement import TakesPlacement

#: Names that a message lists.
_LISTED = 5


class TorchRecStrategy(DDPStrategy):
    """Shards the tables of a model in ``configure_model``; Lightning's DDP does the rest.

    This is what TorchRec's ``DistributedModelParallel`` is made of, one by one: sharded
    collections, and ``DistributedDataParallel`` told to leave their weights alone. It wraps the
    LightningModule itself and not its children, so a model may call any method of its children,
    and gradients are averaged whatever the training step calls.

    Checkpoints are folders to which every rank writes its shards: any number of processes and any
    sharding can go on with one, and so can one process.

    Args:
        config: constraints of the plan.
        on_plan: told the plan on the first rank.
        write_in_background: whether checkpoints are written beside the training.
        seed: of the run; with ``overlap_inputs`` it decides what a step draws for its tables.
        settings: as of ``DDPStrategy``.
    """

    strategy_name = TORCHREC

    def __init__(
        self,
        config: StrategyConfig | None = None,
        on_plan: Callable[[ModelPlan], None] | None = None,
        write_in_background: bool = False,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.config = config or StrategyConfig(name=TORCHREC)
        timeout = timedelta(minutes=self.config.timeout_minutes)
        super().__init__(
            timeout=timeout,
            checkpoint_io=ShardedCheckpoints(write_in_background, timeout),
            broadcast_buffers=False,  # they are constants
            gradient_as_bucket_view=True,  # gradients are averaged where they lie
            **settings,
        )
        self.on_plan = on_plan
        self.seed = seed
        self._hosts: dist.ProcessGroup | None = None  # all processes
        self._overlap: InputOverlap | None = None
        self._loader: BatchLoader | None = None
        self._averaged: dict[str, nn.Parameter] = {}  # whose gradients are the ranks' mean

    def _configure_launcher(self) -> None:
        """Start no further processes where they have met already."""
        if not dist.is_initialized():
            super()._configure_launcher()

    def setup_environment(self) -> None:
        """Meet the other processes."""
        super().setup_environment()
        if dist.get_backend() != "gloo":
            self._hosts = dist.new_group(
                backend="gloo", timeout=self._timeout, group_desc="hosts' agreements"
            )

    def connect(self, model: lightning.LightningModule) -> None:
        """Take a model, and let it place its tables here when Lightning configures it."""
        super().connect(model)
        if isinstance(model, TakesPlacement) and not model.tables:
            model.placement = Sharded(
                self.config, self.root_device, self.num_processes, self.on_plan
            )

    def setup(self, trainer: lightning.Trainer) -> None:
        """Move the model to its device and wrap it."""
        assert self.model is not None
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            self.model, sharded_parameter_names(self.model)
        )
        super().setup(trainer)
        _end_at_sigterm(trainer)
        self._overlap = self._loader = None
        # another process is waited for, or a copy to a GPU
        waits = dist.get_world_size() > 1 or self.root_device.type == "cuda"
        module = self.lightning_module
        if self.config.overlap_inputs and waits and isinstance(module, HasTableInputs):
            self._overlap = InputOverlap(module, self.root_device, self.seed)

    def process_dataloader(self, dataloader: object) -> object:
        """Have the batches of the training read one ahead, where their inputs are sent ahead."""
        assert self.lightning_module is not None
        training = self.lightning_module.trainer.training
        if self._overlap is not None and training and isinstance(dataloader, BatchLoader):
            dataloader.read_ahead(self._overlap.copy)
            self._loader = dataloader
        return dataloader

    def batch_to_device(
        self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Any:
        """Move a batch that has not been copied ahead."""
        assert self.lightning_module is not None
        if self._loader is not None and self.lightning_module.trainer.training:
            return batch
        return super().batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: Any, *args: Any, **settings: Any) -> STEP_OUTPUT:
        """The loss of a batch; the next batch's table inputs travel meanwhile."""
        assert self.lightning_module is not None
        beside: AbstractContextManager[None] = nullcontext()
        if self._overlap is not None and self._loader is not None:
            number = self.lightning_module.trainer.fit_loop.epoch_loop.total_batch_idx
            beside = self._overlap.around_step(batch, self._loader.following, number)
        with beside:
            return super().training_step(batch, *args, **settings)

    def configure_ddp(self) -> None:
        """Average the dense gradients in a process group of their own.

        The backward of sharded tables and of pools over ranks communicates too, and the order of
        both need not be the same on all ranks. One process has nothing to average, and is spared
        the copies.

        Weights that a loss leaves out are not looked for, which would be a walk over the graph and
        an exchange more in every step: every weight that is trained is in the loss of every batch,
        whatever the batch lacks.
        """
        if dist.get_world_size() == 1:
            return
        assert self.lightning_module is not None
        sharded = sharded_parameter_names(self.lightning_module)
        self._averaged = {
            name: parameter
            for name, parameter in self.lightning_module.named_parameters()
            if parameter.requires_grad and name not in sharded
        }
        self._ddp_kwargs["process_group"] = dist.new_group(
            timeout=self._timeout, group_desc="dense gradients"
        )
        super().configure_ddp()

    def post_backward(self, closure_loss: Tensor) -> None:
        """Name weights without a gradient, for which the other ranks would wait.

        Raises:
            RecsysError: the loss leaves weights out.
        """
        super().post_backward(closure_loss)
        left_out = [name for name, one in self._averaged.items() if one.grad is None]
        if left_out:
            some = ", ".join(left_out[:_LISTED]) + (" and others" if left_out[_LISTED:] else "")
            raise RecsysError(
                f"On rank {dist.get_rank()} a batch's loss leaves out {some}; several processes "
                "average the gradient of every weight in every step. Have the loss contain each "
                "weight, if only times 0, or switch off what is never trained "
                "(requires_grad_(False))."
            )

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all ranks decide so, or any of them.

        The hosts agree: on the device the answer would come after everything it has been given to
        do, and a run asks in every step whether it was told to stop.
        """
        decided = torch.tensor(int(decision))
        dist.all_reduce(decided, dist.ReduceOp.MIN if all else dist.ReduceOp.MAX, group=self._hosts)
        return bool(decided)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The model's state: of sharded tables what this process holds."""
        assert self.lightning_module is not None
        return {
            name: HeldTensor.of(value) if isinstance(value, ShardedTensor) else value
            for name, value in self.lightning_module.state_dict().items()
        }

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """What this process holds of it; Lightning would have a spread state gathered first."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        return optimizer.state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write what this process holds; every rank comes here."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: _PATH, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Open a checkpoint, and refuse that of another model before anything takes its state."""
        checkpoint: dict[str, Any] = super().load_checkpoint(checkpoint_path, weights_only)
        if self.lightning_module is not None:
            refuse_other_weights(held_weights(self.lightning_module), checkpoint[WEIGHTS])
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take the weights; of sharded tables only what this process holds is read."""
        assert self.lightning_module is not None
        load_weights(self.lightning_module, checkpoint[WEIGHTS])


def _end_at_sigterm(trainer: lightning.Trainer) -> None:
    """A rank that gets SIGTERM ends; who has started the ranks ends the others.

    Lightning has the ranks broadcast that they got it, from the signal's handler, in the middle of
    whatever else they exchange: they wait for each other for ever. And in every step it has them
    and the device waited for, to hear of it.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    trainer._signal_connector._sigterm_notifier_fn = end  # type: ignore[method-assign, assignment]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


if TORCHREC not in StrategyRegistry:
    StrategyRegistry.register(
        TORCHREC,
        TorchRecStrategy,
        description="TorchRec tables sharded over all processes, everything else data-parallel",
    )

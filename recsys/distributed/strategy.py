"""The TorchRec strategy of Lightning: sharded tables, everything else data-parallel."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch.nn.parallel import DistributedDataParallel

from recsys.distributed.config import TORCHREC, StrategyConfig
from recsys.distributed.placement import Sharded
from recsys.distributed.planning import Plan
from recsys.distributed.sharded_tables import sharded_parameter_names, whole_state_dict
from recsys.optim.placement import TakesPlacement


class TorchRecStrategy(DDPStrategy):
    """Shards the tables of a model in ``configure_model``; Lightning's DDP does the rest.

    This is what TorchRec's ``DistributedModelParallel`` is made of, one by one: sharded
    collections, and ``DistributedDataParallel`` told to leave their weights alone. It wraps the
    LightningModule itself and not its children, so a model may call any method of its children,
    and gradients are averaged whatever the training step calls.

    Checkpoints are one file with whole tables, written by the first rank: any number of processes
    and any sharding can go on with it, one process too.

    Args:
        config: constraints of the plan.
        on_plan: told the plan on the first rank.
        settings: as of ``DDPStrategy``.
    """

    strategy_name = TORCHREC

    def __init__(
        self,
        config: StrategyConfig | None = None,
        on_plan: Callable[[Plan], None] | None = None,
        **settings: Any,
    ) -> None:
        self.config = config or StrategyConfig(name=TORCHREC)
        super().__init__(
            timeout=timedelta(minutes=self.config.timeout_minutes),
            broadcast_buffers=False,  # they are constants
            find_unused_parameters=True,  # a loss that is switched off leaves weights unused
            **settings,
        )
        self.on_plan = on_plan

    def _configure_launcher(self) -> None:
        """Start no further processes where they have met already."""
        if not dist.is_initialized():
            super()._configure_launcher()

    def connect(self, model: pl.LightningModule) -> None:
        """Take a model, and let it place its tables here when Lightning configures it."""
        super().connect(model)
        if isinstance(model, TakesPlacement) and not model.tables:
            model.placement = Sharded(
                self.config, self.root_device, self.num_processes, self.on_plan
            )

    def setup(self, trainer: pl.Trainer) -> None:
        """Move the model to its device and wrap it."""
        assert self.model is not None
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            self.model, sharded_parameter_names(self.model)
        )
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """Average the dense gradients in a process group of their own.

        The backward of sharded tables and of pools over ranks communicates too, and with weights
        that one rank does not use the order of both need not be the same on all ranks.
        """
        self._ddp_kwargs["process_group"] = dist.new_group(timeout=self._timeout)
        super().configure_ddp()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The model's state with whole tables on the first rank, nothing on the others."""
        assert self.lightning_module is not None
        return whole_state_dict(self.lightning_module)


if TORCHREC not in StrategyRegistry:
    StrategyRegistry.register(
        TORCHREC,
        TorchRecStrategy,
        description="TorchRec tables sharded over all processes, everything else data-parallel",
    )

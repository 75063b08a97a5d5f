"""Tables sharded over the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.types import ShardingEnv

from recsys.distributed.config import StrategyConfig
from recsys.distributed.planning import (
    ModelPlan,
    collections_of,
    make_plan,
    mark_optimizers,
    this_machine,
)
from recsys.distributed.processes import on_first_rank
from recsys.distributed.sharded_collection import CollectionSharder
from recsys.distributed.sharded_tables import ShardedTables
from recsys.optim.fused import FusedOptimizerConfig, PlacedTables
from recsys.optim.placement import TablePlacement


class Sharded(TablePlacement):
    """Every table where TorchRec's planner puts it; optimisers run in the backward.

    Args:
        config: constraints of the plan.
        device: where this process computes.
        per_node: processes of a node.
        on_plan: told the plan on the first rank.
    """

    def __init__(
        self,
        config: StrategyConfig,
        device: torch.device,
        per_node: int,
        on_plan: Callable[[ModelPlan], None] | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.per_node = per_node
        self.on_plan = on_plan

    def place(
        self, module: nn.Module, optimizers: Mapping[str, FusedOptimizerConfig]
    ) -> Mapping[str, PlacedTables]:
        """Plan all tables together, then replace each collection by its sharded counterpart.

        Every rank must call it with the same weights.

        Raises:
            ConfigError: an optimiser that cannot be used, or no plan under the constraints.
        """
        mark_optimizers(module, optimizers)
        machine = this_machine(self.config, dist.get_world_size(), self.per_node, self.device.type)
        plan, sharding = on_first_rank(lambda: make_plan(module, self.config, machine))
        if self.on_plan is not None and dist.get_rank() == 0:
            self.on_plan(plan)
        environment = ShardingEnv.from_process_group(dist.group.WORLD)
        sharder = CollectionSharder()
        placed = {}
        for child, config in optimizers.items():
            collections = {}
            for name, collection in collections_of(module.get_submodule(child)).items():
                path = f"{child}.{name}"
                collections[name] = sharder.shard(
                    collection, sharding.plan[path], environment, self.device
                )
                parent, _, attribute = path.rpartition(".")
                setattr(module.get_submodule(parent), attribute, collections[name])
            placed[child] = ShardedTables(config, collections)
        return placed

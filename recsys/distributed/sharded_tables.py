"""The tables of a module, sharded over processes, and the state of their optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.types import ShardedModule, ShardingType

from recsys.distributed.sharded_collection import (
    Shard,
    ShardedCollection,
    copy_shards,
    joined,
    local_shards,
)
from recsys.optim.fused import (
    OPTIMIZERS,
    FusedOptimizerConfig,
    PlacedTables,
    merged_columns,
    optimizer_options,
    refuse_other_tables,
    set_fused_rate,
)


class ShardedTables(PlacedTables):
    """Sharded collections; their optimiser runs in the backward.

    Replicated (``data_parallel``) tables have no fused kernel in TorchRec. They get the same
    optimiser as a dense one, stepped after every backward, so every table follows one rule.

    Args:
        config: how the tables are updated.
        collections: by their name in the module.
    """

    def __init__(
        self, config: FusedOptimizerConfig, collections: Mapping[str, ShardedCollection]
    ) -> None:
        self.config = config
        self.collections = dict(collections)
        replicated = [weight for name in collections for weight in self._replicated(name).values()]
        self.dense: torch.optim.Optimizer | None = None
        if replicated:
            optimizer = OPTIMIZERS[config.optimizer]
            self.dense = optimizer(replicated, **optimizer_options(config))  # type: ignore[call-arg]

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this learning rate from the next backward on."""
        for collection in self.collections.values():
            set_fused_rate(collection.fused_optimizer, learning_rate)
        if self.dense is not None:
            for group in self.dense.param_groups:
                group["lr"] = learning_rate

    def after_backward(self) -> None:
        """Update the replicated tables by their gradient's mean over the processes."""
        if self.dense is not None:
            self.dense.step()
            self.dense.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Whole optimiser state per collection on the first rank; nothing on the others."""
        whole: dict[str, Any] = {}
        for name in self.collections:
            tables: dict[str, dict[str, Any]] = {}
            for table, key, shards in self._state_shards(name):
                tables[table] = {key: gathered(shards)}
            whole[name] = {"state": tables}
        return whole if dist.get_rank() == 0 else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take this process's part of what ``state_dict`` gave, in however many shards it was.

        Raises:
            ConfigError: the state is of other tables.
        """
        refuse_other_tables(state, self.collections)
        for name, collection in self.collections.items():
            saved = state[name]["state"]
            held = list(self._state_shards(name))
            refuse_other_tables(saved, {table: None for table, _, _ in held})
            for weight, key, shards in held:
                table = weight.removesuffix(".weight")
                columns = _num_column_shards(collection, table)
                whole = in_column_shards(saved[weight][key], collection.num_rows[table], columns)
                copy_shards(whole, shards)

    def _state_shards(self, name: str) -> Iterator[tuple[str, str, list[Shard]]]:
        """Per table with state: its weight's name, the state's key, and what is held here of it."""
        if self.config.optimizer == "sgd":
            return
        collection, replicated = self.collections[name], self._replicated(name)
        fused = collection.fused_optimizer.state_dict()["state"]
        for table in sorted(collection.num_rows):
            if table in replicated:
                assert self.dense is not None
                total = self.dense.state[replicated[table]]["sum"]
                if self.config.optimizer == "rowwise_adagrad":
                    total = total.squeeze(
                        1
                    )  # [rows, 1] in the dense optimiser, [rows] in the fused
                shards: list[Shard] = [((0,) * total.ndim, total)]
            else:
                held = fused.get(f"embedding_bags.{table}.weight", {})
                shards = local_shards(held.get(f"{table}.momentum1"))
            yield f"{table}.weight", f"{table}.weight.momentum_1", shards

    def _replicated(self, name: str) -> dict[str, nn.Parameter]:
        collection = self.collections[name]
        return {
            table: collection.embedding_bags[table].weight
            for table, sharding in collection.module_sharding_plan.items()
            if sharding.sharding_type == ShardingType.DATA_PARALLEL.value
        }


def gathered(shards: list[Shard]) -> Tensor | None:
    """The whole tensor on the first rank; every rank must call it."""
    parts: list[list[Shard]] | None = [[]] * dist.get_world_size() if dist.get_rank() == 0 else None
    on_cpu = [(begin, part.detach().cpu()) for begin, part in shards]
    dist.gather_object(on_cpu, parts)
    if parts is None:
        return None
    return joined([shard for part in parts for shard in part])


def whole_state_dict(module: nn.Module) -> dict[str, Any]:
    """The state of a module with sharded tables, whole on the first rank, empty on the others."""
    state = {}
    for name, value in module.state_dict().items():
        if isinstance(value, ShardedTensor):
            value = gathered(local_shards(value))
        state[name] = value
    return state if dist.get_rank() == 0 else {}


def sharded_parameter_names(module: nn.Module) -> set[str]:
    """Parameters of ``module`` that are sharded tables, which data parallelism leaves alone."""
    return {
        f"{name}.{parameter}" if name else parameter
        for name, child in module.named_modules()
        if isinstance(child, ShardedModule)
        for parameter, _ in child.named_parameters()
    }


def _num_column_shards(collection: ShardedCollection, table: str) -> int:
    spec = collection.module_sharding_plan[table].sharding_spec
    return len({shard.shard_offsets[1] for shard in spec.shards}) if spec is not None else 1


def in_column_shards(state: Tensor, rows: int, count: int) -> Tensor:
    """Row-wise state of a table as that of ``count`` column shards, which then start alike."""
    if state.ndim > 1 or len(state) == count * rows:
        return state
    return merged_columns(state, state[:rows]).repeat(count)

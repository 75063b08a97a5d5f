"""The tables of a module, sharded over processes, and the state of their optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torchrec.distributed.types import ShardedModule, ShardingType

from recsys.distributed.checkpoint.tensors import HeldTensor, StoredTensor, TensorInFile, state_part
from recsys.distributed.sharded_collection import ShardedCollection
from recsys.optim.fused import (
    OPTIMIZERS,
    FusedOptimizerConfig,
    PlacedTables,
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
        """Optimiser state per collection: what this process holds of it."""
        return {
            name: {
                "state": {
                    f"{table}.weight": {f"{table}.weight.momentum_1": held}
                    for table, held in self._held_state(name)
                    if held.shards
                }
            }
            for name in self.collections
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take this process's part of a whole state, in however many shards it was.

        Raises:
            ConfigError: the state is of other tables.
        """
        refuse_other_tables(state, self.collections)
        for name, collection in self.collections.items():
            saved, held = state[name]["state"], dict(self._held_state(name))
            refuse_other_tables(saved, {f"{table}.weight": None for table in held})
            for table, parts in held.items():
                [value] = saved[f"{table}.weight"].values()
                stored = value if isinstance(value, StoredTensor) else TensorInFile(value)
                rows, count = collection.num_rows[table], _num_column_shards(collection, table)
                for begin, part in parts.shards:
                    part.detach().copy_(state_part(stored, rows, count, begin, part.shape))

    def _held_state(self, name: str) -> Iterator[tuple[str, HeldTensor]]:
        """Per table with state: its name, and what is held here of it."""
        if self.config.optimizer == "sgd":
            return
        collection, replicated = self.collections[name], self._replicated(name)
        fused = collection.fused_optimizer.state_dict()["state"]
        for table in sorted(collection.num_rows):
            if table in replicated:
                assert self.dense is not None
                total = self.dense.state[replicated[table]]["sum"]
                if self.config.optimizer == "rowwise_adagrad":
                    # [rows, 1] in the dense optimiser, [rows] in the fused
                    total = total.squeeze(1)
                yield table, HeldTensor.of(total)
            else:
                held = fused.get(f"embedding_bags.{table}.weight", {})
                state = held.get(f"{table}.momentum1")
                yield table, HeldTensor((), ()) if state is None else HeldTensor.of(state)

    def _replicated(self, name: str) -> dict[str, nn.Parameter]:
        collection = self.collections[name]
        return {
            table: collection.embedding_bags[table].weight
            for table, sharding in collection.module_sharding_plan.items()
            if sharding.sharding_type == ShardingType.DATA_PARALLEL.value
        }


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

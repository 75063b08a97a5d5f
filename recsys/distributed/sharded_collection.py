"""TorchRec's sharded table collection with its outputs in the order of the tables.

Legend: B requests, C features, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fbgemm_gpu.permute_pooled_embedding_modules import PermutePooledEmbeddings
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, KeyedTensor
from torchrec.distributed.embedding_types import KJTList
from torchrec.distributed.embeddingbag import (
    EmbeddingBagCollectionSharder,
    ShardedEmbeddingBagCollection,
)
from torchrec.distributed.types import LazyAwaitable, ParameterSharding, ShardingEnv

from recsys.distributed.checkpoint.tensors import HeldTensor
from recsys.nn.tables.collection import start_table
from recsys.nn.tables.first_rows import Undrawn


@dataclass(frozen=True)
class SentFeatures:
    """Features that have been sent to the processes that hold their tables.

    Attributes:
        context: what TorchRec noted of them on the way.
        here: those that came here.
    """

    context: Any
    here: KJTList


class ShardedCollection(ShardedEmbeddingBagCollection):
    """Gives the pooled rows in the order of tables and features, as an unsharded collection does.

    TorchRec gives them by sharding type and by rank; our pooling reads them by position.

    Attributes:
        num_rows: of each table.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tables = self._embedding_bag_configs
        self.num_rows = {table.name: table.num_embeddings for table in tables}
        self._keys = [name for table in tables for name in table.feature_names]
        self._widths = [table.embedding_dim for table in tables for _ in table.feature_names]
        if sorted(self._keys) != sorted(self._embedding_names):
            raise ValueError("a feature is looked up in several tables of one collection")
        position = {name: place for place, name in enumerate(self._embedding_names)}
        order = [position[name] for name in self._keys]
        self._permute = None
        if order != list(range(len(order))):
            self._permute = PermutePooledEmbeddings(self._embedding_dims, order, self._device)

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """The tables, as an unsharded collection gives them."""
        return list(self._embedding_bag_configs)

    def reset_parameters(self) -> None:
        """Nothing: the weights come from the collection that is sharded."""

    def forward(self, features: KeyedJaggedTensor | SentFeatures) -> LazyAwaitable[KeyedTensor]:
        """Look up features, [B, C · D]; they are sent first where they have not been."""
        if isinstance(features, SentFeatures):
            return self.compute_and_output_dist(features.context, features.here)
        return super().forward(features)

    def compute_and_output_dist(
        self,
        ctx: Any,
        input: KJTList,  # TorchRec's name
    ) -> LazyAwaitable[KeyedTensor]:
        """Look up and send the results back, [B, C · D]."""
        awaitable = super().compute_and_output_dist(ctx, input)
        if self._permute is not None:
            awaitable.callbacks.append(self._in_order)
        return awaitable

    def _in_order(self, pooled: KeyedTensor) -> KeyedTensor:
        assert self._permute is not None
        return KeyedTensor(self._keys, self._widths, self._permute(pooled.values()))


class CollectionSharder(EmbeddingBagCollectionSharder):
    """Shards ``EmbeddingBagCollection``s into ``ShardedCollection``s, weights kept."""

    def __init__(self) -> None:
        # Pooling folds every index into its table, so FBGEMM need not look at each one again.
        super().__init__(fused_params={"bounds_check_mode": BoundsCheckMode.NONE})

    def shard(
        self,
        module: EmbeddingBagCollection,
        params: dict[str, ParameterSharding],
        env: ShardingEnv,
        device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> ShardedCollection:
        """The collection over the processes of ``env``.

        Of a table that has no memory yet each process draws the first rows that it holds.
        """
        with Undrawn():
            sharded = ShardedCollection(
                module, params, env, fused_params=self.fused_params, device=device
            )
        held = sharded.state_dict()
        for table in module.embedding_bag_configs():
            weight = held[f"embedding_bags.{table.name}.weight"]
            start_table(module, table, HeldTensor.of(weight).shards)
        return sharded

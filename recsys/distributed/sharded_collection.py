"""TorchRec's sharded table collection with its outputs in the order of the tables.

Legend: B requests, C features, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from fbgemm_gpu.permute_pooled_embedding_modules import PermutePooledEmbeddings
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec import EmbeddingBagCollection, KeyedTensor
from torchrec.distributed.embedding_types import KJTList
from torchrec.distributed.embeddingbag import (
    EmbeddingBagCollectionSharder,
    ShardedEmbeddingBagCollection,
)
from torchrec.distributed.types import LazyAwaitable, ParameterSharding, ShardingEnv


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

    def reset_parameters(self) -> None:
        """Nothing: the weights come from the collection that is sharded."""

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
        """The collection over the processes of ``env``."""
        sharded = ShardedCollection(
            module, params, env, fused_params=self.fused_params, device=device
        )
        sharded.load_state_dict(module.state_dict())
        return sharded


#: Where a part of a whole tensor begins, and the part.
Shard = tuple[tuple[int, ...], Tensor]


def local_shards(tensor: ShardedTensor | None) -> list[Shard]:
    """What this process holds of a sharded tensor."""
    if tensor is None:
        return []
    return [(tuple(shard.metadata.shard_offsets), shard.tensor) for shard in tensor.local_shards()]


def joined(shards: list[Shard]) -> Tensor:
    """The whole tensor that all processes' shards make up, on the CPU."""
    dimensions = range(len(shards[0][0]))
    size = [max(begin[d] + part.shape[d] for begin, part in shards) for d in dimensions]
    whole = shards[0][1].new_empty(size, device="cpu")
    for begin, part in shards:
        whole[_place(begin, part)] = part.detach().cpu()
    return whole


def copy_shards(whole: Tensor, shards: list[Shard]) -> None:
    """Copy the parts of ``whole`` that this process holds into its shards."""
    for begin, part in shards:
        part.detach().copy_(whole[_place(begin, part)])


def _place(begin: tuple[int, ...], part: Tensor) -> tuple[slice, ...]:
    return tuple(slice(first, first + size) for first, size in zip(begin, part.shape, strict=True))

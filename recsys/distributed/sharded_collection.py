"""TorchRec's sharded table collection with its outputs in the order of the tables.

Legend: B requests, C features, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fbgemm_gpu.permute_pooled_embedding_modules import PermutePooledEmbeddings
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torch import Tensor
from torchrec import EmbeddingBagCollection, KeyedJaggedTensor, KeyedTensor
from torchrec.distributed.embedding_types import KJTList
from torchrec.distributed.embeddingbag import (
    EmbeddingBagCollectionSharder,
    ShardedEmbeddingBagCollection,
)
from torchrec.distributed.types import LazyAwaitable, ParameterSharding, ShardingEnv

from recsys.distributed.checkpoint.tensors import HeldTensor, Shard
from recsys.nn.tables.first_rows import first_rows_of


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

        A table that has no memory yet gets its first rows, those of this process alone; never more
        than a block of them is drawn at once.
        """
        sharded = ShardedCollection(
            module, params, env, fused_params=self.fused_params, device=device
        )
        held = sharded.state_dict()
        for name, weight in module.state_dict(keep_vars=True).items():
            shards = HeldTensor.of(held[name]).shards
            if shards:
                copy_blocks(first_rows_of(weight), shards)
        return sharded


def copy_blocks(blocks: Iterable[tuple[int, Tensor]], shards: Sequence[Shard]) -> None:
    """Copy rows of a table into the shards that hold them.

    Args:
        blocks: where each block of rows begins, and the rows, [n, D].
        shards: parts of the table.
    """
    for first, block in blocks:
        for (row, column), part in shards:
            begin, end = max(first, row), min(first + len(block), row + len(part))
            if begin < end:
                rows = block[begin - first : end - first, column : column + part.shape[1]]
                part.detach()[begin - row : end - row].copy_(rows)

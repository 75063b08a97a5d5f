"""Tensors on their way to a checkpoint and back: what a process holds, and what lies stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.tensor import DTensor

#: Where a part of a whole tensor begins, and the part.
Shard = tuple[tuple[int, ...], Tensor]

#: Keys of a checkpoint whose tensors are the same on all ranks, or shards: saved once, as tensors.
WEIGHTS = "state_dict"
TABLE_STATE = "fused_tables"
DENSE_STATE = "optimizer_states"
TENSOR_PARTS = (WEIGHTS, TABLE_STATE, DENSE_STATE)

#: How a place in the nested dictionary is written: keys of dictionaries, positions in lists.
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class HeldTensor:
    """What this process holds of a tensor.

    Attributes:
        size: of the whole tensor.
        shards: parts of it.
    """

    size: tuple[int, ...]
    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, value: Tensor | ShardedTensor) -> HeldTensor:
        """This process's shards of a sharded tensor, or all of one that is whole on this rank.

        A ``DTensor`` is one that only some ranks have, such as a block of Shampoo's state.
        """
        if isinstance(value, ShardedTensor):
            size = tuple(value.metadata().size)
            return cls(size, tuple(local_shards(value)))
        if isinstance(value, DTensor):
            value = value.to_local()
        return cls(tuple(value.shape), (((0,) * value.ndim, value.detach()),))

    def with_parts(self, parts: Iterator[Tensor]) -> HeldTensor:
        """The same shards with the next of these in their places."""
        return HeldTensor(self.size, tuple((begin, next(parts)) for begin, _ in self.shards))


class StoredTensor(ABC):
    """A tensor of a checkpoint, read in parts.

    Attributes:
        size: of the whole tensor.
        dtype: of its elements.
    """

    size: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def read(self, begin: Sequence[int], size: Sequence[int]) -> Tensor:
        """The part of this size that begins there."""

    def whole(self) -> Tensor:
        """All of it."""
        return self.read((0,) * len(self.size), self.size)

    def copy_to(self, shards: Sequence[Shard]) -> None:
        """Copy the parts that this process holds into its shards."""
        for begin, part in shards:
            part.detach().copy_(self.read(begin, part.shape))


class TensorInFile(StoredTensor):
    """A tensor of a memory-mapped file: what is not read stays on the disk."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.size = tuple(tensor.shape)
        self.dtype = tensor.dtype

    def read(self, begin: Sequence[int], size: Sequence[int]) -> Tensor:
        """A view."""
        return self.tensor[place_of(begin, size)]


def place_of(begin: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The slices of a whole tensor that a part takes up."""
    return tuple(slice(first, first + count) for first, count in zip(begin, size, strict=True))


def state_part(
    state: StoredTensor, rows: int, count: int, begin: Sequence[int], size: Sequence[int]
) -> Tensor:
    """A part of a table's optimiser state, for a table that is cut into ``count`` column shards.

    Row-wise state has a number per row and column shard, [S · rows]. Where the table was cut into
    another number of them, every part gets the mean of the parts there were, row by row.

    Args:
        state: as stored.
        rows: of the table.
        count: column shards of the table now.
        begin: where the part begins, in the state of so many column shards.
        size: of the part.
    """
    if len(state.size) > 1 or state.size[0] == count * rows:
        return state.read(begin, size)
    row = begin[0] % rows
    parts = [state.read((first + row,), size) for first in range(0, state.size[0], rows)]
    return torch.stack(parts).mean(dim=0)


def local_shards(tensor: ShardedTensor | None) -> list[Shard]:
    """What this process holds of a sharded tensor."""
    if tensor is None:
        return []
    return [(tuple(shard.metadata.shard_offsets), shard.tensor) for shard in tensor.local_shards()]


def tensors_in(content: dict[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Tensors below ``TENSOR_PARTS`` that are not empty, and their places."""
    for part in TENSOR_PARTS:
        if part in content:
            yield from _tensors_below((part,), content[part])


def without_tensors(content: dict[str, Any]) -> dict[str, Any]:
    """A copy with None in the place of each tensor of ``tensors_in``."""
    return {
        key: _emptied(value) if key in TENSOR_PARTS else value for key, value in content.items()
    }


def put_tensors(content: dict[str, Any], tensors: dict[Place, Any]) -> None:
    """Put tensors into their places."""
    for path, tensor in tensors.items():
        parent: Any = content
        for key in path[:-1]:
            # a table that this rank holds nothing of may have no place yet
            parent = parent.setdefault(key, {}) if isinstance(parent, dict) else parent[key]
        parent[path[-1]] = tensor


def _tensors_below(path: Place, value: Any) -> Iterator[tuple[Place, Any]]:
    if _is_tensor(value):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _tensors_below((*path, key), child)
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from _tensors_below((*path, position), child)


def _emptied(value: Any) -> Any:
    if _is_tensor(value):
        return None
    if isinstance(value, dict):
        return {key: _emptied(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_emptied(child) for child in value]
    return value


def _is_tensor(value: Any) -> bool:
    if isinstance(value, (HeldTensor, StoredTensor)):
        return True
    return isinstance(value, Tensor) and value.numel() > 0

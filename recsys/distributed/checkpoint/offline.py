"""Checkpoints rewritten by one process: as one file, or as the folder of other ranks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.core.folders import replaced_folder
from recsys.distributed.checkpoint.folder import (
    FORMAT_VERSION,
    ChecksummingWriter,
    FolderManifest,
    files_written,
)
from recsys.distributed.checkpoint.load import StoredCheckpoint
from recsys.distributed.checkpoint.plugins import named_if_unwritten, write_file
from recsys.distributed.checkpoint.save import ChunkPlanner, key_of, rest_key
from recsys.distributed.checkpoint.tensors import (
    TABLE_STATE,
    WEIGHTS,
    HeldTensor,
    Place,
    StoredTensor,
    state_part,
)

TABLE_WISE = "table_wise"
COLUMN_WISE = "column_wise"
ROW_WISE = "row_wise"
RESHARDING_TYPES = (TABLE_WISE, COLUMN_WISE, ROW_WISE)
#: FBGEMM's rows are multiples of so many numbers.
_LEAST_COLUMNS = 4
#: Of a place of a table's state: the collection's child and name, and the table's weight.
_CHILD, _COLLECTION, _WEIGHT = 1, 2, 4


@dataclass(frozen=True)
class UnreadPart:
    """A part of a stored tensor that is read when a chunk of it is written.

    Attributes:
        shape: of the part.
        dtype: of its elements.
        read: the piece of the part that begins there and has this size.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[Sequence[int], Sequence[int]], Tensor]

    def element_size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    def __getitem__(self, place: tuple[slice, ...]) -> Tensor:
        """A piece."""
        return self.read([one.start for one in place], [one.stop - one.start for one in place])


def unshard(stored: StoredCheckpoint, target: Path) -> None:
    """Write a checkpoint as one file; all of it must fit into memory.

    Raises:
        RecsysError: it cannot be written.
    """
    with named_if_unwritten(target):
        write_file(stored.whole(), target)


def reshard(stored: StoredCheckpoint, target: Path, world_size: int, sharding_type: str) -> None:
    """Write a checkpoint as the folder of so many ranks, a chunk in memory at a time.

    Tables are dealt out to the ranks whole, largest first, or each is cut by its columns or rows
    into as many parts as there are ranks. Everything else is spread over the ranks by size.

    Raises:
        RecsysError: it cannot be written; nothing is there then.
    """
    tables = {place: one for place, one in stored.tensors().items() if is_table(place)}
    states = {
        table_of_state(place): (place, one)
        for place, one in stored.tensors().items()
        if place[0] == TABLE_STATE
    }
    ranks: list[dict[str, Any]] = [{} for _ in range(world_size)]
    filled = [0] * world_size
    for place, table in sorted(tables.items(), key=lambda one: -one[1].size[0] * one[1].size[1]):
        if sharding_type == TABLE_WISE:
            first = filled.index(min(filled))
            parts: list[_Part] = [(first, (0, 0), table.size)]
            filled[first] += table.size[0] * table.size[1]
        else:
            parts = list(_cut(table.size, world_size, sharding_type))
        state = states.pop(str(place[1]), None)
        for rank, held in _held(table, parts).items():
            ranks[rank][key_of(place)] = held
        if state is not None:
            for rank, held in _held_state(state[1], table.size, parts).items():
                ranks[rank][key_of(state[0])] = held
    others = {place: one for place, one in stored.tensors().items() if place not in tables}
    for place, one in others.items():
        if place[0] != TABLE_STATE:
            for items in ranks:  # the planner has one of them write it
                items[key_of(place)] = _held(one, [(0, (0,) * len(one.size), one.size)])[0]
    for rank, items in enumerate(ranks):
        rest = items[rest_key(rank)] = io.BytesIO()
        torch.save(stored.rest(rank, world_size), rest)
    with named_if_unwritten(target), replaced_folder(target) as partial:
        _write_as_ranks(ranks, partial, stored.step)


def is_table(place: Place) -> bool:
    """Whether a tensor is the weight of a TorchRec table."""
    name = str(place[1])
    return place[0] == WEIGHTS and ".embedding_bags." in name and name.endswith(".weight")


def table_of_state(place: Place) -> str:
    """The name of the weight that a table's optimiser state belongs to."""
    return f"{place[_CHILD]}.{place[_COLLECTION]}.embedding_bags.{place[_WEIGHT]}"


#: Rank, where a part begins, and its size.
_Part = tuple[int, tuple[int, ...], tuple[int, ...]]


def _cut(size: tuple[int, ...], count: int, sharding_type: str) -> Iterator[_Part]:
    """Cut a table [rows, D] into at most ``count`` parts, as equal as can be."""
    rows, width = size
    dimension, unit = (1, _LEAST_COLUMNS) if sharding_type == COLUMN_WISE else (0, 1)
    units = size[dimension] // unit
    count = min(count, units)
    for rank in range(count):
        begin, end = (units * one // count * unit for one in (rank, rank + 1))
        if dimension:
            yield rank, (0, begin), (rows, end - begin)
        else:
            yield rank, (begin, 0), (end - begin, width)


def _held(tensor: StoredTensor, parts: Sequence[_Part]) -> dict[int, HeldTensor]:
    """The parts of a tensor, by rank, unread."""
    held = {}
    for rank, begin, size in parts:

        def read(
            inner: Sequence[int], count: Sequence[int], begin: tuple[int, ...] = begin
        ) -> Tensor:
            place = [first + start for first, start in zip(begin, inner, strict=True)]
            return tensor.read(place, count)

        part: Any = UnreadPart(size, tensor.dtype, read)
        held[rank] = HeldTensor(tensor.size, ((begin, part),))
    return held


def _held_state(
    state: StoredTensor, table: tuple[int, ...], parts: Sequence[_Part]
) -> dict[int, HeldTensor]:
    """Optimiser state of a table that is cut into these parts."""
    if len(state.size) > 1:  # a number per weight: cut as the table is
        return _held(state, parts)
    rows = table[0]
    columns = sorted({begin[1] for _, begin, _ in parts})
    held = {}
    for rank, begin, size in parts:
        first = columns.index(begin[1]) * rows + begin[0]

        def read(inner: Sequence[int], count: Sequence[int], first: int = first) -> Tensor:
            return state_part(state, rows, len(columns), (first + inner[0],), count)

        part: Any = UnreadPart((size[0],), state.dtype, read)
        held[rank] = HeldTensor((len(columns) * rows,), (((first,), part),))
    return held


def _write_as_ranks(ranks: Sequence[dict[str, Any]], folder: Path, step: int) -> None:
    """What ``write_folder`` does on several ranks, one after the other."""
    writer = ChecksummingWriter(folder)
    writer.set_up_storage_writer(is_coordinator=True)
    planners = [ChunkPlanner() for _ in ranks]
    for planner, items in zip(planners, ranks, strict=True):
        planner.set_up_planner(items, is_coordinator=planner is planners[0])
    local = [writer.prepare_local_plan(planner.create_local_plan()) for planner in planners]
    plans, metadata = planners[0].create_global_plan(local)
    results = [
        writer.write_data(planner.finish_plan(plan), planner).wait()
        for planner, plan in zip(planners, writer.prepare_global_plan(plans), strict=True)
    ]
    writer.finish(metadata, results)
    files = files_written(folder, writer.written)
    FolderManifest(FORMAT_VERSION, step, len(ranks), files).save(folder)

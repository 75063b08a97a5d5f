"""Writing a checkpoint: every rank its own shards, what all hold once, nothing gathered."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)

from recsys.core.checksums import FileMark
from recsys.distributed.checkpoint.copies import Copies
from recsys.distributed.checkpoint.folder import (
    FORMAT_VERSION,
    ChecksummingWriter,
    FolderManifest,
    files_written,
)
from recsys.distributed.checkpoint.tensors import (
    HeldTensor,
    Place,
    place_of,
    tensors_in,
    without_tensors,
)
from recsys.distributed.processes import on_first_rank

#: Bytes of a chunk at most: what a reader must hold to take a few rows of it.
CHUNK_BYTES = 2**25


def key_of(place: Place) -> str:
    """A place as DCP's name of the tensor."""
    return json.dumps(place)


def rest_key(rank: int) -> str:
    """DCP's name of what is no tensor and a rank's own."""
    return f"rest of rank {rank}"


def items_of(content: dict[str, Any], rank: int, copies: Copies | None) -> dict[str, Any]:
    """What this rank hands to DCP: its parts of tensors by key, and the rest.

    Args:
        content: the checkpoint.
        rank: of this process.
        copies: where to copy the tensors, so that the training may go on while they are written;
            None to write them as they lie.
    """
    held = {
        key_of(place): value if isinstance(value, HeldTensor) else HeldTensor.of(value)
        for place, value in tensors_in(content)
    }
    if copies is not None:
        parts = iter(copies.of([part for one in held.values() for _, part in one.shards]))
        held = {key: one.with_parts(parts) for key, one in held.items()}
    items: dict[str, Any] = dict(held)
    rest = io.BytesIO()
    torch.save(without_tensors(content), rest)
    items[rest_key(rank)] = rest
    return items


def write_folder(items: dict[str, Any], folder: Path, step: int, group: dist.ProcessGroup) -> None:
    """Write a checkpoint; every rank of ``group`` must call it.

    The folder is a checkpoint when the first rank has written its manifest, and none before.

    Raises:
        CheckpointException: a rank could not write; on every rank.
        OSError: the first could not make the folder or its manifest; on every rank.
    """
    on_first_rank(lambda: _make_empty(folder), group)
    writer = ChecksummingWriter(folder)
    dcp.save(items, storage_writer=writer, planner=ChunkPlanner(), process_group=group)
    written: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(written, writer.written, group=group)
    files = {name: entry for one in written for name, entry in one.items()}
    on_first_rank(lambda: _commit(folder, step, len(written), files), group)


def _make_empty(folder: Path) -> None:
    """Make a folder, in place of one of a run that was killed while it wrote."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _commit(folder: Path, step: int, world_size: int, files: Mapping[str, FileMark]) -> None:
    manifest = FolderManifest(FORMAT_VERSION, step, world_size, files_written(folder, files))
    manifest.save(folder)


class ChunkPlanner(DefaultSavePlanner):
    """Plans ``HeldTensor``s, cut by rows into chunks; whatever several ranks hold, one writes."""

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: Any = None, is_coordinator: bool = False
    ) -> None:
        """Take the items as they are: they are flat, and their tensors are in parts."""
        self.state_dict = state_dict
        self.is_coordinator = is_coordinator

    def create_local_plan(self) -> SavePlan:
        """A write per chunk."""
        writes = [write for key in self.state_dict for write in self._writes(key)]
        self.plan = SavePlan(writes, planner_data={})
        return self.plan

    def _writes(self, key: str) -> Iterator[WriteItem]:
        held = self.state_dict[key]
        if not isinstance(held, HeldTensor):
            yield WriteItem(index=MetadataIndex(key), type=WriteItemType.BYTE_IO)
            return
        for begin, part in held.shards:
            for offset, size in row_chunks(begin, part.shape, part.element_size()):
                yield WriteItem(
                    index=MetadataIndex(key, offset),
                    type=WriteItemType.SHARD,
                    tensor_data=TensorWriteData(
                        chunk=ChunkStorageMetadata(torch.Size(offset), torch.Size(size)),
                        properties=TensorProperties(dtype=part.dtype),
                        size=torch.Size(held.size),
                    ),
                )

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The chunk that begins at the index's offset, or the rest."""
        held = self.state_dict[index.fqn]
        if index.offset is None:
            return held
        for begin, part in held.shards:
            for offset, size in row_chunks(begin, part.shape, part.element_size()):
                if offset == tuple(index.offset):
                    inner = [first - start for first, start in zip(offset, begin, strict=True)]
                    return part[place_of(inner, size)]
        raise KeyError(index)

    def transform_object(self, write_item: WriteItem, object: Any) -> Any:
        """Bytes and tensors as they are."""
        return object


def row_chunks(
    begin: Sequence[int], size: Sequence[int], item_bytes: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut a shard by rows: where each chunk begins in the whole tensor, and its size."""
    if not size:  # a number
        yield (), ()
        return
    row_bytes = item_bytes
    for count in size[1:]:
        row_bytes *= count
    rows = max(1, CHUNK_BYTES // max(1, row_bytes))
    for first in range(0, size[0], rows):
        count = min(rows, size[0] - first)
        yield (begin[0] + first, *begin[1:]), (count, *size[1:])

"""Reading a checkpoint of either form: a folder of shards, or one memory-mapped file."""

from __future__ import annotations

import io
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from recsys.core.errors import ArtifactError
from recsys.distributed.checkpoint.consistency import refuse_contradictions
from recsys.distributed.checkpoint.folder import (
    METADATA,
    DamagedCheckpointError,
    FolderManifest,
    FolderReader,
)
from recsys.distributed.checkpoint.save import rest_key
from recsys.distributed.checkpoint.tensors import (
    DENSE_STATE,
    WEIGHTS,
    Place,
    StoredTensor,
    TensorInFile,
    place_of,
    put_tensors,
    tensors_in,
)

#: What a file or folder can raise that is damaged where no checksum is looked at.
_DAMAGE = (
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)


class StoredCheckpoint(ABC):
    """A checkpoint on the disk.

    Attributes:
        path: the file or folder.
        step: optimiser steps done.
        world_size: ranks that have written it.
    """

    path: Path
    step: int
    world_size: int

    @abstractmethod
    def tensors(self) -> dict[Place, StoredTensor]:
        """Weights and optimiser states, by their place in the checkpoint."""

    @abstractmethod
    def rest(self, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """What is no such tensor: that of this rank; the first's where the number differs."""

    def check(self, rank: int = 0, num_ranks: int = 1) -> None:
        """Look for damage in this rank's share of the files.

        Raises:
            ArtifactError: a file is not as it was written.
        """
        return

    def content(self, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """What a rank goes on with. Weights and the tables' state are left stored."""
        content = self.rest(rank, num_ranks)
        put_tensors(
            content,
            {
                place: tensor.whole() if place[0] == DENSE_STATE else tensor
                for place, tensor in self.tensors().items()
            },
        )
        return content

    def whole(self) -> dict[str, Any]:
        """All of it, whole."""
        content = self.rest()
        put_tensors(content, {place: one.whole() for place, one in self.tensors().items()})
        return content

    def stored_weights(self) -> dict[str, StoredTensor | Tensor]:
        """The model's weights, unread; those without an element are tensors."""
        weights = dict(self.rest()[WEIGHTS])
        stored = self.tensors().items()
        return weights | {str(place[1]): one for place, one in stored if place[0] == WEIGHTS}

    def weights(self) -> dict[str, Tensor]:
        """The model's weights, whole."""
        return {
            name: one.whole() if isinstance(one, StoredTensor) else one
            for name, one in self.stored_weights().items()
        }


def open_checkpoint(path: Path) -> StoredCheckpoint:
    """Open a checkpoint; the sizes of its files are checked, and ``check`` reads them.

    Raises:
        ArtifactError: it is not there, incomplete or damaged.
    """
    if path.is_symlink() and not path.exists():
        raise ArtifactError(
            f"{path} leads to {path.readlink()}, which is not there; give the path of another "
            "checkpoint."
        )
    if not path.exists():
        raise ArtifactError(
            f"{path} is not there: the run has not saved it yet, or it was moved; "
            "give `checkpoint=last` or the path of another one."
        )
    if path.is_symlink():  # a training may let it lead elsewhere while this one is read
        path = path.parent / path.readlink()
    return CheckpointFolder(path) if path.is_dir() else CheckpointFile(path)


class CheckpointFile(StoredCheckpoint):
    """One file, memory-mapped, written by one process."""

    world_size = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        if not is_zipfile(path):
            raise DamagedCheckpointError(
                f"{path} is damaged or no checkpoint: the index at the end of the file is missing"
            )
        try:
            self._content: dict[str, Any] = torch.load(
                path, map_location="cpu", weights_only=True, mmap=True
            )
        except _DAMAGE as error:
            raise DamagedCheckpointError(f"{path} is damaged ({_shortened(error)})") from error
        content = self._content if isinstance(self._content, dict) else {}
        if WEIGHTS not in content or not isinstance(content.get("global_step"), int):
            raise ArtifactError(f"{path} is not a checkpoint of `recsys train`.")
        self.step = content["global_step"]

    def check(self, rank: int = 0, num_ranks: int = 1) -> None:
        """Compare the checksums that the file, a ZIP archive, has of its entries.

        The first rank does it: entries are few, and most of the bytes lie in the largest tables.
        """
        if rank != 0:
            return
        try:
            with ZipFile(self.path) as archive:
                damaged = archive.testzip()
        except (BadZipFile, OSError, EOFError) as error:
            raise DamagedCheckpointError(f"{self.path} is damaged ({_shortened(error)})") from error
        if damaged is not None:
            raise DamagedCheckpointError(
                f"{self.path} is damaged: its entry {damaged} is not what was written (another "
                "CRC-32)"
            )

    def tensors(self) -> dict[Place, StoredTensor]:
        """Views of the mapped file."""
        return {place: TensorInFile(tensor) for place, tensor in tensors_in(self._content)}

    def rest(self, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """The file's, for every rank."""
        return _copied(self._content)


class CheckpointFolder(StoredCheckpoint):
    """A folder of shards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = FolderManifest.load(path)
        self.step = self.manifest.step
        self.world_size = self.manifest.world_size
        self._reader = FolderReader(path)
        try:
            self.metadata = self._reader.read_metadata()
            refuse_contradictions(path, self.manifest, self.metadata)
        except _DAMAGE as error:
            raise DamagedCheckpointError(
                f"{path / METADATA} is damaged ({_shortened(error)})"
            ) from error
        self._reader.set_up_storage_reader(self.metadata, is_coordinator=True)

    def check(self, rank: int = 0, num_ranks: int = 1) -> None:
        """Compare checksums."""
        self.manifest.check_content(self.path, rank, num_ranks)

    def tensors(self) -> dict[Place, StoredTensor]:
        """Tensors that are read from the folder's files."""
        return {
            tuple(json.loads(key)): TensorInFolder(self, key, description)
            for key, description in self.metadata.state_dict_metadata.items()
            if isinstance(description, TensorStorageMetadata)
        }

    def rest(self, rank: int = 0, num_ranks: int = 1) -> dict[str, Any]:
        """What the rank has written; the first rank's for another number of ranks."""
        key = MetadataIndex(rest_key(rank if num_ranks == self.world_size else 0))
        origin = torch.Size([0])
        item = ReadItem(LoadItemType.BYTE_IO, key, origin, key, origin, origin)
        planner = _IntoMemory()
        self.read(LoadPlan([item]), planner)
        try:
            rest: dict[str, Any] = torch.load(planner.bytes, map_location="cpu", weights_only=True)
        except _DAMAGE as error:
            raise DamagedCheckpointError(
                f"{self.path} is damaged: the state of rank {rank} in it cannot be read "
                f"({_shortened(error)})"
            ) from error
        return rest

    def read(self, plan: LoadPlan, planner: _IntoMemory) -> None:
        """Read the items of a plan.

        Raises:
            ArtifactError: a file is damaged.
        """
        try:
            self._reader.read_data(plan, planner).wait()
        except _DAMAGE as error:
            storage = self.metadata.storage_data
            files = sorted({storage[item.storage_index].relative_path for item in plan.items})
            raise DamagedCheckpointError(
                f"{self.path / files[0]} cannot be read ({_shortened(error)})"
            ) from error


class TensorInFolder(StoredTensor):
    """A tensor in chunks; a part is read from the chunks that it overlaps."""

    def __init__(
        self, checkpoint: CheckpointFolder, key: str, description: TensorStorageMetadata
    ) -> None:
        self.checkpoint = checkpoint
        self.key = key
        self.chunks = description.chunks
        self.size = tuple(description.size)
        self.dtype = description.properties.dtype
        self._description = description

    def read(self, begin: Sequence[int], size: Sequence[int]) -> Tensor:
        """A tensor of its own."""
        part = torch.empty(tuple(size), dtype=self.dtype)
        chunk = ChunkStorageMetadata(torch.Size(begin), torch.Size(size))
        items = create_read_items_for_chunk_list(self.key, self._description, [chunk])
        self.checkpoint.read(LoadPlan(items), _IntoMemory(part))
        return part

    def files(self) -> set[str]:
        """Names of the files it lies in."""
        storage = self.checkpoint.metadata.storage_data
        indices = (MetadataIndex(self.key, chunk.offsets) for chunk in self.chunks)
        return {storage[index].relative_path for index in indices}


class _IntoMemory(DefaultLoadPlanner):
    """Takes what DCP reads: parts of one tensor, or bytes."""

    def __init__(self, part: Tensor | None = None) -> None:
        super().__init__()
        self.part = part
        self.bytes = io.BytesIO()

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Keep them as they are."""
        self.bytes = value

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """Where a chunk's overlap belongs."""
        assert self.part is not None
        return self.part[place_of(read_item.dest_offsets, read_item.lengths)]


def _copied(value: Any) -> Any:
    """New dictionaries and lists around the same tensors, so that filling one changes no other."""
    if isinstance(value, dict):
        return {key: _copied(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_copied(child) for child in value]
    return value


def _shortened(error: Exception) -> str:
    """What another library says, in a line."""
    return " ".join(str(error).split())[:200] or type(error).__name__

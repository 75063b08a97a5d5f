"""What `recsys checkpoint` does with a checkpoint, apart from any run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import OneOf, OutPath, Processes, Settings
from recsys.core.folders import check_new, locked_folder
from recsys.distributed.checkpoint.load import StoredCheckpoint, TensorInFolder, open_checkpoint
from recsys.distributed.checkpoint.offline import (
    RESHARDING_TYPES,
    TABLE_WISE,
    is_table,
    reshard,
    table_of_state,
    unshard,
)
from recsys.distributed.checkpoint.tensors import DENSE_STATE, TABLE_STATE, Place, StoredTensor


@dataclass(frozen=True)
class InspectConfig(Settings):
    """Which checkpoint.

    Attributes:
        path: the file or folder.
        verify: read all of it and compare checksums.
    """

    path: str = MISSING
    verify: bool = True


@dataclass(frozen=True)
class UnshardConfig(Settings):
    """Which checkpoint becomes one file.

    Attributes:
        path: the folder.
        out: the file.
    """

    path: str = MISSING
    out: OutPath = MISSING


@dataclass(frozen=True)
class ReshardConfig(Settings):
    """Which checkpoint becomes the folder of other ranks.

    Attributes:
        path: the file or folder.
        out: the new folder.
        world_size: ranks it is written for.
        sharding_type: ``table_wise`` deals whole tables out, ``column_wise`` and ``row_wise`` cut
            each over the ranks.
    """

    path: str = MISSING
    out: OutPath = MISSING
    world_size: Processes = MISSING
    sharding_type: Annotated[str, OneOf(tuple(RESHARDING_TYPES))] = TABLE_WISE


@dataclass(frozen=True)
class TensorLine:
    """A tensor, or the dense optimiser's tensors together.

    Attributes:
        name: of a weight, or whose state it is.
        kind: table, weight, state of a table, state of the dense optimiser.
        shape: of the whole tensor; empty where there are several.
        dtype: of its elements.
        bytes: of the whole tensor.
        shards: number of pieces it lies in.
        files: number of files they lie in.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    shards: int
    files: int


@dataclass(frozen=True)
class Inspected:
    """What a checkpoint holds.

    Attributes:
        stored: the checkpoint.
        lines: tables and their states first, then weights, largest first.
        verified: whether checksums were compared.
    """

    stored: StoredCheckpoint
    lines: tuple[TensorLine, ...]
    verified: bool


def inspect(config: InspectConfig) -> Inspected:
    """Say what a checkpoint holds.

    Raises:
        ArtifactError: it is not there, incomplete or damaged.
    """
    stored = open_checkpoint(Path(config.path))
    if config.verify:
        stored.check()
    tensors = stored.tensors()
    lines = sorted(
        (_line(place, one) for place, one in tensors.items() if place[0] != DENSE_STATE),
        key=lambda line: ("table" not in line.kind, -line.bytes, line.name),
    )
    lines += list(_dense_state([one for place, one in tensors.items() if place[0] == DENSE_STATE]))
    return Inspected(stored, tuple(lines), config.verify)


def _line(place: Place, tensor: StoredTensor) -> TensorLine:
    kind, name = "table" if is_table(place) else "weight", str(place[1])
    if place[0] == TABLE_STATE:
        kind, name = "state of table", table_of_state(place)
    shards, files = _pieces(tensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorLine(name, kind, tensor.size, dtype, _bytes(tensor), shards, files)


def _dense_state(tensors: list[StoredTensor]) -> Iterator[TensorLine]:
    if tensors:
        dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in tensors})
        shards = sum(_pieces(one)[0] for one in tensors)
        files = max(_pieces(one)[1] for one in tensors)
        total = sum(_bytes(one) for one in tensors)
        name = f"{len(tensors)} tensors"
        yield TensorLine(name, "state of weights", (), ", ".join(dtypes), total, shards, files)


def _pieces(tensor: StoredTensor) -> tuple[int, int]:
    if isinstance(tensor, TensorInFolder):
        return len(tensor.chunks), len(tensor.files())
    return 1, 1


def _bytes(tensor: StoredTensor) -> int:
    return prod(tensor.size) * tensor.dtype.itemsize


def unshard_checkpoint(config: UnshardConfig) -> Path:
    """Write one file from a folder; it is whole or not there.

    Raises:
        ArtifactError: the checkpoint is not there, incomplete or damaged.
        ConfigError: ``out`` is there already, or lies within the checkpoint.
    """
    stored, out = open_checkpoint(Path(config.path)), Path(config.out)
    check_new(out, [stored.path])
    stored.check()
    with locked_folder(out):
        check_new(out, [stored.path])
        unshard(stored, out)
    return out


def reshard_checkpoint(config: ReshardConfig) -> Path:
    """Write a folder for other ranks; it is whole or not there.

    Raises:
        ArtifactError: the checkpoint is not there, incomplete or damaged.
        ConfigError: ``out`` is there already, or lies within the checkpoint.
    """
    stored, out = open_checkpoint(Path(config.path)), Path(config.out)
    check_new(out, [stored.path])
    stored.check()
    with locked_folder(out):
        check_new(out, [stored.path])
        reshard(stored, out, config.world_size, config.sharding_type)
    return out

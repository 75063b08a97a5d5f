"""A folder whose manifest or description has lost something is no checkpoint."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import Metadata

from recsys.core.checksums import FileMark
from recsys.distributed.checkpoint.folder import MANIFEST, METADATA, DamagedCheckpointError
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.offline import reshard
from recsys.distributed.checkpoint.plugins import write_file
from recsys.distributed.checkpoint.safe_pickle import load_metadata
from tests.rewritten import CHECKPOINT_KIND, rewrite

TABLE = "tower.tables.embedding_bags.item.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of two ranks, each with half of a table."""
    content: dict[str, Any] = {
        "state_dict": {TABLE: torch.rand(6, 4), "layer.weight": torch.rand(3, 2)},
        "global_step": 7,
    }
    write_file(content, tmp_path / "one.ckpt")
    target = tmp_path / "two.ckpt"
    reshard(open_checkpoint(tmp_path / "one.ckpt"), target, 2, "row_wise")
    open_checkpoint(target).check()
    return target


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write it changed."""
    rewrite(folder / MANIFEST, CHECKPOINT_KIND, change)


def change_description(folder: Path, change: Callable[[Metadata], object]) -> None:
    """Write it changed, with a manifest that has its size and checksum."""
    metadata = load_metadata(folder / METADATA)
    change(metadata)
    (folder / METADATA).write_bytes(pickle.dumps(metadata))
    mark = asdict(FileMark.of(folder / METADATA))
    change_manifest(folder, lambda manifest: manifest["files"].update({METADATA: mark}))


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_that_the_manifest_does_not_name_is_missed(
    folder: Path, name: str, is_there: bool
) -> None:
    change_manifest(folder, lambda manifest: manifest["files"].pop(name))
    if not is_there:
        (folder / name).unlink()
    with pytest.raises(DamagedCheckpointError, match=f"manifest.json is damaged: .* name {name}"):
        open_checkpoint(folder)


@pytest.mark.parametrize("world_size", [1, 3])
def test_another_number_of_ranks_than_have_written_it_is_noticed(
    folder: Path, world_size: int
) -> None:
    change_manifest(folder, lambda manifest: manifest.update(world_size=world_size))
    said = rf"says that {world_size} process\(es\) have written it, \.metadata has the state of 2"
    with pytest.raises(DamagedCheckpointError, match=said):
        open_checkpoint(folder)
    change_manifest(folder, lambda manifest: manifest.update(world_size="2"))
    with pytest.raises(DamagedCheckpointError, match="number of processes is no number"):
        open_checkpoint(folder)


def test_a_chunk_without_a_place_is_noticed(folder: Path) -> None:
    def lose_one(metadata: Metadata) -> None:
        last = next(index for index in metadata.storage_data if TABLE in index.fqn)
        del metadata.storage_data[last]

    change_description(folder, lose_one)
    with pytest.raises(DamagedCheckpointError, match=rf"does not say where .*{TABLE}.* lies"):
        open_checkpoint(folder)


def test_a_description_of_something_else_is_damage_too(folder: Path) -> None:
    def forget_chunks(metadata: Metadata) -> None:
        for one in metadata.state_dict_metadata.values():
            vars(one).pop("chunks", None)

    change_description(folder, forget_chunks)
    with pytest.raises(DamagedCheckpointError, match=r"\.metadata is damaged"):
        open_checkpoint(folder)

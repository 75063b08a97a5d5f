"""Checkpoints as folders: written, cut anew, joined, and recognised where they are damaged."""

from __future__ import annotations

import pickle
import resource
import shutil
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from recsys.core.checksums import FileMark
from recsys.core.errors import ArtifactError, RecsysError
from recsys.distributed.checkpoint import save
from recsys.distributed.checkpoint.folder import MANIFEST, METADATA, FolderManifest
from recsys.distributed.checkpoint.load import CheckpointFolder, open_checkpoint
from recsys.distributed.checkpoint.offline import reshard, unshard
from recsys.distributed.checkpoint.plugins import write_file
from recsys.distributed.checkpoint.safe_pickle import load_metadata
from recsys.distributed.checkpoint.save import row_chunks
from recsys.distributed.checkpoint.tensors import tensors_in
from tests.rewritten import CHECKPOINT_KIND, rewrite

TABLE = "tower.tables.embedding_bags.item.weight"
OTHER = "tower.tables.embedding_bags.topic.weight"


def content() -> dict[str, Any]:
    """What Lightning hands over, small: a table with row-wise state, one with a whole state."""
    draw = torch.Generator().manual_seed(0)

    def tensor(*size: int) -> Tensor:
        return torch.rand(size, generator=draw)

    state = {
        "item.weight": {"item.weight.momentum_1": tensor(11)},
        "topic.weight": {"topic.weight.momentum_1": tensor(5, 8)},
    }
    return {
        "state_dict": {
            TABLE: tensor(11, 8),
            OTHER: tensor(5, 8),
            "dense.weight": tensor(3, 2),
            "dense.scale": torch.tensor(0.5),
            "dense.none": torch.empty(0, 4),
            "dense.half": tensor(4).to(torch.bfloat16),
        },
        "fused_tables": {"tower": {"tables": {"state": state}}},
        "optimizer_states": [
            {
                "state": {0: {"step": torch.tensor(7.0), "exp_avg": tensor(3, 2)}},
                "param_groups": [{"lr": 0.1, "params": [0]}],
            }
        ],
        "loops": {"state_dict": {"loader": [3, torch.arange(2)]}},
        "global_step": 7,
    }


def assert_same(found: Any, expected: Any) -> None:
    """The same nested content."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The content as one file."""
    write_file(content(), tmp_path / "one.ckpt")
    return tmp_path / "one.ckpt"


@pytest.fixture
def folder(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The content as three ranks have it that cut tables by columns, in chunks of few rows."""
    monkeypatch.setattr(save, "CHUNK_BYTES", 64)
    target = tmp_path / "three.ckpt"
    reshard(open_checkpoint(file), target, 3, "column_wise")
    return target


def test_a_file_is_read_as_it_was_written(file: Path) -> None:
    stored = open_checkpoint(file)
    assert stored.step == 7
    assert_same(stored.whole(), content())
    assert_same(stored.weights(), content()["state_dict"])


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("sharding_type", ["table_wise", "row_wise"])
def test_resharding_loses_nothing(
    file: Path, tmp_path: Path, world_size: int, sharding_type: str
) -> None:
    target = tmp_path / "folder.ckpt"
    reshard(open_checkpoint(file), target, world_size, sharding_type)
    stored = open_checkpoint(target)
    stored.check()
    assert (stored.step, stored.world_size) == (7, world_size)
    assert_same(stored.whole(), content())
    assert_same(stored.weights(), content()["state_dict"])
    unshard(stored, tmp_path / "again.ckpt")
    assert_same(open_checkpoint(tmp_path / "again.ckpt").whole(), content())


def test_column_shards_have_a_row_wise_state_each(folder: Path, tmp_path: Path) -> None:
    """Width 8 makes two column shards of four; both start with the whole table's state."""
    expected = content()
    states = expected["fused_tables"]["tower"]["tables"]["state"]
    whole = states["item.weight"]["item.weight.momentum_1"]
    states["item.weight"]["item.weight.momentum_1"] = whole.repeat(2)
    assert_same(open_checkpoint(folder).whole(), expected)
    reshard(open_checkpoint(folder), tmp_path / "back.ckpt", 2, "table_wise")
    assert_same(open_checkpoint(tmp_path / "back.ckpt").whole(), content())


def test_every_rank_writes_a_part_in_small_chunks(folder: Path) -> None:
    stored = open_checkpoint(folder)
    assert isinstance(stored, CheckpointFolder)
    assert set(stored.manifest.files) == {METADATA, "__0_0.distcp", "__1_0.distcp", "__2_0.distcp"}
    table: Any = stored.tensors()["state_dict", TABLE]
    assert table.files() == {"__0_0.distcp", "__1_0.distcp"}
    assert len(table.chunks) == 2 * 3  # 11 rows of 16 bytes by four
    part = table.read((2, 3), (5, 4))
    assert torch.equal(part, content()["state_dict"][TABLE][2:7, 3:7])


def test_the_rest_is_each_ranks_own(folder: Path) -> None:
    stored = open_checkpoint(folder)
    for rank, num_ranks in ((0, 3), (2, 3), (1, 5)):
        assert_same(stored.rest(rank, num_ranks)["loops"], content()["loops"])
    places = [place for place, _ in tensors_in(stored.content(1, 3))]
    assert set(places) == {place for place, _ in tensors_in(content())}


@pytest.mark.parametrize("name", [METADATA, "__0_0.distcp", "__1_0.distcp", "__2_0.distcp"])
def test_damage_is_named(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=rf"{name} is damaged: it has \d+ bytes"):
        open_checkpoint(folder)
    path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    with pytest.raises(ArtifactError, match=f"{name} is damaged"):
        open_checkpoint(folder).check()
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        open_checkpoint(folder)


def test_damage_of_a_file_is_named(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    with ZipFile(file) as archive:  # an entry that is large enough to be hit for sure
        entry = next(one for one in archive.infolist() if one.filename.endswith("data.pkl"))
    place = entry.header_offset + len(entry.filename) + entry.file_size
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ArtifactError, match=r"one\.ckpt is damaged"):
        open_checkpoint(file).check()
    weight = content()["state_dict"][TABLE].numpy().tobytes()
    place = whole.index(weight)
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ArtifactError, match=r"its entry .*/data/\d+ is not what was written"):
        open_checkpoint(file).check()
    for cut in (b"", b"no checkpoint", whole[:1000]):
        file.write_bytes(cut)
        with pytest.raises(ArtifactError, match="the index at the end of the file is missing"):
            open_checkpoint(file)


@pytest.mark.parametrize(
    "foreign", [[1], torch.ones(3), {"state_dict": {}, "global_step": None}, {"weights": {}}]
)
def test_a_foreign_file_is_no_checkpoint(foreign: Any, tmp_path: Path) -> None:
    torch.save(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(ArtifactError, match="is not a checkpoint of `recsys train`"):
        open_checkpoint(tmp_path / "foreign.ckpt")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").symlink_to("step-00000004.ckpt")
    with pytest.raises(ArtifactError, match=r"leads to step-00000004\.ckpt, which is not there"):
        open_checkpoint(tmp_path / "last.ckpt")


def test_a_link_may_lead_elsewhere_while_a_checkpoint_is_read(
    file: Path, folder: Path, tmp_path: Path
) -> None:
    newer, last = tmp_path / "newer.ckpt", tmp_path / "last.ckpt"
    changed = content()
    changed["state_dict"][TABLE] += 1
    write_file(changed, file)
    reshard(open_checkpoint(file), newer, 2, "row_wise")
    last.symlink_to(folder.name)
    stored = open_checkpoint(last)
    last.unlink()
    last.symlink_to(newer.name)
    stored.check()
    assert_same(stored.weights(), content()["state_dict"])


@pytest.mark.parametrize("key", [{"more": 1}, {"files": []}, {"files": {}}, {"step": "four"}])
def test_a_foreign_manifest_is_named(folder: Path, key: dict[str, Any]) -> None:
    rewrite(folder / MANIFEST, CHECKPOINT_KIND, key)
    with pytest.raises(ArtifactError, match="is damaged or not a checkpoint's"):
        open_checkpoint(folder)


def test_a_full_disk_leaves_nothing_behind(file: Path, tmp_path: Path) -> None:
    """``RLIMIT_FSIZE`` refuses longer files as a full disk does."""
    out, stored = tmp_path / "out", open_checkpoint(file)
    out.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, limits[1]))
    try:
        for write in (
            lambda: unshard(stored, out / "file.ckpt"),
            lambda: reshard(stored, out / "folder.ckpt", 2, "table_wise"),
        ):
            with pytest.raises(RecsysError, match=r"could not be written: .*File too large"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(out.iterdir())


def test_ranks_share_the_work_of_checking(folder: Path) -> None:
    path = folder / "__1_0.distcp"
    whole = path.read_bytes()
    path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    stored, damaged = open_checkpoint(folder), 0
    for rank in range(3):
        try:
            stored.check(rank, 3)
        except ArtifactError:
            damaged += 1
    assert damaged == 1


def test_what_was_not_finished_is_no_checkpoint(folder: Path) -> None:
    rewrite(folder / MANIFEST, CHECKPOINT_KIND, {"format_version": 99})
    with pytest.raises(ArtifactError, match="format version 99"):
        open_checkpoint(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ArtifactError, match=f"{MANIFEST} is damaged"):
        open_checkpoint(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="is no whole checkpoint"):
        open_checkpoint(folder)
    shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match="is not there"):
        open_checkpoint(folder)


class _Harm:
    """Unpickled it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


class _Asked:
    """Pickled as ``getattr(owner, name)``, as Python 3.11.2 does with members of enumerations."""

    def __init__(self, owner: object, name: str) -> None:
        self.asked = (owner, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, self.asked


def test_only_memory_formats_may_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / METADATA
    path.write_bytes(pickle.dumps(_Asked(_MEM_FORMAT_ENCODING, "TORCH_PRESERVE_FORMAT")))
    assert load_metadata(path) is _MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT
    for owner, name in ((_MEM_FORMAT_ENCODING, "mro"), (torch.Size, "count")):
        path.write_bytes(pickle.dumps(_Asked(owner, name)))
        with pytest.raises(pickle.UnpicklingError, match=f"asks .* for {name}"):
            load_metadata(path)


def test_a_description_cannot_run_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / METADATA).write_bytes(pickle.dumps(_Harm()))
    mark = asdict(FileMark.of(folder / METADATA))
    rewrite(
        folder / MANIFEST,
        CHECKPOINT_KIND,
        lambda manifest: manifest["files"].update({METADATA: mark}),
    )
    with pytest.raises(ArtifactError, match=r"names builtins\.print"):
        open_checkpoint(folder)
    assert not capsys.readouterr().out


def test_a_file_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, weights in (("weights.ckpt", _Harm()), ("state.ckpt", {})):
        other = {"global_step": 1, "callbacks": {"a": _Harm()}}
        torch.save({"state_dict": weights, **other}, tmp_path / name)
        with pytest.raises(ArtifactError, match=f"{name} is damaged"):
            open_checkpoint(tmp_path / name)
    assert not capsys.readouterr().out


def test_the_state_of_a_rank_cannot_run_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(self: CheckpointFolder, plan: Any, planner: Any) -> None:
        torch.save({"state_dict": {}, "callbacks": _Harm()}, planner.bytes)
        planner.bytes.seek(0)

    monkeypatch.setattr(CheckpointFolder, "read", read)
    with pytest.raises(ArtifactError, match="the state of rank 0 in it cannot be read"):
        open_checkpoint(folder).rest()
    assert not capsys.readouterr().out


def test_a_manifest_names_files_of_its_folder_alone(folder: Path, tmp_path: Path) -> None:
    files = {name: asdict(mark) for name, mark in FolderManifest.load(folder).files.items()}
    (folder / "__0_0.distcp").rename(tmp_path / "__0_0.distcp")
    files["../__0_0.distcp"] = files.pop("__0_0.distcp")
    rewrite(folder / MANIFEST, CHECKPOINT_KIND, {"files": files})
    with pytest.raises(ArtifactError, match="which is no file of its folder"):
        open_checkpoint(folder)


@given(
    begin=st.integers(0, 50),
    rows=st.integers(1, 60),
    width=st.integers(1, 9),
    chunk_bytes=st.integers(1, 400),
)
@settings(max_examples=50, deadline=None)
def test_chunks_cover_a_shard_once(begin: int, rows: int, width: int, chunk_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save, "CHUNK_BYTES", chunk_bytes)
        cut = list(row_chunks((begin, 3), (rows, width), 4))
    assert [row for (first, _), (count, _) in cut for row in range(first, first + count)] == list(
        range(begin, begin + rows)
    )
    assert all(place[1] == 3 and size[1] == width for place, size in cut)
    assert all(count * width * 4 <= chunk_bytes or count == 1 for _, (count, _) in cut)

"""Content of a prepared data set: compared where it may have changed, and where asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from recsys.cli.main import invoke
from recsys.core.checksums import FileMark
from recsys.core.errors import DataError
from recsys.data.stores.check import CHECKED_FILE, check_dataset, open_checked
from recsys.data.stores.dataset import PreparedDataset
from tests.cli.test_maintenance import folder, write_log

__all__ = ["folder"]


def flip(path: Path) -> None:
    """Change a bit of a file; its time of change stays."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_every_file_that_is_read_is_covered(folder: Path) -> None:
    checked = check_dataset(PreparedDataset.open("mine"))
    present = [path for path in Path("mine").rglob("*") if path.is_file()]
    own = {"dataset.json", "inputs.json", CHECKED_FILE, "CURRENT.json", "LOCK"}
    assert checked.files == len([path for path in present if path.name not in own])
    assert checked.bytes_read == checked.bytes > 0
    assert check_dataset(PreparedDataset.open("mine")).bytes_read == 0
    assert check_dataset(PreparedDataset.open("mine"), anew=True).bytes_read == checked.bytes


def test_a_copy_is_read_once(folder: Path) -> None:
    first = check_dataset(PreparedDataset.open("mine"))
    shutil.copytree("mine", "copy")
    assert check_dataset(PreparedDataset.open("copy")).bytes_read == first.bytes
    assert check_dataset(PreparedDataset.open("copy")).bytes_read == 0


@pytest.mark.parametrize(
    "pattern", ["vocabulary/user.parquet", "features/*.npy", "timelines/*.block"]
)
def test_a_flipped_bit_is_found_where_it_is_looked_for(folder: Path, pattern: str) -> None:
    path = max(Path("mine").glob(pattern), key=lambda one: one.stat().st_size)
    open_checked("mine")
    flip(path)
    with pytest.raises(DataError, match=rf"{path.name} is not what was written \(another CRC-32\)"):
        check_dataset(PreparedDataset.open("mine"), anew=True)
    os.utime(path)
    with pytest.raises(DataError, match="another CRC-32"):
        open_checked("mine")
    assert invoke(["data", "check", "dataset=mine"]) == 2


def test_a_damaged_data_set_gets_no_new_checksums(folder: Path) -> None:
    [block, *_] = sorted(Path("mine/timelines").glob("*.block"))
    write_log(folder / "log" / "2.parquet", 10, 2)
    flip(block)
    command = ["data", "append", "path=log", "out=mine", "partitions=2"]
    assert invoke(command) == 2
    whole = block.read_bytes()
    flip(block)
    assert invoke(command) == 0
    assert check_dataset(PreparedDataset.open("mine"), anew=True).bytes_read > 0
    block = folder / "mine" / "timelines" / block.name
    block.write_bytes(whole)
    assert invoke(["data", "compact", "dataset=mine"]) == 2


def test_a_vocabulary_is_always_compared_whole(folder: Path) -> None:
    path = folder / "mine" / "vocabulary" / "user.parquet"
    flip(path)
    with pytest.raises(DataError, match=r"user\.parquet is not what was written"):
        PreparedDataset.open("mine").vocabulary("user")


def test_a_file_cut_off_is_noticed_when_the_data_set_is_opened(folder: Path) -> None:
    path = max(Path("mine/features").glob("*"), key=lambda one: one.stat().st_size)
    mark = FileMark.of(path)
    os.truncate(path, mark.bytes - 1)
    with pytest.raises(DataError, match=f"has {mark.bytes - 1} bytes, {mark.bytes} were written"):
        PreparedDataset.open("mine")

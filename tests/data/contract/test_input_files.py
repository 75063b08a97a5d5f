"""Input files are known by their content, and read only where they may have changed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.errors import DataError
from recsys.data.contract.input_files import describe_files, load_input_files, save_input_files


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Two files."""
    written = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for number, path in enumerate(written):
        path.write_bytes(b"x" * number)
    return written


def test_digest_is_that_of_the_content(paths: list[Path]) -> None:
    assert describe_files([], []) == ()
    described = describe_files(paths, [])
    assert [file.name for file in described] == ["1.csv", "2.csv"]
    assert [file.size for file in described] == [0, 1]
    assert described[1].digest == hashlib.blake2b(b"x", digest_size=16).hexdigest()


def test_a_known_file_is_not_read_until_it_changes(paths: list[Path]) -> None:
    known = [replace(file, digest="known") for file in describe_files(paths, [])]
    assert [file.digest for file in describe_files(paths, known)] == ["known", "known"]
    os.utime(paths[0], ns=(1, 1))
    paths[1].write_bytes(b"longer")
    read = describe_files(paths, known)
    assert "known" not in {file.digest for file in read}
    assert read[0].modified == 1 and read[1].size == 6


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / day / "part-0.parquet" for day in ("day=1", "day=2")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
        os.utime(path, ns=(1, 1))
    described = describe_files(paths, [])
    assert [file.name for file in described] == ["day=1/part-0.parquet", "day=2/part-0.parquet"]
    assert described[0].digest != described[1].digest
    assert describe_files(paths, described) == described


def test_what_is_saved_is_loaded(paths: list[Path], tmp_path: Path) -> None:
    assert load_input_files(tmp_path) == ()
    described = describe_files(paths, [])
    save_input_files(described, tmp_path)
    assert load_input_files(tmp_path) == described


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv cannot be read: Is a directory"):
        describe_files([tmp_path / "folder.csv"], [])

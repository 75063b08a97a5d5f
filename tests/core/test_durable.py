"""A file that is replaced is the old one or the new one, and nothing else is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.core.durable import replace_file, replaced_file


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_is_replaced_and_a_link_beside_it_keeps_what_was_there(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"old")
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    with replaced_file(tmp_path / "file") as partial:
        partial.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert content(tmp_path) == {"file": "new", "link": "old"}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"old")
    with (
        pytest.raises(OSError, match="disk full"),
        replaced_file(tmp_path / "file") as partial,
        partial.open("w") as file,
    ):
        file.write("half of it")
        raise OSError("disk full")
    assert content(tmp_path) == {"file": "old"}


def test_a_block_that_writes_nothing_replaces_nothing(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"old")
    with pytest.raises(FileNotFoundError), replaced_file(tmp_path / "file"):
        pass
    assert content(tmp_path) == {"file": "old"}

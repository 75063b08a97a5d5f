"""JSON files of ours: whatever is damaged is noticed, whatever is written is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.checksums import FileMark
from recsys.core.errors import DataError
from recsys.core.json_files import decode_json, encode_json, read_json, write_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
CONTENTS = st.dictionaries(st.text().filter(lambda key: key != "checksum"), VALUES)


@given(CONTENTS)
def test_what_is_written_is_read(content: dict[str, Any]) -> None:
    assert decode_json("toy", encode_json("toy", content)) == content


@given(content=CONTENTS, place=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_changes_nothing(
    content: dict[str, Any], place: int, bit: int
) -> None:
    data = bytearray(encode_json("toy", content))
    data[place % len(data)] ^= 1 << bit
    try:
        found = decode_json("toy", bytes(data))
    except ValueError:
        return
    assert found == content


@given(content=CONTENTS, length=st.integers(0))
def test_a_file_that_is_cut_off_is_noticed(content: dict[str, Any], length: int) -> None:
    data = encode_json("toy", content)
    with pytest.raises(ValueError):
        decode_json("toy", data[: length % (len(data) - 1)])


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"3", b"[1]", b"{}", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_damaged_or_foreign_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "toy.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"toy\.json is damaged or no toy of this release .*; mend"):
        read_json(path, "toy", DataError, "mend it.")


def test_a_file_of_another_kind_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    write_json(path, "other toy", {"a": 1})
    with pytest.raises(DataError, match="no toy of this release"):
        read_json(path, "toy", DataError, "mend it.")
    path.unlink()
    with pytest.raises(DataError, match=r"toy\.json is missing; mend it\."):
        read_json(path, "toy", DataError, "mend it.")


def test_marks_tell_sizes_and_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    mark = FileMark.of(path)
    assert mark == FileMark(3, 0x352441C2)  # CRC-32 of "abc"
    assert mark.problem(path) is None
    path.write_bytes(b"abd")
    assert mark.size_problem(path) is None and "another CRC-32" in str(mark.problem(path))
    path.write_bytes(b"ab")
    assert mark.problem(path) == "has 2 bytes, 3 were written"
    path.unlink()
    assert mark.problem(path) == "is missing"

"""A damaged store of embeddings: a sentence, never another embedding."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ArtifactError
from recsys.embeddings.stores import open_store
from recsys.embeddings.stores.base import decode_record, encode_record, encode_user
from recsys.embeddings.stores.lmdb import LARGEST_VERSION

USERS = 40
ROWS = np.arange(2 * 17, dtype=np.int64).reshape(2, 17)
RECORD = encode_record(encode_user(7), 3, 1_700_000_000_000, ROWS)


@given(place=st.integers(0, len(RECORD) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_record_is_noticed_or_changes_nothing(place: int, bit: int) -> None:
    damaged = bytearray(RECORD)
    damaged[place] ^= 1 << bit
    try:
        found = decode_record(encode_user(7), 3, bytes(damaged))
    except ArtifactError:
        return
    assert found is not None and found.timestamp == 1_700_000_000_000
    assert np.array_equal(found.rows, ROWS)


@given(length=st.integers(0, len(RECORD) - 1))
def test_a_record_that_is_cut_off_is_noticed(length: int) -> None:
    with pytest.raises(ArtifactError, match="is damaged"):
        decode_record(encode_user(7), 3, RECORD[:length])


@pytest.mark.parametrize(("user", "version"), [(8, 3), ("7", 3), (7, 4)])
def test_a_record_of_another_user_or_version_is_noticed(user: int | str, version: int) -> None:
    with pytest.raises(ArtifactError, match="is damaged"):
        decode_record(encode_user(user), version, RECORD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of even users."""
    with open_store(str(tmp_path)) as store:
        store.begin(0, {})
        users = list(range(0, 2 * USERS, 2))
        store.put_many(users, np.stack([ROWS + user for user in users]))
        store.commit()
        assert store.check() == USERS
    return tmp_path


def record_key(user: int) -> bytes:
    return encode_user(user) + (LARGEST_VERSION - 1).to_bytes(8, "big")


@pytest.mark.parametrize("other", [13, 1, 99])
def test_a_record_that_moved_is_missed(folder: Path, other: int) -> None:
    """As where a bit of a key, or of what leads to it, is flipped."""
    with lmdb.open(str(folder), max_dbs=4) as environment:
        records = environment.open_db(b"records")
        with environment.begin(write=True, db=records) as transaction:
            content = transaction.pop(record_key(12))
            transaction.put(record_key(other), content)
    with open_store(str(folder), readonly=True) as store:
        with pytest.raises(ArtifactError, match="is damaged"):
            store.get(other)
        with pytest.raises(ArtifactError, match="is damaged"):
            store.check()
        if other == 13:  # beside its place
            with pytest.raises(ArtifactError, match="is damaged"):
                store.get(12)
        assert store.get(50) is not None


def test_users_who_have_none_are_still_told(folder: Path) -> None:
    with open_store(str(folder), readonly=True) as store:
        assert [store.get(user) for user in (-1, 1, 2 * USERS + 5)] == [None] * 3
        assert store.get("12") is None


@pytest.mark.parametrize("share", [0, 0.1, 0.4, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_a_sentence(folder: Path, share: float) -> None:
    file = folder / "data.mdb"
    os.truncate(file, int(share * file.stat().st_size))
    for readonly in (True, False):
        with pytest.raises(ArtifactError, match=r"is damaged|cannot be used"):
            open_store(str(folder), readonly=readonly)

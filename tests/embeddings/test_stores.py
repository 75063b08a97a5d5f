"""What every embedding store promises, on LMDB and on a real Redis server."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import lmdb
import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ArtifactError, ConfigError, DataError, RecsysError
from recsys.embeddings.stores import EmbeddingStore, open_store
from recsys.embeddings.stores.base import decode_user, encode_user
from tests.embeddings.stores import redis_server, store_location
from tests.room import room

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["lmdb", "redis"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with store_location(request.param, tmp_path) as where:
        yield where


@pytest.fixture
def store(location: str) -> Iterator[EmbeddingStore]:
    with open_store(location) as opened:
        yield opened


def rows(*values: int) -> np.ndarray:
    """Rows [U, 2, 3], one value per user."""
    return np.array(values, dtype=np.int64)[:, None, None] * np.ones((1, 2, 3), np.int64)


def publish(store: EmbeddingStore, timestamp: int = 0, **values: int) -> int:
    version = store.begin(timestamp, {}).version
    store.put_many(list(values), rows(*values.values()))
    store.commit()
    return version


def value(store: EmbeddingStore, user: int | str) -> int | None:
    found = store.get(user)
    return None if found is None else int(found.rows[0, 0])


def test_a_committed_embedding_is_read_back(store: EmbeddingStore) -> None:
    publication = store.begin(1_700_000_000_000, {"model": "abc"})
    payload = np.arange(2 * 58 * 17, dtype=np.int64).reshape(2, 58, 17) - 1_000
    store.put_many([7, "seven"], payload)
    store.commit()
    assert store.current() == publication
    for user, expected in ((7, payload[0]), ("seven", payload[1])):
        found = store.get(user)
        assert found is not None
        assert (found.version, found.timestamp) == (publication.version, 1_700_000_000_000)
        assert np.array_equal(found.rows, expected)
    assert store.get(8) is None
    assert store.get("7") is None  # an integer and its spelling are two users


def test_every_user_with_a_record_is_walked_once(store: EmbeddingStore) -> None:
    users: list[int | str] = [-3, 0, 7, 2**62, 2**63, 2**64 - 1, "seven", "", "ä", "sevenfold"]
    assert list(store.users()) == []
    for _ in range(3):  # superseded records stay until prune
        store.begin(0, {})
        store.put_many(users, rows(*range(len(users))))
        store.commit()
    walked = list(store.users())
    assert len(walked) == len(users) and set(walked) == set(users)


def test_nothing_is_seen_before_commit(store: EmbeddingStore) -> None:
    assert store.current() is None
    assert store.get(1) is None
    publish(store, a=1, b=2)
    store.begin(0, {})
    store.put_many(["a", "c"], rows(10, 30))
    store.withdraw_many(["b"])
    assert [value(store, user) for user in "abc"] == [1, 2, None]
    store.commit()
    assert [value(store, user) for user in "abc"] == [10, None, 30]


def test_an_incremental_publication_keeps_the_others(store: EmbeddingStore) -> None:
    first = publish(store, timestamp=5, a=1, b=2)
    second = publish(store, timestamp=6, b=3)
    found_a, found_b = store.get_many(["a", "b"])
    assert found_a is not None and (found_a.version, found_a.timestamp) == (first, 5)
    assert found_b is not None and (found_b.version, found_b.timestamp) == (second, 6)


def test_an_unfinished_publication_is_taken_back(location: str) -> None:
    with open_store(location) as store:
        publish(store, a=1, b=2)
        store.begin(0, {})
        store.put_many(["a", "c"], rows(10, 30))
    with open_store(location) as store:
        assert [value(store, user) for user in "abc"] == [1, 2, None]
        publish(store, b=20)  # does not mention a and c: what was half written must not surface
        assert [value(store, user) for user in "abc"] == [1, 20, None]


def test_prune_drops_what_nobody_sees_any_more(store: EmbeddingStore) -> None:
    publish(store, a=1, b=2, c=3)
    publish(store, a=10, b=20)
    store.begin(0, {})
    store.withdraw_many(["b"])
    store.commit()
    assert store.prune() == 3  # a=1, b=2, b=20
    assert [value(store, user) for user in "abc"] == [10, None, 3]
    assert store.prune() == 0
    publish(store, b=200)
    assert value(store, "b") == 200


def test_prune_leaves_an_open_publication_alone(store: EmbeddingStore) -> None:
    publish(store, a=1)
    store.begin(0, {})
    store.put_many(["a"], rows(2))
    assert store.prune() == 0
    assert value(store, "a") == 1
    store.commit()
    assert value(store, "a") == 2


def test_a_deleted_user_is_gone_in_every_version(store: EmbeddingStore) -> None:
    publish(store, a=1, b=2)
    publish(store, a=3)
    store.delete("a")
    assert [value(store, user) for user in "ab"] == [None, 2]
    publish(store, b=4)
    assert store.prune() == 1
    assert [value(store, user) for user in "ab"] == [None, 4]


def test_an_open_publication_does_not_bring_a_deleted_user_back(store: EmbeddingStore) -> None:
    publish(store, a=1)
    store.begin(0, {})
    store.delete("a")
    store.put_many(["a", "b"], rows(2, 3))
    store.commit()
    assert [value(store, user) for user in "ab"] == [None, 3]
    publish(store, a=4)  # a came back and was computed anew
    assert value(store, "a") == 4


def test_the_older_of_two_publishers_stops(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path) as location,
        open_store(location) as older,
        open_store(location) as newer,
    ):
        older.begin(0, {})
        older.put_many(["a"], rows(1))
        newer.begin(0, {})
        with pytest.raises(ArtifactError, match="Another publication has begun"):
            older.put_many(["b"], rows(1))
        with pytest.raises(ArtifactError, match="Another publication has begun"):
            older.commit()
        newer.put_many(["b"], rows(2))
        newer.commit()
        assert [value(newer, user) for user in "ab"] == [None, 2]


def test_a_begun_publication_supersedes_the_one_before(store: EmbeddingStore) -> None:
    first = store.begin(0, {})
    store.put_many(["a"], rows(1))
    store.begin(0, {})
    store._open = first  # the publisher that did not notice
    with pytest.raises(ArtifactError, match="Another publication has begun"):
        store.commit()


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_publishers_never_show_half_an_update(location: str, seed: int) -> None:
    """Kill −9 at random moments; a reader beside it sees one version's rows for all users."""
    users, generator = list(range(40)), random.Random(seed)
    program = [
        sys.executable,
        "-m",
        "tests.embeddings.publisher_process",
        location,
        str(len(users)),
    ]
    seen: list[int] = []
    with open_store(location) as reader:
        for _ in range(4):
            publisher = subprocess.Popen(program, stdout=subprocess.PIPE, cwd=ROOT)
            assert publisher.stdout is not None
            publisher.stdout.readline()  # one publication went through; the next is under way
            end = time.monotonic() + generator.uniform(0.0, 0.15)
            while time.monotonic() < end:
                seen.append(one_version(reader, users))
            publisher.send_signal(signal.SIGKILL)
            publisher.wait()
            publisher.stdout.close()
            seen.append(one_version(reader, users))
        version = reader.begin(0, {}).version
        reader.put_many(users, np.full((len(users), 2, 3), version))
        reader.commit()
        reader.prune()
        assert one_version(reader, users) == version
    assert seen == sorted(seen)
    assert len(set(seen)) >= 4  # each publisher's first; how many more is the machine's speed


def one_version(reader: EmbeddingStore, users: list[int]) -> int:
    """The version all users are at, which their rows spell out."""
    found = reader.get_many(users)
    versions = {int(value) for stored in found if stored for value in stored.rows.ravel()}
    assert len(versions) == 1 and None not in found
    return versions.pop()


def test_an_absent_folder_is_a_sentence_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no embedding store"):
        open_store(str(tmp_path / "nothing"), readonly=True)


def test_a_silent_redis_is_a_sentence() -> None:
    with pytest.raises(ArtifactError, match="No Redis server answers"):
        open_store("redis://127.0.0.1:1/0")


def test_a_long_id_is_refused() -> None:
    with pytest.raises(DataError, match="481 bytes"):
        encode_user("x" * 481)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=6)),
        min_size=2,
        max_size=6,
        unique_by=lambda user: (type(user), user),
    )
)
def test_no_key_is_a_prefix_of_another(users: list[int | str]) -> None:
    keys = sorted(encode_user(user) for user in users)
    assert not any(later.startswith(key) for key, later in pairwise(keys))
    assert [decode_user(encode_user(user)) for user in users] == users


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "withdraw", "commit", "begin", "delete", "prune"]),
            st.sampled_from(["", "a", "ab", "b"]),
        ),
        max_size=25,
    )
)
def test_any_sequence_of_steps_matches_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    """The store against a model: one dictionary visible, one being written."""
    visible: dict[str, int] = {}
    written: dict[str, int | None] = {}
    deleted: set[str] = set()
    with open_store(str(tmp_path_factory.mktemp("model") / "store")) as store:
        store.begin(0, {})
        for number, (step, user) in enumerate(steps):
            if step == "put":
                store.put_many([user], rows(number))
                written |= {} if user in deleted else {user: number}
            elif step == "withdraw":
                store.withdraw_many([user])
                written |= {user: None} if user in visible else {}
            elif step == "delete":
                store.delete(user)
                visible.pop(user, None)
                written.pop(user, None)
                deleted.add(user)
            elif step == "prune":
                store.prune()
            else:
                if step == "commit":
                    store.commit()
                    visible |= written  # type: ignore[arg-type]
                    visible = {key: kept for key, kept in visible.items() if kept is not None}
                store.begin(0, {})
                written, deleted = {}, set()
            for known in ("", "a", "ab", "b"):
                assert value(store, known) == visible.get(known)


def test_an_address_of_another_kind_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"store=ftp://x: .* not at ftp:"):
        open_store("ftp://x")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence_and_leaves_no_store(tmp_path: Path) -> None:
    with (
        open_store(str(tmp_path / "store")) as store,
        room(200_000),
        pytest.raises(RecsysError, match="store could not be written: "),
    ):
        try:
            store.begin(0, {})
            store.put_many(list(range(1_000)), np.ones((1_000, 20, 17), np.int64))
        except RecsysError:
            store.abandon()
            raise
    assert not list(tmp_path.iterdir())


def test_a_publication_given_up_leaves_what_was_published(store: EmbeddingStore) -> None:
    store.begin(0, {})
    store.put_many([1, 2], np.ones((2, 1, 2), np.int64))
    store.commit()
    store.begin(1, {})
    store.put_many([2, 3], np.zeros((2, 1, 2), np.int64))
    store.abandon()
    assert [one is not None for one in store.get_many([1, 2, 3])] == [True, True, False]
    assert set(store.users()) == {1, 2}


def test_a_redis_without_memory_is_a_sentence(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, open_store(url) as store:
        store.begin(0, {})
        client = redis.Redis.from_url(url)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
        with pytest.raises(RecsysError, match=r"has no memory left .*maxmemory"):
            store.put_many(list(range(5_000)), np.ones((5_000, 4, 17), np.int64))
        store.abandon()
        assert not list(store.users())


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ArtifactError, match=r"holds thesis\.txt and is no embedding store"):
        open_store(str(tmp_path))
    with pytest.raises(ArtifactError, match="is a file"):
        open_store(str(tmp_path / "thesis.txt"))
    with lmdb.open(str(tmp_path / "other")) as other, other.begin(write=True) as transaction:
        transaction.put(b"a", b"b")
    with pytest.raises(ArtifactError, match="is an LMDB of another program"):
        open_store(str(tmp_path / "other"))

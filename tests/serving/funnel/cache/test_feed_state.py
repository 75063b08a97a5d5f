"""FeedState: what is kept of users, for how long, of which generation, and in which store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.lmdb_folder import DATA_FILE
from recsys.serving.funnel.cache.feed_state import FeedState
from recsys.serving.funnel.cache.redis_store import RedisStore
from recsys.serving.funnel.cache.stores import LmdbStore, MemoryStore, Store, row_type
from recsys.serving.funnel.candidates import Requests
from tests.embeddings.stores import redis_server

HOUR = 3_600_000
TASKS = ("like", "hide")
ROW = row_type(2)


@pytest.fixture(params=["memory", "lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with ExitStack() as stack:
        if request.param == "redis":
            url = f"{stack.enter_context(redis_server(tmp_path))}?socket_timeout=20"
            made: Store = RedisStore(url, "tests", TASKS, 3_600)
        else:
            made = MemoryStore() if request.param == "memory" else LmdbStore(tmp_path, TASKS)
        yield stack.enter_context(closing(made))


def feed(store: Store, generation: str = "one", items: int = 10, hours: float = 6) -> FeedState:
    return FeedState(store, ROW, generation, round(hours * HOUR), items)


def asked(user: int, hour: float) -> Requests:
    return Requests(np.array([0]), np.array([user]), np.array([round(hour * HOUR)]))


def scored(items: list[int], hour: float) -> NDArray[np.void]:
    rows = np.zeros(len(items), ROW)
    rows["item"], rows["moment"] = items, round(hour * HOUR)
    rows["scores"] = np.array(items)[:, None] * [0.01, 0.001]
    rows["counters"] = np.array(items)[:, None] + [0.5, 0.25]
    return rows


def note(state: FeedState, user: int, hour: float, items: list[int], shown: list[int]) -> None:
    rows = scored(items, hour)
    state.note(asked(user, hour), np.array([len(items)]), rows, np.array([[*shown, -1]]))


def items(state: FeedState, user: int, hour: float) -> list[int]:
    found: list[int] = state.entries(asked(user, hour)).rows["item"].tolist()
    return found


def test_items_of_several_sessions_are_kept_with_scores_moments_and_places(store: Store) -> None:
    state = feed(store)
    note(state, 7, 1, [3, 5, 8], [8, 3])
    note(state, 7, 2, [5, 9], [9, 3])
    found = state.entries(asked(7, 3)).rows
    assert found["item"].tolist() == [5, 9, 3, 8]
    assert (found["moment"] // HOUR).tolist() == [2, 2, 1, 1]
    assert found["place"].tolist() == [0, 1, 2, 0]  # of the last list alone
    assert found["scores"].tobytes() == scored([5, 9, 3, 8], 0)["scores"].tobytes()
    assert found["counters"].tolist() == scored([5, 9, 3, 8], 0)["counters"].tolist()
    assert items(state, 8, 3) == []


def test_what_is_older_than_t1_or_yet_to_come_is_not_used(store: Store) -> None:
    state = feed(store, hours=2)
    note(state, 7, 1, [3], [])
    note(state, 7, 2, [4], [])
    assert items(state, 7, 3) == [4, 3]
    assert items(state, 7, 3.5) == [4]
    assert items(state, 7, 1.5) == [3]
    assert items(state, 7, 0.5) == []
    assert items(feed(store, hours=0), 7, 2.01) == []
    assert items(feed(store, hours=8766), 7, 8766) == [4, 3]


def test_another_generation_is_not_used_and_ends_when_written_over(store: Store) -> None:
    one, other = feed(store, "one"), feed(store, "other")
    note(one, 7, 1, [3], [])
    assert items(other, 7, 1) == []
    note(other, 7, 2, [5], [])
    assert items(other, 7, 2) == [5]
    assert items(one, 7, 2) == []


def test_a_user_has_so_many_items_and_nobody_has_any(store: Store) -> None:
    state = feed(store, items=3)
    note(state, 7, 1, [1, 2], [])
    note(state, 7, 2, [3, 4], [])
    assert items(state, 7, 2) == [3, 4, 1]
    note(state, 7, 3, list(range(10, 100_010)), [])
    assert items(state, 7, 3) == [10, 11, 12]
    note(state, 0, 1, [1, 2], [])
    assert items(state, 0, 1) == []


def test_a_user_of_a_hundred_thousand_items(store: Store) -> None:
    state = feed(store, items=100_000)
    note(state, 7, 1, list(range(150_000)), [5])
    assert items(state, 7, 2) == list(range(100_000))


def test_users_of_a_batch_are_apart_even_where_one_comes_twice(store: Store) -> None:
    state = feed(store)
    batch = Requests(
        np.arange(3), np.array([4, 5, 4]), np.array([HOUR, HOUR, 2 * HOUR])
    )  # fmt: skip
    rows = np.concatenate([scored([1, 2], 1), scored([3], 2)])
    state.note(batch, np.array([2, 0, 1]), rows, np.full((3, 1), -1))
    found = state.entries(batch)
    assert found.lengths.tolist() == [2, 0, 3]
    assert found.rows["item"].tolist() == [1, 2, 3, 1, 2]


def test_users_who_do_not_come_again_are_forgotten() -> None:
    store = MemoryStore()
    state = feed(store, hours=2)
    for user in range(1, 101):
        note(state, user, 1, [3], [])
    note(state, 200, 2.5, [3], [])
    assert len(store) == 101
    note(state, 1, 3.5, [3], [])
    assert len(store) == 2


def test_an_lmdb_forgets_them_too(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path, TASKS, waiting=8)) as store:
        state = feed(store, hours=2)
        for user in range(1, 17):
            note(state, user, 1, [3], [])
        for user in range(100, 116):
            note(state, user, 4, [3], [])
        assert all(store.get(user) is None for user in range(1, 9))
        assert all(store.get(user) is not None for user in range(100, 116))


def test_an_lmdb_keeps_what_was_written_for_who_comes_after(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path, TASKS, waiting=2)) as store:
        state = feed(store)
        note(state, 3, 1, [1], [])
        note(state, 4, 1, [2], [])
        note(state, 5, 1, [3], [])
    with closing(LmdbStore(tmp_path, TASKS)) as again:
        assert [items(feed(again), user, 2) for user in (3, 4, 5)] == [[1], [2], [3]]


def test_a_store_of_other_tasks_or_another_program_is_refused(tmp_path: Path) -> None:
    LmdbStore(tmp_path / "feed", TASKS).close()
    with pytest.raises(DataError, match=r"like, hide .*not those of like, share; give another"):
        LmdbStore(tmp_path / "feed", ("like", "share"))
    with pytest.raises(DataError, match=r"like, hide .* not those of like;"):
        LmdbStore(tmp_path / "feed", ("like",))
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt"):
        LmdbStore(tmp_path / "file", TASKS)


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path, TASKS)) as store:
        note(feed(store), 7, 1, [3], [])
    with closing(lmdb.open(str(tmp_path), max_dbs=2)) as environment:
        users = environment.open_db(b"feed_users")
        with environment.begin(write=True, db=users) as transaction:
            key, content = next(iter(transaction.cursor()))
            transaction.put(key, content[:-1] + b"?")
    damaged = pytest.raises(DataError, match=r"user 7 is not what was written.*fills again")
    with closing(LmdbStore(tmp_path, TASKS)) as store, damaged:
        items(feed(store), 7, 1)
    (tmp_path / DATA_FILE).write_bytes(b"")
    with pytest.raises(DataError, match=r"is empty.*fills again by itself"):
        LmdbStore(tmp_path, TASKS)


_VISITS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(0, 20),
        st.lists(st.integers(0, 12), max_size=6, unique=True),
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(_VISITS, st.integers(1, 8), st.integers(0, 10))
def test_both_stores_keep_what_a_plain_list_keeps(
    tmp_path_factory: pytest.TempPathFactory,
    visits: list[tuple[int, int, list[int]]],
    most: int,
    hours: int,
) -> None:
    path = tmp_path_factory.mktemp("feed")
    expected: dict[int, list[tuple[int, int]]] = {}
    with closing(LmdbStore(path, TASKS, waiting=2)) as kept:
        states = [feed(one, items=most, hours=hours) for one in (MemoryStore(), kept)]
        for user, hour, fresh in sorted(visits, key=lambda visit: visit[1]):
            for state in states:
                note(state, user, hour, fresh, [])
            former = [
                (item, when)
                for item, when in expected.get(user, [])
                if item not in fresh and hour - when <= hours
            ]
            expected[user] = ([(item, hour) for item in fresh] + former)[:most]
            for state in states:
                found = state.entries(asked(user, hour)).rows
                pairs = zip(found["item"].tolist(), (found["moment"] // HOUR).tolist(), strict=True)
                assert list(pairs) == expected[user]

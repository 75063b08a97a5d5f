"""FeedState in a real Redis: shared at once, forgotten by itself, and gone for a while."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis

from recsys.core.errors import ArtifactError
from recsys.serving.funnel.cache import redis_store
from recsys.serving.funnel.cache.redis_store import RedisStore
from recsys.serving.funnel.cache.stores import Record, row_type
from tests.embeddings.stores import redis_server

TASKS = ("like", "hide")


def record(*items: int, newest: int = 5) -> Record:
    rows = np.zeros(len(items), row_type(2))
    rows["item"] = items
    return Record(7, newest, rows)


def test_what_one_puts_another_gets_and_others_have_other_users(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        one, two = RedisStore(url, "a", TASKS, 60), RedisStore(url, "a", TASKS, 60)
        one.put(3, record(1, 2, newest=2**40))
        found = two.get(3)
        assert found is not None and (found.generation, found.newest) == (7, 2**40)
        assert found.rows["item"].tolist() == [1, 2]
        assert two.get(4) is None
        for other in (RedisStore(url, "b", TASKS, 60), RedisStore(url, "a", TASKS[:1], 60)):
            assert other.get(3) is None
        [key] = redis.Redis.from_url(url).keys()
        assert 50_000 < redis.Redis.from_url(url).pttl(key) <= 60_000
        redis.Redis.from_url(url).append(key, b"?")  # what is not what was written is nothing
        assert one.get(3) is None


def test_a_user_is_forgotten_by_redis_itself(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, closing(RedisStore(url, "a", TASKS, 0.05)) as store:
        store.put(3, record(1))
        deadline = time.monotonic() + 30
        while store.get(3) is not None:
            assert time.monotonic() < deadline
        assert redis.Redis.from_url(url).dbsize() == 0


def test_one_that_is_gone_is_asked_once_in_a_while_and_used_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as url:
        store = RedisStore(f"{url}?socket_timeout=20", "a", TASKS, 60)
        store.put(3, record(1))
    with pytest.raises(ArtifactError, match="No Redis server answers"):
        store.get(3)
    with redis_server(tmp_path, port=urlsplit(url).port):
        with pytest.raises(ArtifactError, match="No Redis server answers"):
            store.put(3, record(2))  # it is not asked yet
        monkeypatch.setattr(redis_store, "_PAUSE", 0.0)
        deadline = time.monotonic() + 30
        while True:
            try:
                assert store.get(3) is None  # it has forgotten
                break
            except ArtifactError:
                assert time.monotonic() < deadline
        store.put(3, record(2))
        assert store.get(3) is not None

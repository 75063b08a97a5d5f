"""A Redis that goes away during a publication and comes back, or holds what is damaged."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import redis

from recsys.core.errors import ArtifactError
from recsys.embeddings.point_in_time import look_at
from recsys.embeddings.stores import open_store
from recsys.embeddings.stores.base import encode_user
from tests.embeddings.stores import free_port, redis_server

USERS = list(range(600))  # more than one call's
KEPT = ("--appendonly", "yes", "--appendfsync", "always")


def rows(value: int) -> np.ndarray:
    return np.full((len(USERS), 2, 3), value, np.int64)


def published(location: str, value: int) -> None:
    with open_store(location) as store:
        store.begin(0, {})
        store.put_many(USERS, rows(value))
        store.commit()
        store.prune()


def test_it_goes_away_while_it_is_published_to_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as readers:
        with ExitStack() as writers:
            with redis_server(tmp_path, *KEPT, port=port) as location:
                published(location, 1)
                reader = readers.enter_context(open_store(location, readonly=True))
                store = writers.enter_context(open_store(location))
                store.begin(0, {})
                store.put_many(USERS[:300], rows(2)[:300])
            for act in (
                lambda: store.put_many(USERS[300:], rows(2)[300:]),
                store.commit,
                lambda: reader.get_many(USERS),
            ):
                with pytest.raises(ArtifactError, match=f"No Redis server answers at .*:{port}"):
                    act()
        with redis_server(tmp_path, *KEPT, port=port):
            # readers that were there before see all of the old publication
            assert {int(one.rows[0, 0]) for one in reader.get_many(USERS) if one} == {1}
            published(location, 3)
            found = reader.get_many(USERS)
            assert {int(one.rows[0, 0]) for one in found if one} == {3} and None not in found


def test_one_that_has_forgotten_everything_holds_no_publication(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port=port) as location:
        published(location, 1)
    with redis_server(tmp_path, port=port):
        with open_store(location, readonly=True) as reader:
            assert reader.current() is None and reader.get(USERS[0]) is None
        with pytest.raises(ArtifactError, match="holds no publication yet; run recsys publish"):
            look_at(location)


def test_a_damaged_record_is_a_sentence_and_others_are_read(tmp_path: Path) -> None:
    with redis_server(tmp_path) as location:
        published(location, 1)
        client = redis.Redis.from_url(location)
        key = b"recsys:record:" + encode_user(7)
        (version,) = client.hkeys(key)
        record = bytearray(client.hget(key, version))
        record[-1] ^= 1
        client.hset(key, version, bytes(record))
        with open_store(location, readonly=True) as reader:
            for act in (lambda: reader.get(7), lambda: reader.get_many(USERS), reader.check):
                with pytest.raises(ArtifactError, match=r"is damaged .* publish again"):
                    act()
            assert reader.get(8) is not None
        published(location, 2)
        with open_store(location, readonly=True) as reader:
            assert reader.check() == len(USERS)

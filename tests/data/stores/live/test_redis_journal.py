"""Live events in a real Redis: shared by all that open it, killed, back again, or emptied."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from recsys.core.errors import ConfigError, DataError
from recsys.data.stores.live import LiveDataset, LiveEvents
from recsys.data.stores.live.journal import AwayError
from recsys.data.stores.live.rows import LATER
from tests.data.stores.live.small import make, reported
from tests.data.stores.live.test_announced import NOW, item, items_dataset
from tests.data.stores.live.test_live_events import (
    EVERY_ACTION,
    EXPLICIT,
    appending,
    event,
    items_of,
    quarters_of,
)
from tests.embeddings.stores import redis_server

KEPT = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def dataset(tmp_path: Path):
    return make(tmp_path / "data", [*EVERY_ACTION, event(2, 5, 3)])


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as address:
        yield address


def kill(url: str) -> None:
    """The server is gone, as if its machine was."""
    os.kill(redis.Redis(port=urlsplit(url).port).info("server")["process_id"], signal.SIGKILL)


def test_what_one_has_appended_all_have(dataset, url: str) -> None:
    first, second = (LiveDataset.open(dataset.path, url) for _ in range(2))
    assert first.live.append(reported([event(3, 4, 1), event(3, 5, 2)])).taken == 2
    assert items_of(second, 3) == [4, 5]
    again = second.live.append(reported([event(3, 4, 1), event(4, 6, 3)]))
    assert again.taken == 1 and again.set_aside == {"event: duplicated row": 1}
    assert items_of(first, 4) == [6]
    assert second.live.delete_users([3]) == 2
    assert items_of(first, 3) == [] and items_of(first, 4) == [6]
    later = LiveEvents.open(url, dataset)
    assert later.num_events(EXPLICIT) == 1 and later.append(reported([event(3, 4, 1)])).taken == 1
    assert items_of(first, 3) == [4]
    with pytest.raises(DataError, match="cannot be handed to another process"):
        pickle.dumps(first)
    for one in (first.live, second.live, later):
        one.close()


def test_another_data_set_has_events_of_its_own(dataset, url: str, tmp_path: Path) -> None:
    other = make(tmp_path / "other", [*EVERY_ACTION, event(2, 6, 3)], "another")
    live, apart = (LiveEvents.open(url, one) for one in (dataset, other))
    live.append(reported([event(3, 4, 1)]))
    assert (live.num_events(EXPLICIT), apart.num_events(EXPLICIT)) == (1, 0)
    keys = redis.Redis.from_url(url).keys("live:*:state")
    assert len(keys) == 2
    live.close()
    apart.close()


def test_writers_that_are_killed_lose_nothing(dataset, url: str) -> None:
    reader = LiveEvents.open(url, dataset)
    first, second = (appending(dataset, url, number) for number in (1, 10_000))
    for process in (first, second):
        for _ in range(3):
            process.stdout.readline()
    said = {}
    for process, begin in ((first, 1), (second, 10_000)):
        process.kill()
        process.wait()
        lines = process.stdout.read().split()
        said[begin] = int(lines[-1]) - begin if lines else 9
        process.stdout.close()
    held = quarters_of(reader)
    for begin, count in said.items():
        of_one = [quarter for quarter in held if begin <= quarter < begin + 9_000]
        assert len(of_one) >= count and of_one == list(range(begin, begin + len(of_one)))
    assert reader.append(reported([event(3, 4, 5)])).taken == 1  # who was killed holds nobody up
    reader.close()


def test_a_redis_that_keeps_what_it_is_given_may_be_killed(dataset, tmp_path: Path) -> None:
    with redis_server(tmp_path, *KEPT) as url:
        live = LiveDataset.open(dataset.path, url)
        live.live.append(reported([event(3, 4, 1)]))
        kill(url)
        # what is known stays known, and nothing is acknowledged that is not written
        assert items_of(live, 3) == [4] and not live.live.is_behind
        with pytest.raises(AwayError, match="No Redis server answers"):
            live.live.append(reported([event(3, 5, 2)]))
        with pytest.raises(AwayError, match="No Redis server answers"):
            LiveEvents.open(url, dataset)
    with redis_server(tmp_path, *KEPT, port=urlsplit(url).port):
        assert live.live.append(reported([event(3, 5, 2)])).taken == 1
        other = LiveDataset.open(dataset.path, url)
        assert items_of(other, 3) == [4, 5]
        for one in (live.live, other.live):
            one.close()


def test_a_redis_that_has_lost_events_is_gone_on_with_by_those_who_begin(
    dataset, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as url:
        live = LiveDataset.open(dataset.path, url)
        live.live.append(reported([event(3, 4, 1)]))
        kill(url)
    with redis_server(tmp_path, port=urlsplit(url).port):
        for _ in range(2):  # also when another one has begun with nothing
            with pytest.raises(AwayError, match="has lost the events that it had"):
                live.live.append(reported([event(3, 5, 2)]))
            assert items_of(live, 3) == [4]
            begun = LiveDataset.open(dataset.path, url)
            assert items_of(begun, 3) == []
            begun.live.close()
        live.live.close()


def test_what_is_damaged_or_no_address_is_a_sentence(dataset, url: str) -> None:
    live = LiveEvents.open(url, dataset)
    live.append(reported([event(3, 4, 1)]))
    live.append(reported([event(3, 5, 2)]))
    live.close()
    server = redis.Redis.from_url(url)
    key = server.keys("live:*:events:0")[0]
    whole = server.zrange(key, 0, -1, withscores=True)
    server.zadd(key, {whole[0][0][:-1] + b"x": 1})
    server.zrem(key, whole[0][0])
    with pytest.raises(DataError, match=r"damaged.*batch 1 is not what was written"):
        LiveEvents.open(url, dataset)
    server.delete(key)
    with pytest.raises(DataError, match=r"damaged.*batch 2 is lost"):
        LiveEvents.open(url, dataset)
    with pytest.raises(ConfigError, match="is no address of Redis"):
        LiveEvents.open("redis://127.0.0.1:6379/0/x", dataset)


def test_announced_items_are_shared(tmp_path: Path, url: str) -> None:
    dataset = items_dataset(tmp_path)
    first, second = (LiveDataset.open(dataset.path, url) for _ in range(2))
    assert first.live.announced.announce(first, [item(900, price=5)], NOW)[0] == 1
    assert second.live.is_behind and second.live.announced.names([900]).tolist() == [LATER]
    assert second.live.announced.announce(second, [item(901)], NOW)[0] == 1
    assert first.live.announced.names([901]).tolist() == [LATER + 1]
    assert second.live.announced.withdraw(second, 900)
    size = dataset.manifest.vocabulary_sizes["item"]
    assert first.grown().live.withdrawn().tolist() == [size]
    assert first.grown().vocabulary("item").indices_of([900, 901]).tolist() == [size, size + 1]
    for one in (first.live, second.live):
        one.close()

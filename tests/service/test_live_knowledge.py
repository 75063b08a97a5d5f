"""What a service knows, against the log it was prepared of and what was appended since."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError
from recsys.data.stores.live.dataset import LiveDataset
from recsys.serving.funnel.live_knowledge import KnowledgeConfig, LiveKnowledge
from tests.service.small_service import events_of

HOUR = 3_600_000
ENGAGED = ("liked", "comment", "save", "reshare", "external_share", "follow", "profile_visit")


def one(number: int) -> np.ndarray:
    return np.array([number])


def opened(prepared: Path, **config: float) -> tuple[LiveDataset, LiveKnowledge, int]:
    """The data set, what is known of it, and the moment after its last event."""
    dataset = LiveDataset.open(prepared)
    known = LiveKnowledge(dataset, "region", KnowledgeConfig(**config))
    return dataset, known, dataset.manifest.counts["last_timestamp"] + 1


def popular(known: LiveKnowledge) -> np.ndarray:
    """[1 + G, V] popularity as of the newest event; 0 of what cannot be shown."""
    known.refresh()
    known.renew(known.newest + 1)
    known.ask(one(0), one(1), one(known.newest + 1))
    found = np.zeros((len(known.groups), len(known.born)))
    found[:, known.alive] = known.standing("tried", lambda alive, popularity: popularity)
    return found


def append(dataset: LiveDataset, moment: int, user: int, item: int, *actions: str) -> None:
    codes = [dataset.manifest.action_types.index(action) for action in actions]
    number = len(codes)
    reported = dataset.live.append(
        {
            "user": np.full(number, user),
            "item": np.full(number, item),
            "timestamp": np.full(number, moment),
            "action_type": np.array(codes),
        }
    )
    assert reported.taken == number


def test_what_is_popular_is_what_the_log_says(prepared: Path) -> None:
    dataset, known, now = opened(prepared, log_hours=24)
    log = events_of(prepared)
    item = dataset.vocabulary("item").indices(log["item_id"]).to_numpy()
    user = dataset.vocabulary("user").indices(log["user_id"]).to_numpy()
    moment = log["timestamp"].to_numpy()
    counts = log["action_type"].is_in(ENGAGED).to_numpy() & (moment >= now - 24 * HOUR)
    weight = 0.5 ** (((now - 1) // HOUR - moment // HOUR) / 6) * counts
    table = pl.read_parquet(prepared.parent / "log" / "users.parquet")
    region = dict(zip(table["user_id"], table["user_region"], strict=True))
    of_user = np.array([region[one] for one in log["user_id"]])
    found = popular(known)
    for group, name in enumerate(known.groups):
        some = weight if group == 0 else weight * (of_user == name)
        expected = np.bincount(item, some, len(known.born))
        assert found[group] == pytest.approx(expected)
    assert found[0].sum() > 0 and (user > 0).all()
    named = known.group(np.arange(1, user.max() + 1))
    raw = dataset.vocabulary("user").table.sort("index")["raw"]
    assert [known.groups[one] for one in named] == [region[one] for one in raw]


def test_an_event_counts_with_the_next_request(prepared: Path) -> None:
    dataset, known, now = opened(prepared)
    known.ask(one(0), one(1), one(now + HOUR))
    unseen = known.alive[
        ~known.seen(
            np.ones(len(known.alive), np.int64), np.full(len(known.alive), now + HOUR), known.alive
        )
    ]
    item = int(unseen[-1])
    before = popular(known)[0, item], known.affinity(one(1), one(item))[0]
    expected = known.expected(one(1), one(item))[0]
    append(dataset, now, 1, item, "impression", "liked", "save", "follow")
    known.ask(one(1), one(1), one(now + HOUR))
    assert known.seen(one(1), one(now + HOUR), one(item))[0]
    assert not known.seen(one(1), one(now), one(item))[0]  # strictly before the moment
    assert not known.seen(one(2), one(now + HOUR), one(item))[0]
    assert popular(known)[0, item] == pytest.approx(before[0] + 3)
    assert known.affinity(one(1), one(item))[0] > before[1]
    names = [task.name for task in known.tasks]
    rises = known.expected(one(1), one(item))[0] > expected
    assert rises[[names.index(name) for name in ("liked", "save", "follow")]].all()
    for _ in range(9):
        append(dataset, now + 1, 1, item, "liked")
        now += 1
    known.ask(one(2), one(1), one(now + HOUR))
    for name in ("author", "topic"):
        assert known.favourites(name, one(1))[0, 0] == known.column(name)[item]


def test_how_events_are_reported_changes_nothing(prepared: Path) -> None:
    calls = [(HOUR * hour, 1 + hour % 3, 5 + hour, ("impression", "liked")) for hour in range(9)]
    found = []
    for together in (True, False):
        dataset, known, now = opened(prepared)
        for moment, user, item, actions in calls:
            append(dataset, now + moment, user, item, *actions)
            if not together:
                known.ask(one(0), one(1), one(now + moment))
        items, of_late = np.arange(1, len(known.born)), popular(known)
        known.ask(one(0), one(2), one(now + 20 * HOUR))
        user = np.full(len(items), 2)
        found.append((of_late, known.affinity(user, items), known.expected(user, items)))
    for one_way, other in zip(*found, strict=True):
        assert one_way == pytest.approx(other, rel=1e-12)


def test_a_request_far_ahead_takes_nothing_from_later_ones(prepared: Path) -> None:
    _, known, now = opened(prepared)
    items = np.arange(1, len(known.born))
    user = np.ones(len(items), np.int64)
    known.ask(one(0), one(1), one(now))
    before = known.affinity(user, items)
    known.ask(one(1), one(1), one(now + 10_000 * HOUR))
    assert known.affinity(user, items).max() < before.max()
    known.ask(one(2), one(1), one(now))
    assert (known.affinity(user, items) == before).all()


def test_what_is_popular_stands_for_some_seconds_and_is_made_once(prepared: Path) -> None:
    dataset, known, now = opened(prepared)
    made = []

    def make(alive: np.ndarray, popularity: np.ndarray) -> np.ndarray:
        made.append(len(alive))
        return popularity.sum(axis=1)

    known.ask(one(0), one(1), one(now))
    before = known.standing("tried", make)
    append(dataset, now, 1, 7, "liked")
    known.ask(one(1), one(1), one(now + 14_000))
    assert (known.standing("tried", make) == before).all() and len(made) == 1
    known.renew(now + 14_000)  # which other threads may do, for the requests after the next one
    assert len(made) == 2 and (known.standing("tried", make) == before).all()
    known.ask(one(2), one(1), one(now + 14_001))
    assert (known.standing("tried", make) != before).any() and len(made) == 2
    for moment in (now + 14_000 + 15_000, now - 1):  # too late, and too early
        known.ask(one(3), one(1), one(moment))
        known.standing("tried", make)
    assert len(made) == 4


def test_deleted_users_are_counted_no_longer(prepared: Path) -> None:
    dataset, known, now = opened(prepared)
    before = popular(known)
    append(dataset, now, 3, 7, "liked")
    assert popular(known)[0, 7] == before[0, 7] + 1
    dataset.live.delete_users([3])
    assert (popular(known) == before).all()


def test_items_are_alive_from_when_they_were_seen_and_for_so_long(prepared: Path) -> None:
    dataset, known, now = opened(prepared, alive_hours=12)
    first = events_of(prepared).group_by("item_id").agg(pl.col("timestamp").min())
    recent = first.filter(pl.col("timestamp") >= now - 12 * HOUR)["item_id"]
    known.ask(one(0), one(1), one(now))
    assert set(known.alive) == set(dataset.vocabulary("item").indices(recent))
    assert (np.diff(known.born[known.alive]) >= 0).all()
    known.ask(one(0), one(1), one(now - 60 * HOUR))
    assert (known.born[known.alive] < now - 60 * HOUR).all()


def test_what_is_stated_of_items_is_known_as_stated(prepared: Path) -> None:
    dataset, known, _ = opened(prepared)
    table = pl.read_parquet(prepared.parent / "log" / "items.parquet")
    index = dataset.vocabulary("item").indices(table["item_id"]).to_numpy()
    there = index > 0
    stated = table["integrity"].to_numpy()[there]
    assert known.number("integrity")[index[there]] == pytest.approx(stated)
    assert np.isnan(known.number("integrity")[0])
    regions = [known.groups[code] for code in known.column("region")[index[there]]]
    assert regions == table["item_region"].filter(there).to_list()


def test_what_a_data_set_does_not_have_is_one_sentence(prepared: Path) -> None:
    dataset, known, _ = opened(prepared)
    with pytest.raises(ConfigError, match="users of the data set have no column country"):
        LiveKnowledge(dataset, "country", KnowledgeConfig())
    with pytest.raises(ConfigError, match=r"no column colour; they have .*media_type"):
        known.column("colour")
    with pytest.raises(ConfigError, match=r"no number price; they have .*integrity"):
        known.number("price")
    nobody = LiveKnowledge(dataset, None, KnowledgeConfig())
    assert nobody.groups == ("all",) and not nobody.group(np.arange(5)).any()

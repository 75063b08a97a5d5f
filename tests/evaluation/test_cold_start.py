"""Stand-in histories by hand, in a model's batch, and without a look at the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.cold_start import (
    StandInConfig,
    StandInHistories,
    attribute_groups,
    popular_stand_ins,
)
from recsys.evaluation.queries import EvaluationQueries, EventsByTime
from recsys.evaluation.similar_users import similar_user_stand_ins
from tests.evaluation.engagements import DAY, HOUR, Event, random_events, store_of

#: Users 1 to 3 live in the north (group 1), 4 and 5 in the south (group 2).
GROUPS = np.array([0, 1, 1, 1, 2, 2])
SMALL = StandInConfig(most_events=1, fill_to=3, least_engagements=4, neighbour_events=2)


def items_of(stand_ins: StandInHistories, store: EngagementStore) -> list[list[int]]:
    """The items of each query's stand-in, oldest first."""
    parts = np.split(stand_ins.position, np.cumsum(stand_ins.lengths)[:-1])
    return [store.item[part].tolist() for part in parts]


def popular(
    store: EngagementStore,
    queries: EvaluationQueries,
    groups: np.ndarray,
    config: StandInConfig,
) -> StandInHistories:
    return popular_stand_ins(EventsByTime.of(store), store, queries, groups, config)


def test_popular_items_by_hand(tmp_path: Path) -> None:
    north = [(1, 1, HOUR), (2, 1, 2 * HOUR), (2, 2, 3 * HOUR), (1, 3, 5 * HOUR), (1, 4, 30 * HOUR)]
    south = [(4, 5, 4 * HOUR)]
    query = 10 * HOUR + 17
    late = [(2, 6, 10 * HOUR)]  # before the query, but not before its full hour
    asked = [(3, 9, query), (5, 9, query), (2, 9, query)]
    store = store_of(tmp_path, [*north, *south, *late, *asked])
    queries = EvaluationQueries.of_period(store, query, query + 1)
    assert queries.user.tolist() == [2, 3, 5]
    stand_ins = popular(store, queries, GROUPS, SMALL)
    # user 2 has three events: none. The north has 4 engagements: 1 twice, then 2 and 3.
    # The south has one, so everybody's count: 1 twice, then of 2, 3 and 5 the lower indices.
    # Oldest first: item 1 by its newest engagement, 2 h; 2 at 3 h; 3 at 5 h.
    assert stand_ins.lengths.tolist() == [0, 3, 3]
    assert items_of(stand_ins, store) == [[], [1, 2, 3], [1, 2, 3]]
    assert store.timestamp[stand_ins.position].tolist() == [2 * HOUR, 3 * HOUR, 5 * HOUR] * 2
    # with a smaller demand the south stands for itself
    easy = StandInConfig(most_events=1, fill_to=3, least_engagements=1)
    assert items_of(popular(store, queries, GROUPS, easy), store) == [[], [1, 2, 3], [5]]


def test_own_items_are_skipped_and_the_window_ends(tmp_path: Path) -> None:
    others = [(1, 1, HOUR), (1, 2, 2 * HOUR), (2, 3, 3 * HOUR), (2, 4, 4 * HOUR)]
    store = store_of(tmp_path, [*others, (3, 2, 5 * HOUR), (3, 5, 10 * HOUR)])
    queries = EvaluationQueries.of_period(store, 10 * HOUR, DAY)
    assert items_of(popular(store, queries, GROUPS, SMALL), store) == [[1, 3]]
    narrow = StandInConfig(most_events=1, fill_to=3, window_hours=7, least_engagements=9)
    assert items_of(popular(store, queries, GROUPS, narrow), store) == [[3, 4]]


def test_the_first_hours_of_a_log_have_no_popular_item(tmp_path: Path) -> None:
    store = store_of(tmp_path, [(1, 1, 0), (2, 2, HOUR - 1)])
    queries = EvaluationQueries.of_period(store, 0, HOUR)
    assert popular(store, queries, GROUPS, SMALL).lengths.tolist() == [0, 0]


ITEMS = torch.nn.functional.normalize(
    torch.tensor([[0.0, 0], [1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.8, 0.1], [0.2, 1]])
)


def test_similar_users_by_hand(tmp_path: Path) -> None:
    """User 1 likes the direction of items 1, 2 and 5, user 2 that of 3, 4 and 6."""
    first = [(1, 1, 0), (1, 2, HOUR), (1, 5, DAY + HOUR)]
    second = [(2, 3, 0), (2, 4, HOUR), (2, 6, DAY + HOUR)]
    query = DAY + 5 * HOUR
    asked = [(3, 1, DAY), (3, 6, query), (4, 4, DAY), (4, 5, query), (5, 6, query)]
    future = [(1, 6, query), (2, 5, query + 1)]
    store = store_of(tmp_path, [*first, *second, *asked, *future])
    queries = EvaluationQueries.of_period(store, query, query + 1)
    assert queries.user.tolist() == [1, 3, 4, 5]
    config = StandInConfig(most_events=1, fill_to=3, neighbours=1, neighbour_events=2)
    stand_ins = similar_user_stand_ins(store, queries, ITEMS, config)
    # user 1 has three events; 3 is like 1 and has seen 1; 4 is like 2 and has seen 4; 5 has none
    assert items_of(stand_ins, store) == [[], [2, 5], [3, 6], []]
    both = StandInConfig(most_events=1, fill_to=3, neighbours=5, neighbour_events=2)
    # of two neighbours each item has one engagement: the lowest indices that are not own
    stand_ins = similar_user_stand_ins(store, queries, ITEMS, both)
    assert items_of(stand_ins, store) == [[], [3, 2], [1, 2], []]


def test_no_neighbour(tmp_path: Path) -> None:
    store = store_of(tmp_path, [(1, 1, 0), (1, 2, HOUR)])
    queries = EvaluationQueries.of_period(store, HOUR, DAY)
    assert similar_user_stand_ins(store, queries, ITEMS, SMALL).lengths.tolist() == [0]


def test_or_else_and_rows() -> None:
    similar = StandInHistories(np.array([0, 2, 0]), np.array([10, 11]))
    fallback = StandInHistories(np.array([1, 1, 0]), np.array([20, 21]))
    both = similar.or_else(fallback)
    assert both.lengths.tolist() == [1, 2, 0] and both.position.tolist() == [20, 10, 11]
    chosen = both.rows(np.array([2, 1, 1, 0]))
    assert chosen.lengths.tolist() == [0, 2, 2, 1]
    assert chosen.position.tolist() == [10, 11, 10, 11, 20]


def batch_of(store: EngagementStore, queries: EvaluationQueries) -> SequenceBatch:
    _, position = queries.history(slice(0, len(queries)))
    columns = {
        name: torch.from_numpy(getattr(store, name)[position].astype(np.int64))
        for name in ("item", "action_type", "surface", "timestamp")
    }
    size = len(queries)
    return SequenceBatch(
        user=torch.from_numpy(queries.user),
        request_time=torch.from_numpy(queries.time),
        lengths=torch.from_numpy(queries.history_events),
        label_lengths=torch.ones(size, dtype=torch.int64),
        label_item=torch.from_numpy(queries.target),
        user_categorical=torch.zeros(size, 0, dtype=torch.int64),
        user_dense=torch.zeros(size, 0),
        query_id=torch.arange(size),
        **columns,
    )


def test_stand_ins_come_before_the_own_events(tmp_path: Path) -> None:
    others = [(1, 1, HOUR), (2, 1, 2 * HOUR), (2, 2, 6 * HOUR)]
    asked = [(3, 4, 5 * HOUR), (3, 9, 10 * HOUR), (5, 9, 10 * HOUR)]
    store = store_of(tmp_path, [*others, *asked])
    queries = EvaluationQueries.of_period(store, 10 * HOUR, DAY)
    stand_ins = popular(store, queries, GROUPS, SMALL)
    batch = batch_of(store, queries)
    filled = stand_ins.prepend_to(batch, store)
    assert filled.lengths.tolist() == [3, 3]
    # user 3: everybody's item 2, clicked after user 3's own event, is moved to that event's time
    assert filled.item.tolist() == [1, 2, 4, 1, 4, 2]
    assert filled.timestamp[:3].tolist() == [2 * HOUR, 5 * HOUR, 5 * HOUR]
    assert filled.timestamp[3:].tolist() == [2 * HOUR, 5 * HOUR, 6 * HOUR]
    assert filled.action_type.tolist() == [1, 2, 4, 1, 4, 2]
    assert filled.surface.tolist() == [2, 2, 0, 2, 0, 2]  # user mod 3
    assert filled.label_item is batch.label_item
    # a batch in another order, and one query only
    second = batch_of(store, queries.only(np.array([1])))
    second.query_id[:] = 1
    assert stand_ins.prepend_to(second, store).item.tolist() == filled.item[3:].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_nothing_at_or_after_the_query_is_seen(tmp_path: Path, seed: int) -> None:
    """Planting events from the query on changes no stand-in, and each is strictly before it."""
    generator = np.random.default_rng(seed)
    moment = 2 * DAY + 7
    asked: list[Event] = [(user, 6, moment) for user in range(12, 16)]
    events = [*random_events(generator, 90, 10, 7, 2 * DAY), *asked, (12, 1, DAY), (13, 2, HOUR)]
    planted = [(u, i, moment + t) for u, i, t in random_events(generator, 60, 12, 7, DAY)]
    config = StandInConfig(most_events=2, fill_to=5, least_engagements=5, neighbour_events=3)
    groups = generator.integers(0, 3, 16)
    seen = []
    for name, log in {"clean": events, "planted": [*events, *planted]}.items():
        store = store_of(tmp_path / name, log, num_users=16)
        queries = EvaluationQueries.of_period(store, moment, moment + 1)
        queries = queries.only(queries.user >= 12)
        by_items = popular(store, queries, groups, config)
        by_users = similar_user_stand_ins(store, queries, torch.eye(7), config)
        for stand_ins in (by_items, by_users):
            assert (store.timestamp[stand_ins.position] < moment).all()
            assert stand_ins.lengths.sum() > 0
        seen.append([items_of(by_items, store), items_of(by_users, store)])
    assert seen[0] == seen[1]


def test_attribute_groups() -> None:
    attributes = np.array([[0, 0], [1, 2], [1, 3], [1, 2]], dtype=np.int32)
    assert attribute_groups(attributes).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fill_to": 4}, "fill_to is 4"),
        ({"neighbour_events": 4}, "neighbour_events is 4"),
        ({"window_hours": 0}, "window_hours is 0"),
        ({"neighbours": 0}, "neighbours is 0"),
    ],
)
def test_settings_that_cannot_work(values: dict[str, int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        StandInConfig(**values)

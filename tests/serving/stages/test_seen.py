"""What users have seen, as slots of an index."""

from __future__ import annotations

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import IdMode, Vocabulary
from recsys.serving.stages.seen import SeenItems
from tests.index.conftest import ITEMS, START
from tests.serving.corpus import ids_at, index_of, step


def seen(dataset: PreparedDataset, ids: list[int], users: list[int], moment: int) -> list[set]:
    items = Vocabulary.load(dataset.path / "vocabulary" / "item.parquet")
    index = index_of(ids)
    restriction = SeenItems(dataset.timelines, items, index).restrict(step(users, START + moment))
    assert restriction.eligible is None
    return [set(ids_at(index, slots)) for slots in restriction.exclude]


def test_both_timelines_count_strictly_before_the_moment(dataset: PreparedDataset) -> None:
    everything = list(range(1001, 1001 + ITEMS))
    assert seen(dataset, everything, [1, 2, 3, 4], 91) == [
        {1001, 1002, 1003},  # 1003 was shown alone
        {1004, 1001},
        {1009},
        set(),
    ]
    assert seen(dataset, everything, [3, 1], 20) == [set(), {1001}]


def test_items_the_index_lacks_and_unknown_users_have_no_slots(dataset: PreparedDataset) -> None:
    assert seen(dataset, [1003, 5000], [0, 1, 2], 91) == [set(), {1003}, set()]
    assert seen(dataset, [1003], [], 91) == []


def test_of_items_that_share_an_index_a_user_may_have_seen_any(dataset: PreparedDataset) -> None:
    ids = list(range(1001, 1001 + 3 * ITEMS))
    raw = pl.DataFrame({"raw": ids, "first_seen": [0] * len(ids)})
    hashed = Vocabulary.build(raw, IdMode.HASHED, buckets=ITEMS + 1)
    index = index_of(ids)
    restriction = SeenItems(dataset.timelines, hashed, index).restrict(step([3], START + 91))
    sharing = hashed.table.filter(pl.col("index") == 9)["raw"].to_list()  # user 3 has seen item 9
    assert len(sharing) > 1 and ids_at(index, restriction.exclude[0]) == sharing


def test_an_index_of_another_log_is_refused(dataset: PreparedDataset) -> None:
    items = Vocabulary.load(dataset.path / "vocabulary" / "item.parquet")
    with pytest.raises(DataError, match="it is of another log"):
        SeenItems(dataset.timelines, items, index_of(["a"]))

"""What no model can learn from is refused, and what some can is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.loaders.nothing_to_learn import refuse_constant_labels, refuse_lone_sequences
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore
from tests.data.sequence_data import Event, MakeDataset

START, HOUR = 1_700_000_000_000, 3_600_000
TWO_USERS: list[Event] = [(1, 1, 10), (1, 2, 20), (2, 2, 10), (2, 3, 30)]


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([*TWO_USERS[:2], (2, 2, 10), (3, 1, 10)], "4 engagements with 2 items, and 1 users"),
        ([*TWO_USERS[:3], (2, 3, 150)], "3 engagements with 2 items, and 1 users"),
        ([(1, 1, 150), (2, 2, 150)], "0 engagements with 0 items, and 0 users"),
    ],
)
def test_too_few_sequences_are_refused(
    make_dataset: MakeDataset, events: list[Event], found: str
) -> None:
    dataset = make_dataset(events)
    store = EngagementStore.open(dataset, SequenceConfig())
    with pytest.raises(DataError, match=found):
        refuse_lone_sequences(store, dataset)


def test_two_users_with_two_items_are_enough(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(TWO_USERS)
    refuse_lone_sequences(EngagementStore.open(dataset, SequenceConfig()), dataset)


def prepared(folder: Path, actions: list[str]) -> PreparedDataset:
    rows = np.arange(100)
    pl.DataFrame(
        {
            "user_id": rows % 5,
            "item_id": rows % 5,
            "timestamp": START + rows * HOUR,
            "action_type": actions,
        }
    ).write_parquet(folder / "log.parquet")
    prepare(PrepareConfig(path=str(folder / "log.parquet"), out=str(folder / "out")))
    return PreparedDataset.open(folder / "out")


def test_labels_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, ["impression"] * 99 + ["hide"])
    with pytest.raises(DataError, match="hide is 0 in all 70 rows"):
        refuse_constant_labels(dataset)


def test_tasks_of_which_nothing_is_learned_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = ["impression"] * 99 + ["hide"]
    actions[40] = "liked"  # by the user who was shown the item five hours before
    dataset = prepared(tmp_path, actions)
    capsys.readouterr()
    refuse_constant_labels(dataset)
    said = " ".join(capsys.readouterr().err.split())
    assert said == "Of the fit period nothing is learned of some tasks: hide is 0 in all 69 rows."

"""Prepared data sets whose explicit events are given one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import ACTION_TYPES, Feature, FeatureKind, FeatureSide
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineWriter

NUM_USERS, NUM_ITEMS = 8, 12
#: (user, item, timestamp) or (user, item, timestamp, action type)
Event = tuple[int, int, int] | tuple[int, int, int, str]
MakeDataset = Callable[[Sequence[Event]], PreparedDataset]


def frame_of(events: Sequence[Event]) -> pl.DataFrame:
    """Events as a timeline writer takes them; surface, author, topic are the item mod 3, 4, 2."""
    rows = [(*event, "click") if len(event) == 3 else event for event in events]
    columns = {name: np.zeros(len(rows), np.int64) for name in EVENT_SCHEMA} | {
        "user": [row[0] for row in rows],
        "item": [row[1] for row in rows],
        "surface": [row[1] % 3 for row in rows],
        "author": [row[1] % 4 for row in rows],
        "topic": [row[1] % 2 for row in rows],
        "timestamp": [row[2] for row in rows],
        "action_type": [ACTION_TYPES.index(row[3]) for row in rows],
    }
    return pl.DataFrame(columns).cast(dict(EVENT_SCHEMA))


@pytest.fixture(scope="session")
def append() -> Callable[[PreparedDataset, Sequence[Event]], PreparedDataset]:
    """Adds events to a data set and opens it again."""

    def add(dataset: PreparedDataset, events: Sequence[Event]) -> PreparedDataset:
        with TimelineWriter(dataset.path / "timelines") as writer:
            writer.append([frame_of(events)])
        return PreparedDataset.open(dataset.path)

    return add


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> MakeDataset:
    """Data sets of 7 users and 11 items; fit ends at 100 ms, choose at 200, report at 300."""

    def make(events: Sequence[Event]) -> PreparedDataset:
        path: Path = tmp_path_factory.mktemp("sequences")
        with TimelineWriter(path / "timelines", 2) as writer:
            writer.append([frame_of(events)])
        (path / "features").mkdir()
        users = np.arange(NUM_USERS, dtype=np.int32)
        arrays = {
            "user_categorical": np.stack([users, users % 2], axis=1),
            "user_dense": (users / 10).astype(np.float32)[:, None],
        }
        for name, array in arrays.items():
            np.save(path / "features" / f"{name}.npy", array)
        DatasetManifest(
            name="tiny",
            source="test",
            tasks=(),
            features=(
                Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, NUM_USERS),
                Feature("parity", FeatureSide.USER, FeatureKind.CATEGORICAL, 2),
                Feature("tenth", FeatureSide.USER, FeatureKind.DENSE),
            ),
            vocabulary_sizes={"user": NUM_USERS, "item": NUM_ITEMS, "author": 4, "topic": 2},
            surfaces=("a", "b", "c"),
            media_types=("a",),
            split_bounds={"fit": (0, 100), "choose": (100, 200), "report": (200, 300)},
            counts={"fit_vocabulary_user": 6},
            rejected={},
            fingerprint="none",
        ).save(path)
        return PreparedDataset.open(path)

    return make

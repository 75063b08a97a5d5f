"""A small prepared data set, written by the stores themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide, Split, Task
from recsys.data.prepare.request_writer import write_requests
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineWriter

NUM_USERS, NUM_ITEMS, NUM_EVENTS, NUM_ROWS = 30, 60, 3_000, 300
FIT_ITEMS = 50


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> PreparedDataset:
    """Ten days of events of 29 users; items 50 to 59 are first seen after the fit period."""
    path: Path = tmp_path_factory.mktemp("prepared")
    generator = np.random.default_rng(5)
    # skewed, so that histories differ in length; user 29 has no event
    users = np.minimum(generator.geometric(0.15, NUM_EVENTS), NUM_USERS - 2)
    events = {name: generator.integers(0, 4, NUM_EVENTS) for name in EVENT_SCHEMA} | {
        "user": users,
        "item": generator.integers(1, NUM_ITEMS, NUM_EVENTS),
        "timestamp": generator.integers(0, 10 * DAY, NUM_EVENTS),
    }
    with TimelineWriter(path / "timelines", 4) as writer:
        frame = pl.DataFrame(events).cast(dict(EVENT_SCHEMA))
        writer.append([frame[:2_500]])
        writer.append([frame[2_500:]])
    bounds = {
        Split.FIT: (3 * DAY, 8 * DAY),
        Split.CHOOSE: (8 * DAY, 9 * DAY),
        Split.REPORT: (9 * DAY, 10 * DAY),
    }
    rows = [
        pl.DataFrame(
            {
                "user": generator.integers(1, NUM_USERS, NUM_ROWS),
                # few moments, so that requests have several rows
                "request_time": first + generator.integers(0, 5, NUM_ROWS) * (last - first) // 5,
                "item": generator.integers(1, NUM_ITEMS, NUM_ROWS),
                "label_liked": generator.integers(0, 2, NUM_ROWS),
                "hour": generator.integers(0, 24, NUM_ROWS),
                "battery": generator.random(NUM_ROWS),
            }
        )
        for first, last in bounds.values()
    ]
    write_requests(path / "requests", rows, [Task("liked")], ["hour"], ["battery"])
    (path / "features").mkdir()
    indices = np.arange(NUM_ITEMS, dtype=np.int32)
    arrays = {
        "user_categorical": np.arange(NUM_USERS, dtype=np.int32)[:, None],
        "user_dense": np.zeros((NUM_USERS, 0), np.float32),
        "item_categorical": np.stack([indices, indices % 7, indices % 3], axis=1),
        "item_dense": indices[:, None].astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(path / "features" / f"{name}.npy", array)
    categorical, dense = FeatureKind.CATEGORICAL, FeatureKind.DENSE
    DatasetManifest(
        name="tiny",
        source="test",
        tasks=(Task("liked"),),
        features=(
            Feature("user_id", FeatureSide.USER, categorical, NUM_USERS),
            Feature("item_id", FeatureSide.ITEM, categorical, NUM_ITEMS),
            Feature("author_id", FeatureSide.ITEM, categorical, 7),
            Feature("category", FeatureSide.ITEM, categorical, 3),
            Feature("length", FeatureSide.ITEM, dense),
            Feature("hour", FeatureSide.CONTEXT, categorical, 24),
            Feature("battery", FeatureSide.CONTEXT, dense),
        ),
        vocabulary_sizes={"user": NUM_USERS, "item": NUM_ITEMS, "author": 7, "topic": 4},
        surfaces=("a", "b", "c", "d"),
        media_types=("a", "b", "c", "d"),
        split_bounds={str(split): bound for split, bound in bounds.items()},
        counts={"fit_vocabulary_item": FIT_ITEMS},
        rejected={},
        fingerprint="none",
    ).save(path)
    return PreparedDataset.open(path)

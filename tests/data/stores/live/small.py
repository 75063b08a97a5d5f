"""A small data set that ends at a moment, and what comes after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import strategies as st

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import ACTION_TYPES, Feature, FeatureKind, FeatureSide
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.stores.counters.store import CounterStore
from recsys.data.stores.dataset import Counters, PreparedDataset
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineWriter

USERS, ITEMS, AUTHORS, TOPICS = 8, 12, 4, 3
#: When the data set ends; few quarters of an hour before and after, so that moments meet.
END = 1_700_006_400_000
LATEST = 12
ACTIONS = ("impression", "liked", "hide")

#: User, item, quarters of an hour, action, what is known of the dwell time, a given author.
_EVENT = st.tuples(
    st.integers(1, 4),
    st.integers(0, ITEMS - 1),
    st.integers(1, LATEST),
    st.sampled_from(ACTIONS),
    st.sampled_from([None, 0.0, 2.5]),
    st.sampled_from([0, 0, 3]),
)
EVENTS = st.lists(_EVENT, max_size=30)
#: Calls of ``append``, one after another.
CALLS = st.lists(st.lists(_EVENT, max_size=12), max_size=6)
QUARTERS = st.integers(-LATEST - 1, LATEST + 4)


def frame_of(events: Sequence[tuple], stored: bool = False) -> pl.DataFrame:
    """Events as a timeline writer takes them; those of the data set lie before its end."""
    rows = list(events)
    items = np.array([row[1] for row in rows], np.int64)
    given = np.array([row[5] for row in rows], np.int64)
    columns = {name: np.zeros(len(rows), np.int64) for name in EVENT_SCHEMA} | {
        "user": [row[0] for row in rows],
        "item": items,
        "author": np.where(given == 0, items % AUTHORS, given),
        "topic": items % TOPICS,
        "timestamp": [END + (row[2] - (LATEST + 1) * stored) * HOUR // 4 for row in rows],
        "surface": items % 3,
        "action_type": [ACTION_TYPES.index(row[3]) for row in rows],
        "dwell_time": pl.Series([row[4] for row in rows], dtype=pl.Float32),
        "video_duration": pl.Series([None] * len(rows), dtype=pl.Float32),
    }
    return pl.DataFrame(columns).cast(dict(EVENT_SCHEMA))


def reported(events: Sequence[tuple]) -> dict[str, np.ndarray]:
    """The same events as a service reports them, with no more than it knows."""
    frame = frame_of(events)
    known = ("user", "item", "timestamp", "surface", "action_type")
    columns = {name: np.array(frame[name]) for name in known}
    columns["dwell_time"] = np.array(frame["dwell_time"].fill_null(float("nan")))
    return columns | {"author": np.array([row[5] for row in events], np.int64)}


def make(path: Path, events: Sequence[tuple], fingerprint: str = "first") -> PreparedDataset:
    """The data set of some events."""
    with TimelineWriter(path / "timelines", 2) as writer:
        writer.append([frame_of(events, stored=True)])
    (path / "features").mkdir()
    users, items = np.arange(USERS, dtype=np.int32), np.arange(ITEMS, dtype=np.int32)
    arrays = {
        "user_categorical": users[:, None],
        "user_dense": np.zeros((USERS, 0), np.float32),
        "item_categorical": np.stack([items, items % AUTHORS, items % TOPICS], axis=1),
        "item_dense": np.zeros((ITEMS, 0), np.float32),
    }
    for name, array in arrays.items():
        np.save(path / "features" / f"{name}.npy", array)
    categorical = FeatureKind.CATEGORICAL
    DatasetManifest(
        name="tiny",
        source="test",
        tasks=(),
        features=(
            Feature("user_id", FeatureSide.USER, categorical, USERS),
            Feature("item_id", FeatureSide.ITEM, categorical, ITEMS),
            Feature("author_id", FeatureSide.ITEM, categorical, AUTHORS),
            Feature("topic_id", FeatureSide.ITEM, categorical, TOPICS),
        ),
        vocabulary_sizes={"user": USERS, "item": ITEMS, "author": AUTHORS, "topic": TOPICS},
        surfaces=("unknown", "feed", "search"),
        media_types=("unknown",),
        split_bounds={},
        counts={"last_timestamp": END},
        rejected={},
        fingerprint=fingerprint,
    ).save(path)
    return PreparedDataset.open(path)


def grown(dataset: PreparedDataset, events: Sequence[tuple], new_items: int = 0) -> PreparedDataset:
    """The data set after events and items were appended to it, as a new generation."""
    with TimelineWriter(dataset.path / "timelines") as writer:
        writer.append([frame_of(events)])
    manifest = dataset.manifest
    for kind in ("categorical", "dense"):
        file = dataset.path / "features" / f"item_{kind}.npy"
        rows = np.load(file)
        np.save(file, np.concatenate([rows, rows[1 : 1 + new_items]]))
    last = max([manifest.counts["last_timestamp"], *frame_of(events)["timestamp"]])
    replace(
        manifest,
        counts={**manifest.counts, "last_timestamp": int(last)},
        fingerprint=f"{manifest.fingerprint} grown",
        vocabulary_sizes={**manifest.vocabulary_sizes, "item": ITEMS + new_items},
        preparation={"grown_from": list(manifest.lineage)},
    ).save(dataset.path)
    return PreparedDataset.open(dataset.path)


def counters_of(dataset: PreparedDataset) -> Counters:
    """The counters of a data set, with its live events where it has such."""
    return dataset.with_live(CounterStore.open(dataset))

"""A prepared data set of four users and ten items, its item embeddings, and an exported tower."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.artifacts.sequence_export import SequenceExport, export_sequence_tower
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.content.item_embeddings import ItemEmbeddings, write_item_embeddings
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import ACTION_TYPES, Feature, FeatureKind, FeatureSide
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.item_text import ITEM_TEXT_FILE, write_item_text
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineWriter
from recsys.data.stores.vocabulary import Vocabulary, vocabulary_path
from recsys.systems.nxtpost.net import SequenceTower, SequenceTowerConfig

#: Raw id of user index i is 100 + i, of item index i 1000 + i.
USERS, ITEMS, WIDTH = 4, 10, 6
#: A moment in milliseconds that a command line may be given.
START = 1_600_000_000_000
#: user, item, time after START, action type
EVENTS = [
    (1, 1, 10, "click"),
    (1, 2, 20, "liked"),
    (1, 3, 30, "impression"),
    (2, 4, 15, "click"),
    (2, 1, 25, "hide"),
    (3, 9, 90, "click"),
]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    path: Path = tmp_path_factory.mktemp("retrieval") / "prepared"
    (path / "features").mkdir(parents=True)
    columns = {name: np.zeros(len(EVENTS), np.int64) for name in EVENT_SCHEMA} | {
        "user": [event[0] for event in EVENTS],
        "item": [event[1] for event in EVENTS],
        "timestamp": [START + event[2] for event in EVENTS],
        "action_type": [ACTION_TYPES.index(event[3]) for event in EVENTS],
    }
    with TimelineWriter(path / "timelines", 2) as writer:
        writer.append([pl.DataFrame(columns).cast(dict(EVENT_SCHEMA))])
    first_seen = {item: START + time for _, item, time, _ in reversed(EVENTS)}
    items = pl.DataFrame(
        {
            "raw": range(1001, 1001 + ITEMS),
            "first_seen": [first_seen.get(item, START + 50) for item in range(1, ITEMS + 1)],
        }
    )
    Vocabulary.build(items).save(vocabulary_path(path, "item"))
    users = pl.DataFrame({"raw": range(101, 101 + USERS), "first_seen": [START] * USERS})
    Vocabulary.build(users).save(vocabulary_path(path, "user"))
    titles = pl.DataFrame({"index": [1, 2], "title": ["first", "second"]})
    write_item_text(path / "features", titles.cast({"index": pl.Int32}))
    assert (path / "features" / ITEM_TEXT_FILE).is_file()
    np.save(path / "features" / "user_categorical.npy", np.arange(5, dtype=np.int32)[:, None] % 3)
    np.save(path / "features" / "user_dense.npy", np.empty((5, 0), np.float32))
    DatasetManifest(
        name="tiny",
        source="test",
        tasks=(),
        features=(Feature("country", FeatureSide.USER, FeatureKind.CATEGORICAL, 3),),
        vocabulary_sizes={"user": USERS + 1, "item": ITEMS + 1, "author": 1, "topic": 1},
        surfaces=("unknown",),
        media_types=("unknown",),
        split_bounds={"fit": (START, START + 100)},
        counts={"last_timestamp": START + 90},
        rejected={},
        fingerprint="none",
    ).save(path)
    return PreparedDataset.open(path)


@pytest.fixture(scope="session")
def embeddings(dataset: PreparedDataset) -> Path:
    """Parquet of all ten items and two that the log does not have."""
    rows = np.random.default_rng(0).standard_normal((ITEMS + 2, WIDTH))
    path = dataset.path.parent / "posts.parquet"
    write_item_embeddings(path, np.arange(1001, 1001 + ITEMS + 2), rows)
    return path


@pytest.fixture(scope="session")
def artifact(dataset: PreparedDataset, embeddings: Path) -> Path:
    torch.manual_seed(0)
    config = SequenceTowerConfig(width=16, max_length=5)
    tower = SequenceTower(config, WIDTH, dataset.manifest)
    items = ItemEmbeddings.load(embeddings, dataset.vocabulary("item"))
    sequences = SequenceConfig()
    store = EngagementStore.open(dataset, sequences, items.known)
    batch = SequenceReader(dataset, store, 5).before(np.arange(5), START + 100)
    config_file = dataset.path.parent / "config.yaml"
    config_file.write_text("system: nxtpost\n")
    export = SequenceExport(
        post_embeddings=str(embeddings),
        training={},
        dataset_path=dataset.path,
        sequences=asdict(sequences),
        max_length=5,
        gap_hours=0.0,
        config_file=config_file,
        examples=(batch, torch.from_numpy(items.matrix)[batch.item]),
    )
    folder = dataset.path.parent / "artifact"
    export_sequence_tower(tower, dataset.manifest, folder, export)
    return folder

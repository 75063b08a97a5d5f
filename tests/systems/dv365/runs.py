"""A small prepared data set and an untrained run on it, for exporting and publishing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from recsys.core.composition import save
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import (
    ACTION_TYPES,
    MILLISECONDS_PER_DAY,
    Feature,
    FeatureKind,
    FeatureSide,
    Task,
    TaskKind,
)
from recsys.data.prepare.request_writer import write_requests
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.timelines import TimelineWriter
from recsys.data.stores.vocabulary import Vocabulary, vocabulary_path
from recsys.evaluation.identity import CheckpointUsed
from recsys.nn.encoders import EncoderConfig
from recsys.nn.interaction.backbone import BackboneConfig
from recsys.nn.sequence.recent_events import RecentEventsConfig
from recsys.runs.files import CONFIG_FILE
from recsys.runs.load import LoadedRun
from recsys.systems.dv365.module import DV365, DV365Config
from recsys.systems.dv365.system import DV365RunConfig
from tests.systems.dv365.towers import ENCODER, NOW, ROWS, SLICE_CONFIG

USERS = 60
#: Raw id of user index i is RAW_SHIFT + i.
RAW_SHIFT = 1_000
TASKS = (Task("liked"), Task("watch_time", TaskKind.REGRESSION))
#: Items from this index on first appear after the fit period.
FIT_ITEMS = 280


def events(count: int, first: int, last: int, seed: int, users: int = USERS) -> pl.DataFrame:
    """Random events in ``[first, last)`` ms."""
    generator = np.random.default_rng(seed)
    seen = generator.random(count) < 0.6
    actions = np.where(seen, 0, generator.integers(1, len(ACTION_TYPES), count))
    return pl.DataFrame(
        {
            "user": generator.integers(1, users, count).astype(np.int32),
            "item": generator.integers(0, ROWS["item"], count).astype(np.int32),
            "author": generator.integers(0, ROWS["author"], count).astype(np.int32),
            "topic": generator.integers(0, ROWS["topic"], count).astype(np.int32),
            "timestamp": generator.integers(first, last, count),
            "media_type": np.zeros(count, np.int8),
            "surface": np.zeros(count, np.int8),
            "action_type": actions.astype(np.int8),
            "dwell_time": (generator.random(count) * 120).astype(np.float32),
            "video_duration": (generator.random(count) * 60 + 1).astype(np.float32),
        }
    )


def prepared_dataset(folder: Path, log: pl.DataFrame, string_ids: bool = False) -> PreparedDataset:
    """A data set of ``log`` with 40 requests to choose by."""
    folder.mkdir(parents=True)
    manifest = DatasetManifest(
        name="toy",
        source="test",
        tasks=TASKS,
        features=(
            Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, USERS),
            Feature("item_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, ROWS["item"]),
            Feature("topic_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, ROWS["topic"]),
        ),
        vocabulary_sizes={"user": USERS, **ROWS},
        surfaces=("feed",),
        media_types=("video",),
        split_bounds={"choose": (NOW - MILLISECONDS_PER_DAY, NOW)},
        counts={"fit_vocabulary_item": FIT_ITEMS, "last_timestamp": NOW - 1},
        rejected={},
        fingerprint="toy",
    )
    manifest.save(folder)
    for name, size in manifest.vocabulary_sizes.items():
        raw = [RAW_SHIFT + index for index in range(1, size)]
        ids = [f"id-{one}" for one in raw] if string_ids else raw
        seen = pl.DataFrame({"raw": ids, "first_seen": np.arange(1, size)})
        Vocabulary.build(seen).save(vocabulary_path(folder, name))
    (folder / "features").mkdir()
    for side, columns in (("user", 1), ("item", 2)):
        rows = np.arange(manifest.vocabulary_sizes[side], dtype=np.int32)
        categorical = np.stack([rows, rows % ROWS["topic"]], axis=1)[:, :columns]
        np.save(folder / "features" / f"{side}_categorical.npy", categorical)
        np.save(folder / "features" / f"{side}_dense.npy", np.empty((len(rows), 0), np.float32))
    with TimelineWriter(folder / "timelines", num_partitions=3) as writer:
        writer.append([log])
    generator = np.random.default_rng(5)
    requests = pl.DataFrame(
        {
            "user": generator.integers(1, USERS, 40).astype(np.int32),
            "item": generator.integers(1, ROWS["item"], 40).astype(np.int32),
            "request_time": NOW - generator.integers(1, MILLISECONDS_PER_DAY, 40),
            "label_liked": (generator.random(40) < 0.4).astype(np.float32),
            "label_watch_time": (generator.random(40) * 30).astype(np.float32),
        }
    )
    write_requests(folder / "requests", [requests], TASKS)
    return PreparedDataset.open(folder)


def untrained_run(
    folder: Path,
    dataset: PreparedDataset,
    encoder: EncoderConfig = ENCODER,
    seed: int = 0,
    recent: str = "none",
) -> LoadedRun:
    """A run whose tables are as spread out as trained ones."""
    folder.mkdir(parents=True)
    backbone = BackboneConfig(user_vectors=4, over_sizes=[16], task_hidden_size=4)
    config = DV365RunConfig(
        name="toy",
        slices=SLICE_CONFIG,
        encoder=encoder,
        model=DV365Config(
            dimension=16, backbone=backbone, recent=RecentEventsConfig(recent, events=50)
        ),
    )
    save(config, folder / CONFIG_FILE)
    manifest = dataset.manifest
    slice_set = SliceSet.of(SLICE_CONFIG, manifest)
    torch.manual_seed(seed)
    model = DV365(config.model, manifest, slice_set, encoder, config.optim).eval()
    for name, parameter in model.named_parameters():
        if "embedding_bags" in name:
            torch.nn.init.normal_(parameter)
    used = CheckpointUsed("best.ckpt", "test", 0)
    return LoadedRun(folder, config, manifest, dataset, model, used)

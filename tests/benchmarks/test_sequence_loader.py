"""The loader's benchmark: what it counts, and that it leaves a usable store behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli import bench
from recsys.core.errors import ConfigError
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore

START, HOUR = 1_700_000_000_000, 3_600_000


def test_counts_and_times(tmp_path: Path):
    generator = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user_id": generator.integers(0, 30, 2_000),
            "item_id": generator.integers(0, 400, 2_000),
            "timestamp": START + np.arange(2_000) * HOUR // 10,
            "action_type": "click",
        }
    )
    log.write_parquet(tmp_path / "log.parquet")
    folder = tmp_path / "out"
    prepare(PrepareConfig(path=str(tmp_path / "log.parquet"), out=str(folder), partitions=2))
    module = bench._load("sequence_loader")
    loader = module.SequenceLoaderConfig(batch_size=8, max_length=10)
    result = module.run(module.Config(dataset=str(folder), passes=2, loader=loader))
    store = EngagementStore.open(PreparedDataset.open(folder), SequenceConfig())
    assert result["engagements"] == len(store) == log.unique(["user_id", "item_id"]).height
    assert result["fit"]["queries"] == 30 and result["fit"]["batches"] == 4
    first, last = PreparedDataset.open(folder).manifest.split_bounds["choose"]
    assert result["choose"]["queries"] == len(store.events_between(first, last))
    assert 0 < result["choose"]["events"] <= 10 * result["choose"]["queries"]
    assert result["fit"]["seconds"] > 0 and result["build_seconds"] > 0


def test_no_passes_are_refused():
    module = bench._load("sequence_loader")
    with pytest.raises(ConfigError, match="passes is 0"):
        module.Config(dataset="somewhere", passes=0)

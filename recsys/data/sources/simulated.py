"""Reads the log written by the simulator (``recsys data simulate``, docs/simulator.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.files import read_chunks
from recsys.data.contract.parquet import read_parquet
from recsys.data.contract.schema import LOG_SCHEMA, Column, Feature, FeatureKind, FeatureSide
from recsys.data.simulator.config import TASKS
from recsys.data.simulator.files import (
    ITEMS_FILE,
    LOG_FOLDER,
    PARTS,
    REQUESTS_FOLDER,
    SIMULATION_FILE,
    USERS_FILE,
    read_description,
)
from recsys.data.simulator.world.config import WORLD_TASKS
from recsys.data.simulator.world.log import WORLD_ACTIONS
from recsys.data.simulator.world.world import (
    DEVICE,
    INTEGRITY,
    ITEM_REGION,
    NETWORK,
    USER_REGION,
)
from recsys.data.sources.base import DividedSource
from recsys.data.sources.days import OtherDays, other_days

#: Rows of a chunk: what is in memory at a time.
CHUNK_ROWS = 1_000_000

FEATURES: tuple[Feature, ...] = (
    Feature("log_activity", FeatureSide.USER, FeatureKind.DENSE),
    Feature(Column.MEDIA_TYPE, FeatureSide.ITEM, FeatureKind.CATEGORICAL),
    Feature("content_score", FeatureSide.ITEM, FeatureKind.DENSE),
    Feature("log_length", FeatureSide.ITEM, FeatureKind.DENSE),
    Feature(Column.SURFACE, FeatureSide.CONTEXT, FeatureKind.CATEGORICAL),
    Feature("hour_of_day", FeatureSide.CONTEXT, FeatureKind.CATEGORICAL),
    Feature("position", FeatureSide.CONTEXT, FeatureKind.CATEGORICAL),
    Feature("log_item_age", FeatureSide.CONTEXT, FeatureKind.DENSE),
)

#: What is known in a world besides.
WORLD_FEATURES: tuple[Feature, ...] = (
    Feature(USER_REGION, FeatureSide.USER, FeatureKind.CATEGORICAL),
    Feature(DEVICE, FeatureSide.USER, FeatureKind.CATEGORICAL),
    Feature(NETWORK, FeatureSide.USER, FeatureKind.CATEGORICAL),
    Feature(ITEM_REGION, FeatureSide.ITEM, FeatureKind.CATEGORICAL),
    Feature(INTEGRITY, FeatureSide.ITEM, FeatureKind.DENSE),
)


class SimulatedSource(DividedSource):
    """A folder of ``recsys data simulate``.

    Args:
        path: the folder.
        options: splits other than the simulation's.

    Raises:
        ConfigError: the splits do not follow each other.
        DataError: the folder holds no whole simulation, or its description is damaged.
    """

    name = "simulated"

    def __init__(self, path: Path, options: OtherDays | None = None) -> None:
        self.path = path
        if not (path / SIMULATION_FILE).is_file():
            raise DataError(
                f"{path} holds no whole simulated log (no {SIMULATION_FILE} in it); make one with "
                f"`recsys data simulate simulator=demo out={path}`."
            )
        description = read_description(path)
        self.tasks, self.features = TASKS, FEATURES
        if description["config"].get("world") is not None:
            self.tasks, self.features = WORLD_TASKS, (*FEATURES, *WORLD_FEATURES)
            self.actions = WORLD_ACTIONS
        bounds = description["split_bounds"]
        simulated = {split: (first, last) for split, (first, last) in bounds.items()}
        self.split_bounds = other_days(options or OtherDays(), simulated)

    def files(self) -> list[Path]:
        """The description, the features, and every part of the log and of the request rows."""
        parts = [
            part
            for folder in (LOG_FOLDER, REQUESTS_FOLDER)
            for part in sorted((self.path / folder).glob(PARTS))
        ]
        found = [self.path / name for name in (SIMULATION_FILE, ITEMS_FILE, USERS_FILE)] + parts
        for file in found:
            if not file.is_file():
                raise DataError(
                    f"{file} is missing; simulate the log again with `recsys data simulate`."
                )
        return found

    def event_blocks(self, rows: int) -> list[Path]:
        """The parts of the log."""
        return sorted((self.path / LOG_FOLDER).glob(PARTS))

    def events_of(self, block: Path) -> Iterator[pl.DataFrame]:
        """Impressions and explicit actions of a part; what a world adds to them is left out."""
        for chunk in read_chunks(block, chunk_rows=CHUNK_ROWS):
            yield chunk.select(*LOG_SCHEMA)

    def request_blocks(self) -> list[Path]:
        """The parts of the request rows."""
        return sorted((self.path / REQUESTS_FOLDER).glob(PARTS))

    def requests_of(self, block: Path) -> Iterator[pl.DataFrame]:
        """The rows of a part with labels, context features and true probabilities."""
        return read_chunks(block, chunk_rows=CHUNK_ROWS)

    def users(self) -> pl.DataFrame:
        """``user_id`` and ``log_activity``."""
        return read_parquet(self.path / USERS_FILE)

    def items(self) -> pl.DataFrame:
        """``item_id``, author, topic and the item features."""
        return read_parquet(self.path / ITEMS_FILE)

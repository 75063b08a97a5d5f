"""Writes a simulated log, its request rows and its description, block by block."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.folders import made_folder
from recsys.core.progress import track
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE
from recsys.data.contract.parquet import write_frame, write_parquet
from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION, MILLISECONDS_PER_HOUR, Column
from recsys.data.simulator.best import ABSOLUTE, WITHIN_REACH, BestMetrics
from recsys.data.simulator.block import (
    USERS_PER_BLOCK,
    UserBlock,
    generator_of,
    simulate_block,
)
from recsys.data.simulator.catalogue import Catalogue, make_catalogue
from recsys.data.simulator.config import HOURS_PER_DAY, TASKS, SimulatorConfig
from recsys.data.simulator.embeddings import write_embeddings
from recsys.data.simulator.files import (
    IMPRESSIONS_PER_PART,
    ITEMS_FILE,
    SIMULATION,
    USERS_FILE,
    PartWriter,
    coded,
    write_description,
)
from recsys.data.simulator.outcomes import stack_tasks
from recsys.data.simulator.world.log import write_world_log


def simulate(
    config: SimulatorConfig, out: Path, impressions_per_part: int = IMPRESSIONS_PER_PART
) -> None:
    """Write the log of ``config`` as ``out``, replacing a simulation that is there in one step.

    ``log/`` and ``requests/`` hold Parquet parts, ``items.parquet`` and ``users.parquet`` the
    features, ``post_embeddings.parquet`` the embeddings of items if their width is given,
    ``simulation.json`` the configuration, counts, split bounds and best metrics. Memory is
    bounded by one block of users; a world (``config.world``) is held in memory whole.

    Args:
        config: what to simulate.
        out: folder to write.
        impressions_per_part: size of a file; it does not change the log.

    Raises:
        ConfigError: ``out`` holds something else.
    """
    write = _simulate if config.world is None else write_world_log
    with made_folder(out, SIMULATION) as folder:
        write(config, folder, impressions_per_part)


def _simulate(config: SimulatorConfig, out: Path, impressions_per_part: int) -> None:
    catalogue = make_catalogue(config, generator_of(config, 0))
    write_frame(out / ITEMS_FILE, catalogue.frame(config))
    write_embeddings(config, catalogue, out / ITEM_EMBEDDINGS_FILE)

    blocks = -(-config.users // USERS_PER_BLOCK)
    with PartWriter(out, impressions_per_part) as parts:
        writer = _Writer(config, catalogue, parts)
        for number in track(range(blocks), "Simulating users"):
            first = number * USERS_PER_BLOCK
            count = min(USERS_PER_BLOCK, config.users - first)
            block = simulate_block(config, catalogue, count, generator_of(config, number + 1))
            writer.write(block, first)
    write_parquet(out / USERS_FILE, pa.concat_tables(writer.users))
    description = {
        "config": {name: value for name, value in asdict(config).items() if value is not None},
        "split_bounds": config.split_bounds,
        "counts": writer.counts,
        "best": {split: best.values() for split, best in writer.best.items()},
    }
    write_description(out, description)


class _Writer:
    """Turns blocks into tables of a part."""

    def __init__(self, config: SimulatorConfig, catalogue: Catalogue, parts: PartWriter) -> None:
        self.config, self.catalogue, self.parts = config, catalogue, parts
        self.users: list[pa.Table] = []
        self.counts = {"impressions": 0, "explicit_events": 0, "requests": 0, "rows": 0}
        truths = (ABSOLUTE, WITHIN_REACH)
        self.best = {split: BestMetrics(TASKS, truths) for split in config.split_bounds}

    def write(self, block: UserBlock, first_user: int) -> None:
        """Add the events, request rows and users of a block whose first user id is given."""
        in_log = block.request_time < self.config.end_ms - self.config.start_ms
        impressions = np.flatnonzero(in_log)
        actions = np.flatnonzero(in_log[block.action_impression])
        events = [
            self._impressions(block, first_user, impressions),
            self._actions(block, first_user, actions),
        ]
        rows = self._rows(block, first_user)
        self.users.append(_user_table(block, first_user))
        self.counts["impressions"] += len(impressions)
        self.counts["explicit_events"] += len(actions)
        self.counts["requests"] += len(np.unique(block.impressions.request[block.rows]))
        self.counts["rows"] += len(block.rows)
        self.parts.add(events, rows, len(impressions))

    def _impressions(
        self, block: UserBlock, first_user: int, chosen: NDArray[np.int64]
    ) -> pa.Table:
        return self._events(
            block,
            first_user,
            chosen,
            time=block.time[chosen],
            action=np.full(len(chosen), ACTION_TYPES.index(IMPRESSION), np.int8),
            dwell=pa.array(block.dwell[chosen]),
        )

    def _actions(self, block: UserBlock, first_user: int, chosen: NDArray[np.int64]) -> pa.Table:
        return self._events(
            block,
            first_user,
            block.action_impression[chosen],
            time=block.action_time[chosen],
            action=block.action_code[chosen],
            dwell=pa.nulls(len(chosen), pa.float32()),
        )

    def _events(
        self,
        block: UserBlock,
        first_user: int,
        impression: NDArray[np.int64],
        time: NDArray[np.int64],
        action: NDArray[np.int8],
        dwell: pa.Array,
    ) -> pa.Table:
        """Events in the contract of ``recsys.data.contract.schema``, one per given impression."""
        shown, catalogue = block.impressions, self.catalogue
        item = shown.item[impression]
        return pa.table(
            {
                Column.USER: shown.user[impression] + first_user,
                Column.ITEM: item,
                Column.TIMESTAMP: time + self.config.start_ms,
                Column.AUTHOR: catalogue.item_author[item].astype(np.int64),
                Column.TOPIC: catalogue.item_topic[item].astype(np.int64),
                Column.MEDIA_TYPE: coded(catalogue.item_media[item], self.config.media_types),
                Column.SURFACE: coded(shown.surface[impression], self.config.surfaces),
                Column.ACTION_TYPE: coded(action, ACTION_TYPES),
                Column.DWELL_TIME: dwell,
                Column.VIDEO_DURATION: pa.array(catalogue.item_duration[item], from_pandas=True),
            }
        )

    def _rows(self, block: UserBlock, first_user: int) -> pa.Table:
        """Request rows with labels, context features and true probabilities."""
        shown, rows = block.impressions, block.rows
        item = shown.item[rows]
        labels = stack_tasks(block.labels | {"watch_time": block.dwell})[rows]
        absolute = stack_tasks(block.best_absolute)
        reach = stack_tasks(block.best_within_reach)
        request_time = block.request_time[rows] + self.config.start_ms
        for split, (first, last) in self.config.split_bounds.items():
            inside = (request_time >= first) & (request_time < last)
            truths = {ABSOLUTE: absolute[inside], WITHIN_REACH: reach[inside]}
            self.best[split].add(labels[inside], truths)
        age_ms = block.request_time[rows] - self.catalogue.item_published[item]
        columns: dict[str, Any] = {
            Column.USER: shown.user[rows] + first_user,
            Column.ITEM: item,
            Column.REQUEST_TIME: request_time,
            Column.SURFACE: coded(shown.surface[rows], self.config.surfaces),
            "hour_of_day": request_time // MILLISECONDS_PER_HOUR % HOURS_PER_DAY,
            "position": shown.position[rows],
            "log_item_age": np.log1p(age_ms / MILLISECONDS_PER_HOUR).astype(np.float32),
        }
        for column, task in enumerate(TASKS):
            columns[task.column] = pa.array(labels[:, column], from_pandas=True)
            columns[f"{ABSOLUTE}_{task.name}"] = pa.array(absolute[:, column], from_pandas=True)
            columns[f"{WITHIN_REACH}_{task.name}"] = pa.array(reach[:, column], from_pandas=True)
        return pa.table(columns)


def _user_table(block: UserBlock, first_user: int) -> pa.Table:
    """One row per user with an observable feature: how active the user is."""
    impressions = block.population.impressions
    return pa.table(
        {
            Column.USER: np.arange(len(impressions)) + first_user,
            "log_activity": np.log(impressions).astype(np.float32),
        }
    )

"""Writes the log of a world: what happens under its recommender, with propensities."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.progress import track
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE
from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.parquet import scan_parquet, write_frame
from recsys.data.contract.schema import (
    ACTION_TYPES,
    IMPRESSION,
    MILLISECONDS_PER_HOUR,
    NEGATIVE_ACTION_TYPES,
    PROPENSITY,
    Column,
    TaskKind,
)
from recsys.data.simulator.best import ABSOLUTE, BestMetrics
from recsys.data.simulator.config import HOURS_PER_DAY, SimulatorConfig
from recsys.data.simulator.embeddings import write_embeddings
from recsys.data.simulator.files import (
    ITEMS_FILE,
    LOG_FOLDER,
    PARTS,
    USERS_FILE,
    PartWriter,
    coded,
    write_description,
)
from recsys.data.simulator.world.config import SEE_LESS, WATCH_TIME
from recsys.data.simulator.world.draws import Stream, uniforms, words
from recsys.data.simulator.world.play import Tick, play
from recsys.data.simulator.world.recommender import LoggingRecommender
from recsys.data.simulator.world.viewing import Shown, watched_ms
from recsys.data.simulator.world.world import World

Integers = NDArray[np.int64]

#: Action types of a world's log.
WORLD_ACTIONS = ActionTypes((*ACTION_TYPES, SEE_LESS), NEGATIVE_ACTION_TYPES | {SEE_LESS})

#: How often the recommender learns of what happened.
_TICK_MS = 5 * 60_000

#: The action that ends the watching; the others happen during it.
_ENDING = "video_complete"


def write_world_log(config: SimulatorConfig, out: Path, impressions_per_part: int) -> None:
    """Write the log, request rows, items, users and description of a world into a folder."""
    world = World(config)
    items = world.items_frame(world.log_end)
    write_frame(out / ITEMS_FILE, items)
    write_frame(out / USERS_FILE, world.users_frame())
    published = items[Column.ITEM].to_numpy()
    write_embeddings(config, world.catalogue, out / ITEM_EMBEDDINGS_FILE, published)
    visits = world.visits(world.start, world.log_end)
    recommender = LoggingRecommender(world, config.seed)
    with PartWriter(out, impressions_per_part) as parts:
        writer = _Writer(world, parts)
        ticks = (world.log_end - world.start) // _TICK_MS
        for tick in track(play(world, recommender, visits, _TICK_MS), "Playing the log", ticks):
            writer.write(tick)
    description = {
        "config": asdict(config),
        "split_bounds": config.split_bounds,
        "counts": writer.counts,
        "best": {split: best.values() for split, best in writer.best.items()},
    }
    write_description(out, description)


def read_shown(world: World, simulation: Path, since: int) -> Shown:
    """What users were shown in the log from a moment on, ms; outcomes are drawn again.

    Args:
        world: opened from the same folder.
        simulation: the folder of the log.
        since: of the request.
    """
    log = scan_parquet(sorted((simulation / LOG_FOLDER).glob(PARTS)))
    is_shown = (pl.col(Column.ACTION_TYPE) == IMPRESSION) & (pl.col(Column.REQUEST_TIME) >= since)
    frame = log.filter(is_shown).sort(Column.REQUEST_TIME, Column.USER, "position").collect()
    user, item, moment, shown_at, position = (
        frame[name].to_numpy().astype(np.int64)
        for name in (Column.USER, Column.ITEM, Column.REQUEST_TIME, Column.TIMESTAMP, "position")
    )
    codes = {name: code for code, name in enumerate(world.config.surfaces)}
    surface = frame[Column.SURFACE].replace_strict(codes, return_dtype=pl.Int8).to_numpy()
    request = np.cumsum((np.diff(user, prepend=-1) != 0) | (np.diff(moment, prepend=-1) != 0)) - 1
    return Shown(
        request=request,
        user=user,
        item=item,
        request_time=moment,
        surface=surface,
        position=position,
        shown_at=shown_at,
        ended_at=shown_at + watched_ms(frame[Column.DWELL_TIME].to_numpy()),
        outcomes=world.outcomes(user, item, moment, surface),
        propensity=frame[PROPENSITY].to_numpy(),
    )


def explicit_events(world: World, shown: Shown) -> tuple[Integers, NDArray[np.int8], Integers]:
    """What users did with what they were shown: an event for every positive label.

    Actions happen while the item is watched; completion ends the watching.

    Returns:
        Of each event [E] the place of its impression in ``shown``, the code of its action in
        ``WORLD_ACTIONS``, and its moment in ms.
    """
    binary = [place for place, task in enumerate(world.tasks) if task.kind is TaskKind.BINARY]
    impression, task = np.nonzero(shown.outcomes[:, binary] == 1)
    names = [world.tasks[place].name for place in binary]
    action = np.array([WORLD_ACTIONS.names.index(name) for name in names], np.int8)[task]
    event = (shown.user[impression], shown.item[impression], shown.request_time[impression])
    fraction = uniforms(words(world.config.seed, Stream.ACTION_TIME, *event, action))
    fraction[action == WORLD_ACTIONS.names.index(_ENDING)] = 1
    watched = shown.ended_at[impression] - shown.shown_at[impression]
    moment = shown.shown_at[impression] + 1 + (fraction * (watched - 1)).astype(np.int64)
    return impression, action, moment


def event_tables(world: World, shown: Shown) -> tuple[pa.Table, pa.Table]:
    """Impressions, and the actions that followed on them, in the contract of a log."""
    watch_time = [task.name for task in world.tasks].index(WATCH_TIME)
    impression, action, acted_at = explicit_events(world, shown)
    impressions = _events(
        world,
        shown,
        np.arange(len(shown)),
        time=shown.shown_at,
        action=np.full(len(shown), WORLD_ACTIONS.names.index(IMPRESSION), np.int8),
        dwell=pa.array(shown.outcomes[:, watch_time]),
    )
    actions = _events(
        world,
        shown,
        impression,
        time=acted_at,
        action=action,
        dwell=pa.nulls(len(impression), pa.float32()),
    )
    return impressions, actions


def _events(
    world: World,
    shown: Shown,
    impression: Integers,
    time: Integers,
    action: NDArray[np.int8],
    dwell: pa.Array,
) -> pa.Table:
    """Events in the contract, and what a world knows of an impression besides."""
    catalogue, item = world.catalogue, shown.item[impression]
    duration = catalogue.item_duration[item]
    return pa.table(
        {
            Column.USER: shown.user[impression],
            Column.ITEM: item,
            Column.TIMESTAMP: time,
            Column.AUTHOR: catalogue.item_author[item].astype(np.int64),
            Column.TOPIC: catalogue.item_topic[item].astype(np.int64),
            Column.MEDIA_TYPE: coded(catalogue.item_media[item], world.config.media_types),
            Column.SURFACE: coded(shown.surface[impression], world.config.surfaces),
            Column.ACTION_TYPE: coded(action, WORLD_ACTIONS.names),
            Column.DWELL_TIME: dwell,
            Column.VIDEO_DURATION: pa.array(duration, from_pandas=True),
            Column.REQUEST_TIME: shown.request_time[impression],
            "position": shown.position[impression],
            PROPENSITY: shown.propensity[impression],
        }
    )


class _Writer:
    """Turns ticks into tables of a part."""

    def __init__(self, world: World, parts: PartWriter) -> None:
        self.world, self.parts, self.config = world, parts, world.config
        self.counts = {"impressions": 0, "explicit_events": 0, "requests": 0, "rows": 0}
        bounds = self.config.split_bounds
        self.best = {split: BestMetrics(world.tasks, (ABSOLUTE,)) for split in bounds}

    def write(self, tick: Tick) -> None:
        """Add what happened in a tick."""
        impressions, actions = event_tables(self.world, tick.shown)
        rows, requests = self._rows(tick.shown)
        self.counts["impressions"] += len(impressions)
        self.counts["explicit_events"] += len(actions)
        self.counts["requests"] += requests
        self.counts["rows"] += len(rows)
        self.parts.add([impressions, actions], rows, len(impressions))

    def _rows(self, shown: Shown) -> tuple[pa.Table, int]:
        """Request rows of a seeded share of the visits, and how many visits they are of."""
        seed, share = self.config.seed, self.config.request_share
        draw = uniforms(words(seed, Stream.REQUEST_ROW, shown.user, shown.request_time))
        first = min(first for first, _ in self.config.split_bounds.values())
        part = shown.select((draw < share) & (shown.request_time >= first))
        item = part.item
        truth = self.world.probabilities(part.user, item, part.request_time, part.surface)
        for split, (begins, ends) in self.config.split_bounds.items():
            inside = (part.request_time >= begins) & (part.request_time < ends)
            self.best[split].add(part.outcomes[inside], {ABSOLUTE: truth[inside]})
        since = part.request_time - self.world.start
        age_hours = (since - self.world.items.published[item]) / MILLISECONDS_PER_HOUR
        columns: dict[str, Any] = {
            Column.USER: part.user,
            Column.ITEM: item,
            Column.REQUEST_TIME: part.request_time,
            Column.SURFACE: coded(part.surface, self.config.surfaces),
            "hour_of_day": part.request_time // MILLISECONDS_PER_HOUR % HOURS_PER_DAY,
            "position": part.position,
            "log_item_age": np.log1p(age_hours).astype(np.float32),
            PROPENSITY: part.propensity,
        }
        for column, task in enumerate(self.world.tasks):
            columns[task.column] = pa.array(part.outcomes[:, column], from_pandas=True)
            columns[f"{ABSOLUTE}_{task.name}"] = pa.array(truth[:, column], from_pandas=True)
        return pa.table(columns), len(np.unique(part.request))

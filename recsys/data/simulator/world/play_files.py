"""What was shown and done while a world was played under somebody's policy, as a log goes on.

A folder ``log/`` of events in the contract, as that of the world's own log, and the items that were
published by the end: what a service would have written, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.ledger import LISTED, OPENED_AT, OPENS_FILE, VISITED_AT, WAIT_MS
from recsys.data.contract.parquet import write_frame
from recsys.data.contract.schema import Column
from recsys.data.simulator.files import (
    IMPRESSIONS_PER_PART,
    ITEMS_FILE,
    PartWriter,
    read_description,
)
from recsys.data.simulator.world.log import event_tables
from recsys.data.simulator.world.play import Opened, Tick
from recsys.data.simulator.world.users import LONGEST_DELAY_SECONDS
from recsys.data.simulator.world.world import DEVICE, NETWORK, World, described_config

PLAY_FILE = "play.json"
_KIND = "description of a play"
_MEND = "play it with `recsys online … ledger=<a new folder>`."


class PlayWriter:
    """Writes what happens while a world is played.

    Args:
        world: that is played.
        folder: is made.
        features: names of what the policy knows at openings of the app, of which it is told.
        impressions_per_part: when a part is full.

    Raises:
        ConfigError: the folder is there already.
    """

    def __init__(
        self,
        world: World,
        folder: Path,
        features: Sequence[str] = (),
        impressions_per_part: int = IMPRESSIONS_PER_PART,
    ) -> None:
        if folder.exists():
            raise ConfigError(f"{folder} holds what was played before; give another folder.")
        folder.mkdir(parents=True)
        self._world, self._folder, self._features = world, folder, tuple(features)
        self._impressions_per_part = impressions_per_part

    def noting(self, ticks: Iterable[Tick]) -> Iterator[Tick]:
        """The same ticks, each written before the next one; the log is whole after the last."""
        until, opens, visits = self._world.log_end, [], []
        with PartWriter(self._folder, self._impressions_per_part) as parts:
            for tick in ticks:
                impressions, actions = event_tables(self._world, tick.shown)
                parts.add([impressions, actions], None, len(impressions))
                if len(tick.visits):
                    until = int(tick.visits.time[-1]) + 1
                    visits.append(_waits(tick))
                if tick.opened is not None:
                    opens.append(_opens(tick.opened, self._features))
                yield tick
        if opens:
            joined = _with_visits(pl.concat(opens), pl.concat(visits))
            write_frame(self._folder / OPENS_FILE, joined)
        write_frame(self._folder / ITEMS_FILE, self._world.items_frame(until))
        config = asdict(self._world.config)
        write_json(self._folder / PLAY_FILE, _KIND, {"config": config, "until": until})


def end_of_play(folder: Path, simulation: Path) -> int:
    """The moment from which on nothing was played, ms.

    Args:
        folder: of the play.
        simulation: the log of the world that it goes on from.

    Raises:
        DataError: the play was broken off or is damaged, or is one of another world.
    """
    found = read_json(folder / PLAY_FILE, _KIND, DataError, _MEND)
    if described_config(found) != described_config(read_description(simulation)):
        raise DataError(
            f"{folder} was played in another world than that of {simulation}; name the simulated "
            "log that it was played on."
        )
    return int(found["until"])


def kinds_of_users(folder: Path) -> dict[str, list[str]]:
    """By column what users differ in, ``device`` and ``network``, the names by number.

    Args:
        folder: of a play.

    Raises:
        DataError: it is none, or damaged.
    """
    opens = read_json(folder / PLAY_FILE, _KIND, DataError, _MEND)["config"]["world"]["opens"]
    return {name: list(opens[f"{name}_shares"]) for name in (DEVICE, NETWORK)}


def _opens(opened: Opened, features: Sequence[str]) -> pl.DataFrame:
    """A row per opening of the app."""
    own = {Column.USER: opened.user, OPENED_AT: opened.time, LISTED: opened.listed}
    return pl.DataFrame(own | dict(zip(features, opened.features.T, strict=True)))


def _waits(tick: Tick) -> pl.DataFrame:
    """A row per visit; of lists that were made in advance the wait says nothing."""
    wait = np.where(tick.answer.in_advance, np.nan, tick.wait_ms)
    own = {Column.USER: tick.visits.user, VISITED_AT: tick.visits.time}
    return pl.DataFrame(own | {WAIT_MS: pl.Series(wait, nan_to_null=True)})


def _with_visits(opens: pl.DataFrame, visits: pl.DataFrame) -> pl.DataFrame:
    """The opens with the visits that followed: the next of the user, where it came soon."""
    soon = LONGEST_DELAY_SECONDS * 1_000
    return opens.sort(OPENED_AT).join_asof(
        visits.sort(VISITED_AT),
        left_on=OPENED_AT,
        right_on=VISITED_AT,
        by=Column.USER,
        strategy="forward",
        tolerance=soon,
        coalesce=False,
        check_sortedness=False,
    )

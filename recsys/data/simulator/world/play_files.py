"""What was shown and done while a world was played under somebody's policy, as a log goes on.

A folder ``log/`` of events in the contract, as that of the world's own log, and the items that were
published by the end: what a service would have written, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from recsys.core.errors import ConfigError, DataError
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.parquet import write_frame
from recsys.data.simulator.files import (
    IMPRESSIONS_PER_PART,
    ITEMS_FILE,
    PartWriter,
    read_description,
)
from recsys.data.simulator.world.log import event_tables
from recsys.data.simulator.world.play import Tick
from recsys.data.simulator.world.world import World

PLAY_FILE = "play.json"
_KIND = "description of a play"


class PlayWriter:
    """Writes what happens while a world is played.

    Args:
        world: that is played.
        folder: is made.
        impressions_per_part: when a part is full.

    Raises:
        ConfigError: the folder is there already.
    """

    def __init__(
        self, world: World, folder: Path, impressions_per_part: int = IMPRESSIONS_PER_PART
    ) -> None:
        if folder.exists():
            raise ConfigError(f"{folder} holds what was played before; give another folder.")
        folder.mkdir(parents=True)
        self._world, self._folder = world, folder
        self._impressions_per_part = impressions_per_part

    def noting(self, ticks: Iterable[Tick]) -> Iterator[Tick]:
        """The same ticks, each written before the next one; the log is whole after the last."""
        until = self._world.log_end
        with PartWriter(self._folder, self._impressions_per_part) as parts:
            for tick in ticks:
                impressions, actions = event_tables(self._world, tick.shown)
                parts.add([impressions, actions], None, len(impressions))
                until = int(tick.visits.time[-1]) + 1
                yield tick
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
    mend = "play it with `recsys online … ledger=<a new folder>`."
    found = read_json(folder / PLAY_FILE, _KIND, DataError, mend)
    if found["config"] != read_description(simulation)["config"]:
        raise DataError(
            f"{folder} was played in another world than that of {simulation}; name the simulated "
            "log that it was played on."
        )
    return int(found["until"])

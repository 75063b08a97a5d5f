"""What a service would have of a played world: its log, and what has happened and come since.

Legend: n items shown, E events.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.artifacts.manifest import trained_on
from recsys.core.errors import ArtifactError
from recsys.data.contract.schema import IMPRESSION, MILLISECONDS_PER_HOUR, Column
from recsys.data.simulator.config import HOURS_PER_DAY
from recsys.data.simulator.world.config import WATCH_TIME
from recsys.data.simulator.world.log import WORLD_ACTIONS, explicit_events
from recsys.data.simulator.world.play import Requests
from recsys.data.simulator.world.viewing import Shown
from recsys.data.simulator.world.world import World
from recsys.data.stores.live import LiveDataset
from recsys.data.stores.vocabulary import FIRST_SEEN
from recsys.serving.funnel.model import Numbering


class PlayedLog:
    """The data set of a world's log, and live events of what is shown while it is played.

    Items that are published later have their features from the beginning; a policy may show them
    once they are alive.

    Args:
        world: that is played.
        folder: the prepared data set.

    Attributes:
        dataset: both.
        numbering: what the world's users and items are called there.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        items = world.items_frame(world.end).rename({"published_at": FIRST_SEEN})
        self.dataset = LiveDataset.open(folder, items=items)
        self.numbering = Numbering(
            _indices(self.dataset, "user", len(world.users)),
            _indices(self.dataset, "item", len(world.items.rank)),
        )
        manifest = self.dataset.manifest
        names = manifest.actions.names
        self._action = np.array([names.index(name) for name in WORLD_ACTIONS.names])
        surfaces = world.config.surfaces
        codes = {name: code for code, name in enumerate(manifest.surfaces)}
        self._surface = np.array([codes.get(name, 0) for name in surfaces])
        self._watch_time = [task.name for task in world.tasks].index(WATCH_TIME)

    def observe(self, shown: Shown) -> None:
        """Take in what users have looked at, and what they did."""
        impression, action, moment = explicit_events(self._world, shown)
        count = len(shown)
        of = np.concatenate([np.arange(count), impression])
        shown_code = np.full(count, WORLD_ACTIONS.names.index(IMPRESSION))
        dwell = np.full(len(of), np.nan, np.float32)
        dwell[:count] = shown.outcomes[:, self._watch_time]
        self.dataset.live.append(
            {
                "user": self.numbering.user[shown.user[of]],
                "item": self.numbering.item[shown.item[of]],
                "timestamp": np.concatenate([shown.shown_at, moment]),
                "action_type": self._action[np.concatenate([shown_code, action])],
                "surface": self._surface[shown.surface[of]],
                "dwell_time": dwell,
                "video_duration": self._world.catalogue.item_duration[shown.item[of]],
            }
        )


def trained_on_log(artifact: Path) -> Path:
    """The prepared data set that an artifact was trained on.

    Raises:
        ArtifactError: it is not where it was then.
    """
    folder = trained_on(artifact)
    if not folder.is_dir():
        raise ArtifactError(
            f"{artifact} was trained on the prepared data set {folder}, which is not there; "
            "prepare the log of the world again where it was."
        )
    return folder


def known_context(world: World, requests: Requests) -> dict[str, NDArray]:
    """Columns [B] of context features of a world's log that are known when a user asks."""
    return {
        Column.SURFACE: np.array(world.config.surfaces)[requests.surface],
        "hour_of_day": requests.time // MILLISECONDS_PER_HOUR % HOURS_PER_DAY,
    }


def _indices(dataset: LiveDataset, name: str, number: int) -> NDArray[np.int64]:
    """[number] indices of the raw ids from 0 on."""
    ids = pl.Series(np.arange(number))
    found: NDArray[np.int64] = dataset.vocabulary(name).indices(ids).cast(pl.Int64).to_numpy()
    return found

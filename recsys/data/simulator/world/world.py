"""A world: what every user would do with every item at every moment, and what they do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from omegaconf import OmegaConf

from recsys.core.errors import ConfigError, DataError
from recsys.core.schemas import instantiate, structured
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Column
from recsys.data.simulator.block import generator_of
from recsys.data.simulator.catalogue import make_catalogue
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.files import SIMULATION_FILE, read_description
from recsys.data.simulator.outcomes import dwell_truth, linear_response, responses, sigmoid
from recsys.data.simulator.world.config import WATCH_TIME
from recsys.data.simulator.world.draws import Stream, normals, uniforms, words
from recsys.data.simulator.world.items import WorldItems
from recsys.data.simulator.world.users import Opens, WorldUsers

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

#: Features that an item and a user of a world have beside those of every simulated log.
ITEM_REGION, INTEGRITY = "item_region", "integrity"
USER_REGION, DEVICE, NETWORK = "user_region", "device", "network"

_DWELL = "dwell"


@dataclass(frozen=True)
class Visits:
    """Visits of the service, by time, [B] each.

    Attributes:
        user: index.
        time: ms in UTC.
        surface: code.
    """

    user: Integers
    time: Integers
    surface: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.user)

    def at(self, chosen: slice | Integers) -> Visits:
        """Some of them."""
        return Visits(self.user[chosen], self.time[chosen], self.surface[chosen])


class World:
    """Everything about the users and items of a simulation; a recommender knows none of it.

    Users and items are numbered from 0, as their raw ids in the log. Times are ms in UTC. The
    arrays of the methods below are of any shapes that go together: pairs [n], or users [B, 1]
    beside items [1, N]. What comes out for one pair and moment is the same whatever is beside it,
    and depends on nothing that is later, nor on what was shown: feedback changes no user, but an
    item that was seen is not shown to its user again (``world/play.py``).

    Attributes:
        config: what was simulated; its ``days`` are those of the log.
        world: its part that makes it a world.
        tasks: the K tasks, in the order of what comes out.
        catalogue: topics, authors and items.
        items: their lives, appeal, integrity and region.
        users: their latents, region, device, network, and opens.
        value: [K] value of a positive label, or of a second.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        """Draw the world of a configuration.

        Raises:
            ConfigError: it is none of a world.
        """
        if config.world is None:
            raise ConfigError(
                "the simulation is a log alone (simulator.world is null) and cannot be played; "
                "simulate one that is a world, such as simulator=explore."
            )
        self.config, self.world, self.tasks = config, config.world, config.tasks
        whole = replace(config, days=config.days + self.world.online_days)
        self._whole = whole
        self.catalogue = make_catalogue(whole, generator_of(whole, 0))
        self.items = WorldItems(whole, self.world, self.catalogue)
        self.users = WorldUsers(whole, self.world, self.catalogue)
        value = self.world.viewing.value
        self.value = np.array([value.get(task.name, 0.0) for task in self.tasks], np.float32)
        self._surface = _values(config.surface_offsets, config.surfaces)
        self._media = _values(config.media_offsets, config.media_types)

    @classmethod
    def open(cls, simulation: Path) -> Self:
        """The world of a log that ``recsys data simulate`` wrote.

        Raises:
            DataError: the folder holds no whole simulation.
            ConfigError: it is the log of no world.
        """
        if not (simulation / SIMULATION_FILE).is_file():
            raise DataError(
                f"{simulation} holds no whole simulated log (no {SIMULATION_FILE} in it); make one "
                f"with `recsys data simulate simulator=explore out={simulation}`."
            )
        return cls(described_config(read_description(simulation)))

    @property
    def start(self) -> int:
        """The first moment."""
        return self._whole.start_ms

    @property
    def log_end(self) -> int:
        """The log ends before it, and what can be played begins."""
        return self.config.end_ms

    @property
    def end(self) -> int:
        """Everything ends before it."""
        return self._whole.end_ms

    def visits(self, first: int, last: int, users: int | None = None) -> Visits:
        """Visits in ``[first, last)``, of the first so many users or of all."""
        found = self.opens(first, last, users)
        return Visits(found.user, found.visit_time + self.start, found.surface).at(
            np.flatnonzero(found.visits)
        )

    def opens(self, first: int, last: int, users: int | None = None) -> Opens:
        """Openings of the app, with a visit or without, whose visit is in ``[first, last)``."""
        opens = self.users.opens
        ends = np.array([first, min(last, self.end)]) - self.start
        begin, end = np.searchsorted(opens.visit_time, ends)
        found = opens.select(np.arange(begin, max(begin, end)))
        return found if users is None else found.select(found.user < users)

    def alive(self, first: int, last: int) -> Integers:
        """Items that are published and not expired all through ``[first, last]``, oldest first."""
        return self.items.alive(first - self.start, last - self.start)

    def is_alive(self, item: Integers, time: Integers) -> NDArray[np.bool_]:
        """Whether items are published and not expired."""
        since = time - self.start
        return (self.items.published[item] <= since) & (since < self.items.expires[item])

    def probabilities(
        self, user: Integers, item: Integers, time: Integers, surface: NDArray[np.int8]
    ) -> Floats:
        """The true probability of each task, [..., K]; of watch time the mean, in seconds.

        ``video_complete`` is NaN for media without a duration.
        """
        truths = dict(self._truths(user, item, time, surface))
        together = np.broadcast_arrays(*(truths[task.name] for task in self.tasks))
        return np.stack(together, axis=-1)

    def expected_value(
        self, user: Integers, item: Integers, time: Integers, surface: NDArray[np.int8]
    ) -> Floats:
        """Σ_k value_k · probability_k, in the shape of what is given together."""
        value = {task.name: np.float32(v) for task, v in zip(self.tasks, self.value, strict=True)}
        terms = [
            value[name] * np.nan_to_num(truth)
            for name, truth in self._truths(user, item, time, surface)
            if value[name] != 0
        ]
        return sum(terms, np.zeros(np.broadcast_shapes(user.shape, item.shape), np.float32))

    def outcomes(
        self, user: Integers, item: Integers, time: Integers, surface: NDArray[np.int8]
    ) -> Floats:
        """What happens, [..., K]: 0 or 1, NaN where there is nothing to happen, and seconds.

        ``time`` is the moment of the visit: the same user, item and visit have the same draw.
        """
        event = words(self.config.seed, Stream.OUTCOME, user, item, time)
        number = {task.name: place for place, task in enumerate(self.tasks)}
        labels: dict[str, Floats] = {}
        for name, eta in self._responses(user, item, time, surface):
            if name != _DWELL:
                labels[name] = (uniforms(event, number[name]) < sigmoid(eta)).astype(np.float32)
                continue
            dwell = self.config.dwell
            noise = normals(event, number[WATCH_TIME]).astype(np.float32)
            seconds = np.exp(eta + np.float32(dwell.noise_sd) * noise)
            seconds = np.minimum(seconds, np.float32(dwell.max_seconds))
            duration = self.catalogue.item_duration[item]
            complete = np.where(np.isnan(duration), duration, seconds >= duration)
            labels |= {WATCH_TIME: seconds, "video_complete": complete.astype(np.float32)}
        together = np.broadcast_arrays(*(labels[task.name] for task in self.tasks))
        return np.stack(together, axis=-1)

    def items_frame(self, until: int) -> pl.DataFrame:
        """What is known of the items published before a moment: one row each."""
        frame = self.catalogue.frame(self.config)
        regions = np.array(list(self.world.regions.shares))
        frame = frame.with_columns(
            pl.Series(ITEM_REGION, regions[self.items.region]),
            pl.Series(INTEGRITY, self.items.integrity),
        )
        return frame.filter(pl.col("published_at") < until)

    def users_frame(self) -> pl.DataFrame:
        """What is known of the users."""
        names = (
            (USER_REGION, self.users.region, self.world.regions.shares),
            (DEVICE, self.users.device, self.world.opens.device_shares),
            (NETWORK, self.users.network, self.world.opens.network_shares),
        )
        return pl.DataFrame(
            {
                Column.USER: np.arange(len(self.users)),
                "log_activity": self.users.log_activity,
                **{name: np.array(list(shares))[codes] for name, codes, shares in names},
            }
        )

    def _truths(
        self, user: Integers, item: Integers, time: Integers, surface: NDArray[np.int8]
    ) -> Iterator[tuple[str, Floats]]:
        for name, eta in self._responses(user, item, time, surface):
            if name != _DWELL:
                yield name, sigmoid(eta)
                continue
            truth = dwell_truth(self.config.dwell, eta, 0.0, self.catalogue.item_duration[item])
            yield from ((task, truth[task]) for task in ("video_complete", WATCH_TIME))

    def _responses(
        self, user: Integers, item: Integers, time: Integers, surface: NDArray[np.int8]
    ) -> Iterator[tuple[str, Floats]]:
        """η of each logit task and, last, the mean of ln(dwell) (docs/simulator.md)."""
        since = time - self.start
        if since.size and (since.min() < 0 or since.max() >= self.end - self.start):
            raise ValueError("a moment lies before the world's first day or after its last one")
        catalogue, items, users = self.catalogue, self.items, self.users
        config = self.config
        interest = users.interest(user, catalogue.item_topic[item], since)
        same = users.region[user] == items.region[item]
        interest = interest + np.float32(self.world.regions.own_interest) * same
        author = users.author_affinity(user, catalogue.item_author[item])
        appeal = items.appeal(item, since)
        hour = words(config.seed, Stream.MOOD, user, since // MILLISECONDS_PER_HOUR)
        mood = (config.interests.mood_sd * normals(hour)).astype(np.float32)
        offset = self._surface[surface] + self._media[catalogue.item_media[item]]
        harm = 1 - items.integrity[item]
        names = (*config.logit_tasks, _DWELL)
        for column, (name, response) in enumerate(zip(names, responses(config), strict=True)):
            own = users.propensity(user, column) + np.zeros_like(interest)
            if name == _DWELL:
                exponent = np.float32(config.dwell.duration_exponent)
                own += exponent * catalogue.item_log_length[item]
            eta = linear_response(response, own, offset, interest, author, appeal, mood)
            weight = self.world.integrity.harm.get(WATCH_TIME if name == _DWELL else name, 0.0)
            yield name, eta + np.float32(weight) * harm


def described_config(description: dict[str, Any]) -> SimulatorConfig:
    """What was simulated, of a description in JSON, where keys are texts; a setting that was not
    known when it was written is as if there was none.
    """
    described = dict(description["config"])
    activity, sessions = described["activity"], described["sessions"]
    quantiles = {float(level): value for level, value in activity["quantiles"].items()}
    hours = {int(hour): share for hour, share in sessions["hour_shares"].items()}
    described["activity"] = activity | {"quantiles": quantiles}
    described["sessions"] = sessions | {"hour_shares": hours}
    schema = structured(SimulatorConfig)
    return instantiate(SimulatorConfig, OmegaConf.merge(schema, described))  # type: ignore[arg-type]


def _values(offsets: dict[str, float], names: tuple[str, ...]) -> Floats:
    return np.array([offsets[name] for name in names], np.float32)

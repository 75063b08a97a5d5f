"""What makes a simulated log a world that can be played (docs/online.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from recsys.core.bounds import (
    Count,
    Finite,
    HoursAboveZero,
    NotNegative,
    Number,
    Positive,
    Settings,
    Share,
    ShareBelowOne,
    WholeDays,
)
from recsys.core.errors import ConfigError
from recsys.data.contract.schema import Task, TaskKind

#: Says "less of this"; an action of the world's own, which the known action types do not have.
SEE_LESS = "see_less"

WATCH_TIME = "watch_time"

#: The ten tasks: those of DV365, table 2, but the last stands in the place of ``skip``.
WORLD_TASKS: tuple[Task, ...] = (
    Task("video_complete"),
    Task("reshare"),
    Task("profile_visit"),
    Task("external_share"),
    Task("follow"),
    Task("liked"),
    Task("save"),
    Task("comment"),
    Task(WATCH_TIME, TaskKind.REGRESSION),
    Task(SEE_LESS),
)
_DWELL_TASKS = ("video_complete", WATCH_TIME)
WORLD_LOGIT_TASKS: tuple[str, ...] = tuple(
    task.name for task in WORLD_TASKS if task.name not in _DWELL_TASKS
)


@dataclass(frozen=True)
class LifeConfig(Settings):
    """How long items live and how their appeal moves.

    Attributes:
        min_hours: the shortest life.
        max_hours: the longest; lives are uniform between the two.
        appeal_sd: stationary standard deviation of the drifting part of the appeal.
        appeal_hours: its time constant; it moves by the hour of the item's age.
        ageing: appeal lost per day of age.
    """

    min_hours: HoursAboveZero
    max_hours: HoursAboveZero
    appeal_sd: NotNegative
    appeal_hours: HoursAboveZero
    ageing: Finite

    def __post_init__(self) -> None:
        """Refuse lives that end before they begin."""
        super().__post_init__()
        if self.min_hours > self.max_hours:
            raise ConfigError(
                f"simulator.world.life.min_hours={self.min_hours} is more than "
                f"max_hours={self.max_hours}."
            )


@dataclass(frozen=True)
class IntegrityConfig(Settings):
    """Which items are harmful, and what that does.

    Attributes:
        borderline_share: share of items with an integrity score uniform in [0, 0.5); the others'
            is uniform in [0.8, 1).
        harm: per task, what is added to its response: this times (1 − integrity); 0 where a task
            is not named. ``watch_time`` stands for ln(dwell).
    """

    borderline_share: Share
    harm: dict[str, Finite]


@dataclass(frozen=True)
class RegionConfig(Settings):
    """Where users and authors are.

    Attributes:
        shares: share of users, and of authors, per region.
        own_interest: added to the interest in items of the user's own region.
    """

    shares: dict[str, Share]
    own_interest: Finite


@dataclass(frozen=True)
class OpenConfig(Settings):
    """Opening the app, and visiting the service having opened it.

    Opens are the sessions of ``simulator.sessions``. The logit of a visit is the user's own plus
    ``habit`` · cos(2π (hour − the user's favourite hour) / 24), plus ``notification_logit`` where
    the app shows a notification of the service.

    Attributes:
        visit_logit: mean over users.
        visit_sd: standard deviation over users.
        habit: how much the hour matters.
        pause_minutes: an open this soon after the one before belongs to it, and is none.
        delay_seconds: mean time from the open to the visit, exponential, cut at 5 minutes.
        device_shares: share of users per device.
        network_shares: share of users per network.
        notification_share: share of opens with a notification.
        notification_logit: what one adds to the logit of a visit.
    """

    visit_logit: Finite
    visit_sd: NotNegative
    habit: NotNegative
    pause_minutes: Annotated[float, Number(at_least=10, at_most=1440)]
    delay_seconds: NotNegative
    device_shares: dict[str, Share]
    network_shares: dict[str, Share]
    notification_share: Share = 0.0
    notification_logit: Finite = 0.0


@dataclass(frozen=True)
class LatencyConfig(Settings):
    """How long a user waits for a list, by a virtual clock: the same on every machine.

    Network and device are lognormal about their medians; the server's time is a count. What a list
    takes from end to end is the sum of the three; one that is on the device takes the device alone.

    Attributes:
        network_ms: per network the median of the way there and back.
        device_ms: per device the median of showing a list.
        user_sd: of the logarithm of a user's network, the same at all visits.
        visit_sd: of the logarithms of network and device at a visit.
        server_ms: of a request, whatever is scored.
        pair_ms: of a pair that the second stage scores.
        cached_ms: of one whose scores a cache has.
    """

    network_ms: dict[str, Positive] = field(default_factory=dict)
    device_ms: dict[str, Positive] = field(default_factory=dict)
    user_sd: NotNegative = 0.0
    visit_sd: NotNegative = 0.0
    server_ms: NotNegative = 0.0
    pair_ms: NotNegative = 0.0
    cached_ms: NotNegative = 0.0


@dataclass(frozen=True)
class ViewingConfig(Settings):
    """How a visit goes: a list is looked through from its top until the user leaves.

    Attributes:
        items: items of the list of a visit.
        stay_logit: logit of going on to the next item after one of value 0.
        stay_value: added to it per unit of the value of the item just seen.
        value: per task the value of one positive label (of a second of watch time); 0 where a task
            is not named. A session's value is the sum over what was seen.
    """

    items: Annotated[int, Number(at_least=1, at_most=1000)]
    stay_logit: Finite
    stay_value: Finite
    value: dict[str, Finite]


@dataclass(frozen=True)
class RecommenderConfig(Settings):
    """The recommender that makes the log: popularity of the region and the user's topics.

    Attributes:
        random_share: share of slots given to an item drawn uniformly; the others are drawn by
            softmax over the shortlist.
        shortlist: the items of the region most engaged with of late; the rest is found by the
            random slots alone.
        sharpness: of the softmax, over log rates of engagement.
        topic_weight: of the user's own rate in the item's topic, beside the item's rate.
        half_life_hours: of the counters of items.
        prior_impressions: impressions at the mean rate that every rate begins with.
    """

    random_share: ShareBelowOne
    shortlist: Count
    sharpness: NotNegative
    topic_weight: NotNegative
    half_life_hours: HoursAboveZero
    prior_impressions: Positive


@dataclass(frozen=True)
class WorldConfig(Settings):
    """A world: items and users as before, and what a recommender changes.

    Attributes:
        online_days: days after the log in which items are published and users come: those that
            can be played. ``activity.scale`` counts impressions over the log and these days.
        life: how long items live and how their appeal moves.
        integrity: which items are harmful.
        regions: where users and authors are.
        opens: opening the app and visiting.
        viewing: how a visit goes, and its value.
        recommender: what made the log.
        latency: how long users wait; null where nobody asks.
    """

    online_days: WholeDays
    life: LifeConfig
    integrity: IntegrityConfig
    regions: RegionConfig
    opens: OpenConfig
    viewing: ViewingConfig
    recommender: RecommenderConfig
    latency: LatencyConfig | None = None

    def __post_init__(self) -> None:
        """Refuse tasks that there are not."""
        super().__post_init__()
        names = [task.name for task in WORLD_TASKS]
        for setting, by_task in (
            ("integrity.harm", self.integrity.harm),
            ("viewing.value", self.viewing.value),
        ):
            unknown = sorted(set(by_task) - set(names))
            if unknown:
                raise ConfigError(
                    f"simulator.world.{setting} names {', '.join(unknown)}, which is no task; the "
                    f"tasks are {', '.join(names)}."
                )
        for setting, shares in (
            ("regions.shares", self.regions.shares),
            ("opens.device_shares", self.opens.device_shares),
            ("opens.network_shares", self.opens.network_shares),
        ):
            if not sum(shares.values()) > 0:
                raise ConfigError(
                    f"simulator.world.{setting} adds up to 0; give one a share above 0."
                )
        if self.latency is not None:
            for setting, shares, medians in (
                ("device", self.opens.device_shares, self.latency.device_ms),
                ("network", self.opens.network_shares, self.latency.network_ms),
            ):
                if without := sorted(set(shares) - set(medians)):
                    raise ConfigError(
                        f"simulator.world.latency.{setting}_ms says nothing of "
                        f"{', '.join(without)}; give each a median in milliseconds."
                    )

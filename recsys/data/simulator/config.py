"""What a simulated log is made of; ``conf/simulator/*.yaml`` holds the values and their origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from recsys.core.bounds import (
    Count,
    CountOrZero,
    Days,
    Finite,
    HoursAboveZero,
    NotNegative,
    Positive,
    Seed,
    Settings,
    Share,
    WholeDays,
    WholeHours,
    WidthOrZero,
)
from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, Split, Task, TaskKind
from recsys.data.simulator.world.config import WORLD_LOGIT_TASKS, WORLD_TASKS, WorldConfig

#: The ten tasks of DV365, table 2, in its order.
TASKS: tuple[Task, ...] = (
    Task("video_complete"),
    Task("skip"),
    Task("reshare"),
    Task("profile_visit"),
    Task("external_share"),
    Task("follow"),
    Task("liked"),
    Task("save"),
    Task("comment"),
    Task("watch_time", TaskKind.REGRESSION),
)

#: Tasks that are functions of the dwell time; the others are drawn by a logit of their own.
DWELL_TASKS: tuple[str, ...] = ("video_complete", "skip", "watch_time")
LOGIT_TASKS: tuple[str, ...] = tuple(t.name for t in TASKS if t.name not in DWELL_TASKS)

HOURS_PER_DAY = 24


@dataclass(frozen=True)
class ActivityConfig(Settings):
    """How many impressions a user has.

    Attributes:
        quantiles: impressions per user over 30 days of KuaiRand-27K, by level from 0 to 1.
        scale: impressions of a simulated user over the whole log = scale · quantile.
        max_impressions: limit per user; the store cuts timelines at 35,000 anyway.
    """

    quantiles: dict[Share, NotNegative]
    scale: NotNegative
    max_impressions: Count


@dataclass(frozen=True)
class CatalogueConfig(Settings):
    """Topics, authors and items.

    Attributes:
        topics: number of topics; their popularity is Zipf with exponent ``topic_zipf``.
        authors: number of authors; their popularity is Zipf with exponent ``author_zipf``.
        items: number of items published from ``warm_up_days`` before the log to its end.
        second_topic_share: share of an author's items that are about the author's second topic.
        author_quality: standard deviation of the authors' quality.
        item_quality: standard deviation of an item's quality around its author's.
        content_noise: standard deviation of the observable content score around the quality.
        log_duration_mean: mean of ln(video duration in s).
        log_duration_sd: standard deviation of ln(video duration in s).
        media_shares: share of items per media type.
        reading_times: per media type without a duration, the seconds that take its place in the
            dwell equation.
        warm_up_days: days before the log in which items were published.
        fresh_share: share of impressions whose item age is drawn with ``fresh_days``; the others
            use ``lasting_days``.
        fresh_days: mean age of short-lived items at exposure.
        lasting_days: mean age of lasting items at exposure.
    """

    topics: Count
    topic_zipf: NotNegative
    authors: Count
    author_zipf: NotNegative
    items: Count
    second_topic_share: Share
    author_quality: NotNegative
    item_quality: NotNegative
    content_noise: NotNegative
    log_duration_mean: Finite
    log_duration_sd: NotNegative
    media_shares: dict[str, Share]
    reading_times: dict[str, Positive]
    warm_up_days: WholeDays
    fresh_share: Share
    fresh_days: Days
    lasting_days: Days


@dataclass(frozen=True)
class InterestConfig(Settings):
    """What users like, for long and for a short while.

    Attributes:
        topics_per_user: number of topics a user has a pronounced and a short-term interest in.
        stable_mean: mean stable affinity to those topics.
        stable_sd: its standard deviation.
        other_sd: standard deviation of the affinity to all other topics (mean 0).
        short_term_sd: stationary standard deviation of the Ornstein-Uhlenbeck short-term part.
        short_term_hours: its time constant.
        grid_hours: the step on which it moves; must divide 24.
        favourite_authors: number of authors a user is attached to.
        author_mean: mean affinity to a favourite author.
        author_sd: its standard deviation.
        mood_sd: standard deviation of the mood of one session.
    """

    topics_per_user: Count
    stable_mean: Finite
    stable_sd: NotNegative
    other_sd: NotNegative
    short_term_sd: NotNegative
    short_term_hours: HoursAboveZero
    grid_hours: WholeHours
    favourite_authors: CountOrZero
    author_mean: Finite
    author_sd: NotNegative
    mood_sd: NotNegative


@dataclass(frozen=True)
class SessionConfig(Settings):
    """When users come and how much they are shown.

    Attributes:
        hour_shares: share of sessions that start in each of the 24 hours of the day (UTC).
        requests_per_session: mean number of requests of a session (geometric).
        min_items: fewest items of a request.
        max_items: most items of a request.
        think_seconds: mean pause after every item, on top of its dwell time.
        surface_shares: share of sessions per surface.
    """

    hour_shares: dict[CountOrZero, Share]
    requests_per_session: Positive
    min_items: Count
    max_items: Count
    think_seconds: NotNegative
    surface_shares: dict[str, Share]


@dataclass(frozen=True)
class ExposureConfig(Settings):
    """How the recommender that made the log chose items.

    Attributes:
        topic_share: share of impressions taken from the user's topics.
        author_share: share taken from the user's favourite authors; the rest is popularity.
        sharpness: logits over the user's topics = sharpness · affinity as of a day before.
    """

    topic_share: Share
    author_share: Share
    sharpness: Finite


@dataclass(frozen=True)
class ResponseConfig(Settings):
    """How one outcome depends on the latents; for dwell time the response is ln(dwell).

    Attributes:
        intercept: response of an average user to an average video.
        user_sd: standard deviation of the users' propensity.
        interest: weight of the interest (stable + short-term) in the topic.
        author: weight of the affinity to the author.
        quality: weight of the item's quality.
        mood: weight of the session's mood.
    """

    intercept: Finite
    user_sd: NotNegative
    interest: Finite
    author: Finite
    quality: Finite
    mood: Finite


@dataclass(frozen=True)
class DwellConfig(Settings):
    """Dwell time and the tasks that are functions of it.

    Attributes:
        response: mean of ln(dwell in s) for a duration of 1 s.
        duration_exponent: growth of ln(dwell) with ln(duration).
        noise_sd: standard deviation of ln(dwell) around its mean.
        max_seconds: dwell times are cut here.
        skip_seconds: a shorter dwell is a skip.
    """

    response: ResponseConfig
    duration_exponent: Finite
    noise_sd: NotNegative
    max_seconds: Positive
    skip_seconds: NotNegative


@dataclass(frozen=True)
class ItemEmbeddingConfig(Settings):
    """Embeddings of the items, as a content model would make them (NxtPost §3.1.1).

    Attributes:
        width: numbers per item; 0 writes none.
        topic: weight of what the items of a topic share.
        author: weight of what the items of an author share.
        noise: weight of what an item has of its own and no user cares about.
    """

    width: WidthOrZero = 0
    topic: Finite = 1.0
    author: Finite = 0.5
    noise: Finite = 0.5


@dataclass(frozen=True)
class SimulatorConfig(Settings):
    """One simulated log.

    Attributes:
        seed: the same seed gives the same log, however it is chunked.
        users: number of users.
        start: first day of the log, ISO date, UTC.
        days: length of the log.
        fit_days: days of request rows to fit on; request rows cover only the last days.
        choose_days: days of request rows to choose on, after the fit days.
        report_days: days of request rows to report on: the last days of the log.
        request_share: share of the requests of those days that become request rows.
        gap_hours: the gap the probabilities within reach stand for.
        surface_offsets: per surface, offset of every logit and of ln(dwell).
        media_offsets: per media type, likewise.
        activity: impressions per user.
        catalogue: topics, authors and items.
        interests: what users like.
        sessions: when users come.
        exposure: what users are shown.
        actions: one response per task of ``LOGIT_TASKS``.
        dwell: dwell time, and with it video_complete, skip and watch_time.
        post_embedding: embeddings of the items; none by default.
        world: what makes the simulator a world that can be played; None for a log alone.
    """

    seed: Seed
    users: Count
    start: str
    days: WholeDays
    fit_days: WholeDays
    choose_days: WholeDays
    report_days: WholeDays
    request_share: Share
    gap_hours: WholeHours
    surface_offsets: dict[str, Finite]
    media_offsets: dict[str, Finite]
    activity: ActivityConfig
    catalogue: CatalogueConfig
    interests: InterestConfig
    sessions: SessionConfig
    exposure: ExposureConfig
    actions: dict[str, ResponseConfig]
    dwell: DwellConfig
    post_embedding: ItemEmbeddingConfig = field(default_factory=ItemEmbeddingConfig)
    world: WorldConfig | None = None

    def __post_init__(self) -> None:
        """Refuse settings that do not fit each other."""
        super().__post_init__()
        if set(self.actions) != set(self.logit_tasks):
            raise ConfigError(
                f"simulator.actions has the tasks {sorted(self.actions)}; expected exactly "
                f"{sorted(self.logit_tasks)}."
            )
        topics = self.catalogue.topics
        if self.catalogue.authors < topics:
            raise ConfigError(
                f"simulator.catalogue.authors={self.catalogue.authors} is fewer than "
                f"simulator.catalogue.topics={topics}; every topic needs an author of its own."
            )
        if self.interests.topics_per_user >= topics:
            raise ConfigError(
                f"simulator.interests.topics_per_user={self.interests.topics_per_user} is not "
                f"between 1 and {topics - 1}; a user likes some of the "
                f"simulator.catalogue.topics={topics} and never all."
            )
        if self.gap_hours % self.interests.grid_hours:
            raise ConfigError(
                f"simulator.interests.grid_hours={self.interests.grid_hours} must divide "
                f"simulator.gap_hours={self.gap_hours}."
            )
        if self.fit_days + self.choose_days + self.report_days > self.days:
            raise ConfigError(
                "simulator.fit_days + choose_days + report_days is more than "
                f"simulator.days={self.days}; make the log longer."
            )
        if set(self.sessions.hour_shares) != set(range(HOURS_PER_DAY)):
            raise ConfigError(
                "simulator.sessions.hour_shares needs one share for each hour from 0 to 23."
            )
        _check_names("surface_offsets", self.surface_offsets, self.sessions.surface_shares)
        _check_names("media_offsets", self.media_offsets, self.catalogue.media_shares)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The ten tasks."""
        return TASKS if self.world is None else WORLD_TASKS

    @property
    def logit_tasks(self) -> tuple[str, ...]:
        """Those that are drawn by a logit of their own, in the order of ``tasks``."""
        return LOGIT_TASKS if self.world is None else WORLD_LOGIT_TASKS

    @property
    def start_ms(self) -> int:
        """First moment of the log, ms."""
        return int(datetime.fromisoformat(self.start).replace(tzinfo=UTC).timestamp() * 1_000)

    @property
    def end_ms(self) -> int:
        """The log holds requests before this moment, ms."""
        return self.start_ms + self.days * MILLISECONDS_PER_DAY

    @property
    def split_bounds(self) -> dict[str, tuple[int, int]]:
        """``[first, last)`` request time per split, ms."""
        report = self.end_ms - self.report_days * MILLISECONDS_PER_DAY
        choose = report - self.choose_days * MILLISECONDS_PER_DAY
        fit = choose - self.fit_days * MILLISECONDS_PER_DAY
        return {
            Split.FIT.value: (fit, choose),
            Split.CHOOSE.value: (choose, report),
            Split.REPORT.value: (report, self.end_ms),
        }

    @property
    def media_types(self) -> tuple[str, ...]:
        """Names of the media codes."""
        return tuple(self.catalogue.media_shares)

    @property
    def surfaces(self) -> tuple[str, ...]:
        """Names of the surface codes."""
        return tuple(self.sessions.surface_shares)


def _check_names(setting: str, offsets: dict[str, float], shares: dict[str, float]) -> None:
    if set(offsets) != set(shares):
        raise ConfigError(
            f"simulator.{setting} names {sorted(offsets)}, the shares name {sorted(shares)}; "
            "give every name both a share and an offset."
        )

"""What a funnel declares of its cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from omegaconf import OmegaConf

from recsys.core.bounds import Count, Hours, HoursAboveZero, NotNegative, OneOf, Settings, Share
from recsys.core.errors import ConfigError
from recsys.core.schemas import instantiate, structured

#: What becomes of candidates that were scored before.
NONE, LIST, STALE, DECAY, ADJUSTED = "none", "list", "stale", "decay", "adjusted"
#: What is kept is what the model has made of the user; candidates are all scored.
USER_SIDE = "user_side"


@dataclass(frozen=True)
class PrefetchConfig(Settings):
    """Lists that are made when the app is opened, and wait on the device (Smart Cache §4).

    Attributes:
        models: file that `recsys funnel prefetcher` wrote; null: no list is made in advance.
        visit: T2, a list is made where a visit is more likely than this, having opened the app.
        latency_ms: T3, and where its user would wait longer than this from end to end.
        max_age_hours: older lists are not shown.
    """

    models: str | None = None
    visit: Share = 0.5
    latency_ms: NotNegative = 400.0
    max_age_hours: HoursAboveZero = 0.5


@dataclass(frozen=True)
class CacheConfig(Settings):
    """The cache of what the second stage has predicted.

    Attributes:
        policy: ``none``; ``list``, the last list again; ``stale``, the cached scores as they are;
            ``decay``, less and less of them; ``adjusted`` by a model; ``user_side`` keeps no
            scores, but what a ranker makes of a user, by which all candidates are scored.
        max_age_hours: T1, after which a candidate is scored anew; 0 is no cache.
        items: of a user that are kept, at most; those scored last.
        users: of ``user_side``, whose sides a process keeps, at most; those made last.
        unseen: of ``list``: a last list of which fewer items are left unseen is made anew.
        decay: of ``decay``, and of ``adjusted`` without a model: the share of a score that is lost
            by ``max_age_hours``, and in proportion before.
        adjuster: file that `recsys funnel adjuster` wrote; null for none yet.
        sample_share: share of requests whose cached candidates are scored freshly too, for the
            ledger, from which an adjuster learns.
        prefetch: lists that are made before they are asked for.
    """

    policy: Annotated[str, OneOf((NONE, LIST, STALE, DECAY, ADJUSTED, USER_SIDE))] = NONE
    max_age_hours: Hours = 6.0
    items: Count = 500
    users: Count = 10_000
    unseen: Count = 24
    decay: Share = 0.1
    adjuster: str | None = None
    sample_share: Share = 0.0
    prefetch: PrefetchConfig = field(default_factory=PrefetchConfig)

    @property
    def used(self) -> bool:
        """Whether scores are kept."""
        return self.policy not in (NONE, USER_SIDE) and self.max_age_hours > 0

    @property
    def keeps_user_sides(self) -> bool:
        """Whether it is the users' sides that are kept."""
        return self.policy == USER_SIDE and self.max_age_hours > 0


@dataclass(frozen=True)
class OperatingPoints(Settings):
    """A file of operating points.

    Attributes:
        points: by a name of your choice, what of the cache is otherwise than in the funnel's file.
    """

    points: dict[str, CacheConfig] = field(default_factory=dict)


def read_points(path: Path, cache: CacheConfig) -> dict[str, CacheConfig]:
    """The operating points of a file: by name, a funnel's cache as it is there.

    Args:
        path: YAML, such as ``points: {calm: {max_age_hours: 1}, busy: {max_age_hours: 12}}``.
        cache: of the funnel; what a point does not say stays as it is in it.

    Raises:
        ConfigError: the file cannot be read, holds no point, or something in it does not fit.
    """
    from recsys.core.composition import load_part  # Hydra, which few need

    said: dict[str, Any] = load_part(path, OperatingPoints).get("points") or {}
    if not said:
        raise ConfigError(
            f"{path} holds no operating point; it is lines such as "
            "`points: {calm: {max_age_hours: 1}}`."
        )
    return {
        name: instantiate(CacheConfig, OmegaConf.merge(structured(cache), changes))  # type: ignore[arg-type]
        for name, changes in said.items()
    }

"""What a funnel declares of its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recsys.core.bounds import Count, Hours, OneOf, Settings, Share

#: What becomes of candidates that were scored before.
NONE, LIST, STALE, DECAY, ADJUSTED = "none", "list", "stale", "decay", "adjusted"


@dataclass(frozen=True)
class CacheConfig(Settings):
    """The cache of what the second stage has predicted.

    Attributes:
        policy: ``none``; ``list``, the last list again; ``stale``, the cached scores as they are;
            ``decay``, less and less of them; ``adjusted`` by a model.
        max_age_hours: T1, after which a candidate is scored anew; 0 is no cache.
        items: of a user that are kept, at most; those scored last.
        unseen: of ``list``: a last list of which fewer items are left unseen is made anew.
        decay: of ``decay``, and of ``adjusted`` without a model: the share of a score that is lost
            by ``max_age_hours``, and in proportion before.
        adjuster: file that `recsys funnel adjuster` wrote; null for none yet.
        sample_share: share of requests whose cached candidates are scored freshly too, for the
            ledger, from which an adjuster learns.
    """

    policy: Annotated[str, OneOf((NONE, LIST, STALE, DECAY, ADJUSTED))] = NONE
    max_age_hours: Hours = 6.0
    items: Count = 500
    unseen: Count = 24
    decay: Share = 0.1
    adjuster: str | None = None
    sample_share: Share = 0.0

    @property
    def used(self) -> bool:
        """Whether there is a cache at all."""
        return self.policy != NONE and self.max_age_hours > 0

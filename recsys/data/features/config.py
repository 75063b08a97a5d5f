"""What is counted of candidates and users."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from recsys.core.bounds import Number, OneOf, Settings
from recsys.core.errors import ConfigError

#: What a candidate is counted by, and what it may share with a user's events.
SHARED = ("item", "author", "topic")

_Shared = Annotated[str, OneOf(SHARED)]


@dataclass(frozen=True)
class CandidateFeatureConfig(Settings):
    """Counters and cross features of candidates.

    Attributes:
        counters: whose events are counted, of all users: the candidate's item, author, topic.
        cross_features: with whose events the user's own are counted, and with them what the user
            did at all. Where both are empty, the age of the item is all that is left.
        windows_hours: windows before the moment; all time before it is one more.
        actions: action types that are counted beside impressions; empty for all that the log has.
        prior: impressions that a rate's prior weighs.
        max_events: newest events of each timeline of a user that are counted.
    """

    counters: list[_Shared] = field(default_factory=lambda: list(SHARED))
    cross_features: list[_Shared] = field(default_factory=lambda: list(SHARED))
    windows_hours: list[int] = field(default_factory=lambda: [24, 168])
    actions: list[str] = field(default_factory=list)
    prior: Annotated[float, Number(above=0)] = 10.0
    max_events: Annotated[int, Number(at_least=0)] = 2_000

    def __post_init__(self) -> None:
        """Refuse windows that are none.

        Raises:
            ConfigError: a window is not above 0, or is there twice.
        """
        super().__post_init__()
        hours = self.windows_hours
        if any(one < 1 for one in hours) or len(set(hours)) < len(hours):
            raise ConfigError(
                f"windows_hours={hours}: expected different whole numbers of hours above 0, such "
                "as [24,168]; all time before is counted anyway."
            )

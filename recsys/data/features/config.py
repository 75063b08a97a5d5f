"""What is counted of candidates and users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from recsys.core.bounds import Count, Number, OneOf, Seed, Settings
from recsys.core.errors import ConfigError

#: What a candidate is counted by.
SHARED = ("item", "author", "topic")
#: The cluster of items of like content.
CONTENT = "content"
#: What a candidate may share with a user's events.
CROSSED = (*SHARED, CONTENT)

_Shared = Annotated[str, OneOf(SHARED)]
_Crossed = Annotated[str, OneOf(CROSSED)]


@dataclass(frozen=True)
class ContentConfig(Settings):
    """Clusters of items of like content.

    Attributes:
        path: an .npz or Parquet file of ids and embeddings of items, the folder of a trained item
            tower, or a prepared data set that holds them; below the data folder unless absolute or
            found as it is. None: nothing is known of content, and nothing is crossed with it.
        data_dir: where it is looked for, before RECSYS_DATA_DIR and ./data.
        clusters: how many, at most.
        seed: of k-means.
    """

    path: str | None = None
    data_dir: str | None = None
    clusters: Count = 256
    seed: Seed = 0


@dataclass(frozen=True)
class CandidateFeatureConfig(Settings):
    """Counters and cross features of candidates.

    Attributes:
        counters: whose events are counted, of all users: the candidate's item, author, topic.
        cross_features: with whose events the user's own are counted: those of the candidate's
            item, author, topic and cluster of content; and with them what the user did at all.
            Where both are empty, the age of the item is all that is left.
        content: where the clusters come from.
        windows_hours: windows before the moment; all time before it is one more.
        actions: action types that are counted beside impressions; empty for all that the log has.
        prior: impressions that a rate's prior weighs.
        max_events: newest events of each timeline of a user that are counted.
    """

    counters: list[_Shared] = field(default_factory=lambda: list(SHARED))
    cross_features: list[_Crossed] = field(default_factory=lambda: list(CROSSED))
    content: ContentConfig = field(default_factory=ContentConfig)
    windows_hours: list[int] = field(default_factory=lambda: [24, 168])
    actions: list[str] = field(default_factory=list)
    prior: Annotated[float, Number(above=0)] = 10.0
    max_events: Annotated[int, Number(at_least=0)] = 2_000

    @classmethod
    def stored(cls, content: Mapping[str, Any]) -> Self:
        """What a manifest has noted by ``asdict``."""
        return cls(**{**content, "content": ContentConfig(**content["content"])})

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

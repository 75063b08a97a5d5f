"""What `conf/funnel` declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from recsys.core.bounds import Count, HoursAboveZero, Number, OneOf, Seed, Settings
from recsys.core.errors import ConfigError
from recsys.serving.funnel.rerank import RerankConfig

#: Scorers that need no model: by what is counted of items and users; drawn.
RATES, RANDOM = "rates", "random"

_Share = Annotated[float, Number(at_least=0, at_most=1)]
_Milliseconds = Annotated[float, Number(above=0)] | None
_Weight = Annotated[float, Number(at_least=0)]


@dataclass(frozen=True)
class SourceConfig(Settings):
    """A source.

    Attributes:
        quota: items of a request, at most.
        weight: how much its ranking counts where candidates are mixed.
        deadline_ms: after which it is left out; null for no deadline.
    """

    quota: Count = 100
    weight: _Weight = 1.0
    deadline_ms: _Milliseconds = None


@dataclass(frozen=True)
class FavouritesConfig(SourceConfig):
    """Items of what a user engages with most.

    Attributes:
        each: items of each favourite.
    """

    each: Count = 10


@dataclass(frozen=True)
class FreshConfig(SourceConfig):
    """New items, for exploration.

    Attributes:
        hours: oldest age.
    """

    hours: HoursAboveZero = 6.0


@dataclass(frozen=True)
class SourcesConfig(Settings):
    """The sources; one that is null is left out.

    Attributes:
        trending: what the user's group engages with of late.
        favourite_authors: items of the authors whom a user engages with most.
        favourite_topics: of the topics.
        fresh: new items, each as likely as another.
    """

    trending: SourceConfig | None = None
    favourite_authors: FavouritesConfig | None = None
    favourite_topics: FavouritesConfig | None = None
    fresh: FreshConfig | None = None


@dataclass(frozen=True)
class FiltersConfig(Settings):
    """What is left out; what a user has seen always is.

    Attributes:
        min_integrity: least integrity; null for any.
        own_region: items of other regions are left out.
        max_age_hours: oldest items; null for any age.
    """

    min_integrity: _Share | None = None
    own_region: bool = False
    max_age_hours: HoursAboveZero | None = None


@dataclass(frozen=True)
class StageConfig(Settings):
    """A stage that scores.

    Attributes:
        scorer: ``rates``, by what is counted of items and users; or ``random``.
        candidates: of a request that are scored, at most.
        deadline_ms: after which no more are; null for no deadline.
    """

    scorer: Annotated[str, OneOf((RATES, RANDOM))] = RATES
    candidates: Count = 200
    deadline_ms: _Milliseconds = None


@dataclass(frozen=True)
class ValueConfig(Settings):
    """The value model.

    Attributes:
        expression: over predictions of the tasks; needed.
        of_group: expressions of some groups of users instead, by the number of the group.
    """

    expression: str = "0"
    of_group: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExplorationConfig(Settings):
    """Places of the list that are kept for what a source finds.

    Attributes:
        source: whose items, one drawn for each place.
        places: from 1.
    """

    source: str = "fresh"
    places: list[Count] = field(default_factory=list)


@dataclass(frozen=True)
class FunnelConfig(Settings):
    """A funnel.

    Attributes:
        sources: where candidates come from.
        limit: candidates of a request after mixing, at most.
        filters: what is left out.
        first: cheap scores of the candidates; null where the order of the sources decides.
        second: predictions of the best of them.
        value: what predictions are worth.
        rerank: rules of the list.
        exploration: places kept for exploration; null for none.
        group: column of users, and of items where they are for some of them, by which popularity,
            regions and the value model tell users apart; null for one group of all.
        seed: of what is drawn.
    """

    sources: SourcesConfig = field(default_factory=SourcesConfig)
    limit: Count = 1_000
    filters: FiltersConfig = field(default_factory=FiltersConfig)
    first: StageConfig | None = None
    second: StageConfig = field(default_factory=StageConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    exploration: ExplorationConfig | None = None
    group: str | None = "region"
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Refuse a funnel without sources or value, and exploration of a source it has not."""
        super().__post_init__()
        if self.value.expression == "0":
            raise ConfigError(
                "funnel.value.expression is not given: say what the predictions are worth, such as "
                "1.0 * p(liked) + 0.01 * watch_time."
            )
        there = [name for name, one in vars(self.sources).items() if one is not None]
        if not there:
            raise ConfigError(
                f"funnel.sources: a funnel needs one source at least; name some of "
                f"{', '.join(vars(self.sources))}, such as trending: {{quota: 100}}."
            )
        if self.exploration is not None and self.exploration.source not in there:
            raise ConfigError(
                f"funnel.exploration.source={self.exploration.source}: the funnel has no such "
                f"source; it has {', '.join(there)}."
            )

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """What a file of the user's own says, for ``funnel=mine.yaml``.

        Raises:
            ConfigError: it cannot be read or does not fit.
        """
        from recsys.core.composition import load_part  # Hydra, which few need

        return load_part(path, cls)

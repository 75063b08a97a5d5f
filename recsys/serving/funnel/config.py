"""What `conf/funnel` declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from omegaconf import MISSING

from recsys.core.bounds import Count, HoursAboveZero, Number, Seed, Settings
from recsys.core.errors import ConfigError
from recsys.serving.funnel.cache.config import CacheConfig
from recsys.serving.funnel.rerank import RerankConfig

#: Scorers that need no model: by what is counted of items and users; drawn.
RATES, RANDOM = "rates", "random"

_PRECOMPUTED = "precomputed"
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
class RetrievedConfig(SourceConfig):
    """Items that a model finds for a user.

    Attributes:
        model: its name in ``models``; needed.
        beam: nodes of each level that are kept, of a tree; null as it was exported.
        task: to rank by, of a tree; null as it was exported.
    """

    model: str = MISSING
    beam: Count | None = None
    task: str | None = None


@dataclass(frozen=True)
class SimilarConfig(SourceConfig):
    """Items like those that a user engaged with, by the embeddings of a model.

    Attributes:
        model: its name in ``models``, of those that embed items; needed.
        events: newest engagements of a user whose items are looked at.
        actions: action types that count; empty for all that the model takes for engagements.
        hours: oldest engagements; null for any age.
    """

    model: str = MISSING
    events: Count = 10
    actions: list[str] = field(default_factory=list)
    hours: HoursAboveZero | None = None


@dataclass(frozen=True)
class SourcesConfig(Settings):
    """The sources; one that is null is left out.

    Attributes:
        trending: what the user's group engages with of late.
        favourite_authors: items of the authors whom a user engages with most.
        favourite_topics: of the topics.
        fresh: new items, each as likely as another.
        precomputed: of lists that `recsys precompute` made of the other sources, off-peak.
        retrieved: what models find for a user, by names of your choice.
        similar: items like those of a user's history, by names of your choice.
    """

    trending: SourceConfig | None = None
    favourite_authors: FavouritesConfig | None = None
    favourite_topics: FavouritesConfig | None = None
    fresh: FreshConfig | None = None
    precomputed: SourceConfig | None = None
    retrieved: dict[str, RetrievedConfig | None] = field(default_factory=dict)
    similar: dict[str, SimilarConfig | None] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the sources that there are, in their order."""
        single = ("trending", "favourite_authors", "favourite_topics", "fresh", _PRECOMPUTED)
        there = [name for name in single if getattr(self, name) is not None]
        of_models = [*self.retrieved.items(), *self.similar.items()]
        return [*there, *(name for name, one in of_models if one is not None)]


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
class ModelConfig(Settings):
    """A trained model.

    Attributes:
        path: the artifact that `recsys export` wrote; needed.
        stores: of published user embeddings, for a model that reads them.
        context: values of context features that hold for every candidate, such as position: 0.
    """

    path: str = MISSING
    stores: list[str] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageConfig(Settings):
    """A stage that scores.

    Attributes:
        scorer: ``rates``, by what is counted of items and users; ``random``; or a model's name.
        candidates: of a request that are scored, at most.
        deadline_ms: after which no more are; null for no deadline.
    """

    scorer: str = RATES
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
        models: trained models by names of your choice, which sources and stages refer to.
        sources: where candidates come from.
        limit: candidates of a request after mixing, at most.
        filters: what is left out.
        first: cheap scores of the candidates; null where the order of the sources decides.
        second: predictions of the best of them.
        cache: of these predictions.
        value: what predictions are worth.
        rerank: rules of the list.
        exploration: places kept for exploration; null for none.
        group: column of users, and of items where they are for some of them, by which popularity,
            regions and the value model tell users apart; null for one group of all.
        seed: of what is drawn.
    """

    models: dict[str, ModelConfig] = field(default_factory=dict)
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    limit: Count = 1_000
    filters: FiltersConfig = field(default_factory=FiltersConfig)
    first: StageConfig | None = None
    second: StageConfig = field(default_factory=StageConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
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
        there = self.sources.names
        if not there:
            raise ConfigError(
                f"funnel.sources: a funnel needs one source at least; name some of "
                f"{', '.join(vars(self.sources))}, such as trending: {{quota: 100}}."
            )
        if there == [_PRECOMPUTED]:
            raise ConfigError(
                "funnel.sources has precomputed alone, whose lists are made of what the other "
                "sources find; name some of these as well."
            )
        if twice := sorted({name for name in there if there.count(name) > 1}):
            raise ConfigError(f"funnel.sources: two are called {', '.join(twice)}.")
        self._refuse_unknown_models()
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

    def _refuse_unknown_models(self) -> None:
        counted = [RATES, RANDOM]
        asked = {
            f"sources.{kind}.{name}.model": one.model
            for kind in ("retrieved", "similar")
            for name, one in getattr(self.sources, kind).items()
            if one is not None
        }
        scorers = {"second.scorer": self.second.scorer}
        if self.first is not None:
            scorers["first.scorer"] = self.first.scorer
        for where, name in {**asked, **scorers}.items():
            known = [*self.models, *(counted if where in scorers else [])]
            if name not in known:
                raise ConfigError(
                    f"funnel.{where}={name} is unknown; it is one of {', '.join(known) or 'none'}: "
                    "declare models: {" + f"{name}: {{path: <artifact>}}" + "}."
                )

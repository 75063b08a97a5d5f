"""Families of slice rules: what conf/slices declares (DV365 §2.2, equations 2 to 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Annotated, Self

from recsys.core.bounds import Finite, NotNegative, Number, Positive, Settings
from recsys.core.errors import ConfigError
from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.manifest import WITHOUT_DWELL, DatasetManifest
from recsys.data.contract.schema import TimelineKind
from recsys.data.slices.rules import (
    UNKNOWN,
    Attribute,
    AttributeKind,
    CategoryCondition,
    Condition,
    RangeCondition,
)

#: Source name that stands for no filter.
ANY = "any"
#: Window name that stands for the whole history.
ALL = "all"


class IdType(StrEnum):
    """By which id the events of a slice are looked up."""

    ITEM = "item"
    AUTHOR = "author"
    TOPIC = "topic"


class Engagement(StrEnum):
    """Sign of the engagement: positive and negative slices never share a table.

    ``shown`` is neither: that an item was shown, and nothing is known of what came of it.
    """

    POSITIVE = "positive"
    NEGATIVE = "negative"
    SHOWN = "shown"


def _every_id() -> list[str]:
    return [id_type.value for id_type in IdType]


def _every_window() -> list[str]:
    return ["3d", "7d", ALL]


def _any() -> list[str]:
    return [ANY]


@dataclass(frozen=True)
class Range(Settings):
    """``[lower, upper)``: adjoining ranges share no event; no upper bound by default."""

    lower: NotNegative = 0.0
    upper: Annotated[float, Number(above=0, besides=math.inf)] = math.inf


@dataclass(frozen=True)
class Family(Settings):
    """What every family of one sign has; each listed value gives slices of its own.

    Attributes:
        engagement: ``positive`` or ``negative``.
        ids: any of ``item``, ``author``, ``topic``.
        media_types: names of the data set's media types, ``any`` for no filter.
        surfaces: names of the data set's surfaces, ``any`` for no filter.
    """

    engagement: str = Engagement.POSITIVE.value
    ids: list[str] = field(default_factory=_every_id)
    media_types: list[str] = field(default_factory=_any)
    surfaces: list[str] = field(default_factory=_any)


@dataclass(frozen=True)
class ActionFamily(Family):
    """Explicit events of an action type (equation 2), within windows (equation 6).

    Attributes:
        actions: action types, the log's own ones among them.
        windows: ``3d``, ``12h``, ... or ``all``.
    """

    actions: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=_every_window)


@dataclass(frozen=True)
class WatchTimeFamily(Family):
    """Implicit events by dwell time (equation 3), within windows (equation 6).

    Attributes:
        ranges: of dwell time, in seconds.
        windows: ``3d``, ``12h``, ... or ``all``.
    """

    ranges: list[Range] = field(default_factory=list)
    windows: list[str] = field(default_factory=_every_window)


@dataclass(frozen=True)
class WatchRatioFamily(Family):
    """Implicit events by dwell_time / video_duration ** exponent (equation 4).

    Attributes:
        exponents: values of β.
        ranges: of the ratio.
    """

    exponents: list[Finite] = field(default_factory=lambda: [1.0])
    ranges: list[Range] = field(default_factory=list)


@dataclass(frozen=True)
class DebiasedScoreFamily(Family):
    """Implicit events weighted by ln(dwell_time + 1) / ln(γ video_duration + 1) (equation 5).

    Attributes:
        gammas: values of γ.
        thresholds: values of s₀; an event is in the slice where its score is above.
    """

    gammas: list[Positive] = field(default_factory=lambda: [1.0])
    thresholds: list[NotNegative] = field(default_factory=list)


@dataclass(frozen=True)
class UnsignedFamily(Settings):
    """What a family has whose rules say themselves of which sign they are.

    Attributes:
        ids: any of ``item``, ``author``, ``topic``.
        media_types: names of the data set's media types, ``any`` for no filter.
        surfaces: names of the data set's surfaces, ``any`` for no filter.
        windows: ``3d``, ``12h``, ... or ``all``.
    """

    ids: list[str] = field(default_factory=_every_id)
    media_types: list[str] = field(default_factory=_any)
    surfaces: list[str] = field(default_factory=_any)
    windows: list[str] = field(default_factory=_every_window)


@dataclass(frozen=True)
class OwnActionFamily(UnsignedFamily):
    """Explicit events of each of the log's own actions, as equation 2; none where it has none.

    Their sign is that of the action. An action that another family names is left to that.
    """


@dataclass(frozen=True)
class ShownFamily(UnsignedFamily):
    """Implicit events whose dwell time is unknown; none where the log knows it of every event."""


@dataclass(frozen=True)
class SliceConfig(Settings):
    """The declarative list in ``conf/slices``."""

    actions: list[ActionFamily] = field(default_factory=list)
    watch_time: list[WatchTimeFamily] = field(default_factory=list)
    watch_ratio: list[WatchRatioFamily] = field(default_factory=list)
    debiased_score: list[DebiasedScoreFamily] = field(default_factory=list)
    own_actions: list[OwnActionFamily] = field(default_factory=list)
    shown: list[ShownFamily] = field(default_factory=list)


@dataclass(frozen=True)
class EventKinds:
    """What kinds of events a data set has beside the codes that filter them.

    Attributes:
        actions: its action types.
        undwelled: whether it has implicit events whose dwell time is unknown.
    """

    actions: ActionTypes = field(default_factory=ActionTypes)
    undwelled: bool = False

    @classmethod
    def of(cls, manifest: DatasetManifest) -> Self:
        """Those of a prepared data set."""
        return cls(manifest.actions, manifest.counts.get(WITHOUT_DWELL, 0) > 0)


@dataclass(frozen=True)
class SliceRule:
    """A rule before it is crossed with sources, ids and windows.

    Attributes:
        name: for example ``watch_time[15,inf)``.
        engagement: its sign, ``Engagement``.
        timeline: where its events come from.
        condition: what an event must satisfy.
        windows: how far back, each a slice of its own.
        weight: the attribute whose value weighs an event, ``None`` in plain slices.
    """

    name: str
    engagement: str
    timeline: TimelineKind
    condition: Condition
    windows: tuple[str, ...] = (ALL,)
    weight: Attribute | None = None


def families_with_rules(
    config: SliceConfig, kinds: EventKinds
) -> Iterator[tuple[Family | UnsignedFamily, Iterator[SliceRule]]]:
    """Every family of a configuration, in order, with the rules it stands for.

    Args:
        config: the families.
        kinds: of events in the data set.

    Raises:
        ConfigError: an action, range, exponent, γ or s₀ that cannot be used.
    """
    for action in config.actions:
        yield action, _action_rules(action, kinds.actions)
    for watch_time in config.watch_time:
        yield watch_time, _watch_time_rules(watch_time)
    for watch_ratio in config.watch_ratio:
        yield watch_ratio, _watch_ratio_rules(watch_ratio)
    for score in config.debiased_score:
        yield score, _debiased_score_rules(score)
    named = {name for family in config.actions for name in family.actions}
    for own in config.own_actions:
        yield own, _own_action_rules(own, kinds.actions, named)
    for shown in config.shown if kinds.undwelled else ():
        yield shown, _shown_rules(shown)


def _action_rules(family: ActionFamily, known: ActionTypes) -> Iterator[SliceRule]:
    for action in family.actions:
        if action not in known.explicit:
            raise ConfigError(
                f"Slices are declared for the action {action!r}; explicit actions are "
                f"{', '.join(known.explicit)}."
            )
        yield _action_rule(action, family.engagement, known, family.windows)


def _own_action_rules(
    family: OwnActionFamily, known: ActionTypes, named: set[str]
) -> Iterator[SliceRule]:
    for action in known.own:
        if action not in named:
            negative = action in known.negative
            engagement = Engagement.NEGATIVE if negative else Engagement.POSITIVE
            yield _action_rule(action, engagement, known, family.windows)


def _action_rule(action: str, engagement: str, known: ActionTypes, windows: list[str]) -> SliceRule:
    condition = CategoryCondition(Attribute(AttributeKind.ACTION_TYPE), known.names.index(action))
    return SliceRule(action, engagement, TimelineKind.EXPLICIT, condition, tuple(windows))


def _shown_rules(family: ShownFamily) -> Iterator[SliceRule]:
    condition = RangeCondition(Attribute(AttributeKind.DWELL_TIME), UNKNOWN, 0)
    yield SliceRule(
        "shown", Engagement.SHOWN, TimelineKind.IMPLICIT, condition, tuple(family.windows)
    )


def _watch_time_rules(family: WatchTimeFamily) -> Iterator[SliceRule]:
    for bounds in family.ranges:
        condition = _range(Attribute(AttributeKind.DWELL_TIME), bounds, "watch_time")
        name = f"watch_time{_interval(condition)}"
        yield SliceRule(
            name, family.engagement, TimelineKind.IMPLICIT, condition, tuple(family.windows)
        )


def _watch_ratio_rules(family: WatchRatioFamily) -> Iterator[SliceRule]:
    for exponent, bounds in product(family.exponents, family.ranges):
        attribute = Attribute(AttributeKind.WATCH_RATIO, float(exponent))
        condition = _range(attribute, bounds, "watch_ratio")
        name = f"watch_ratio(beta={exponent:g}){_interval(condition)}"
        yield SliceRule(name, family.engagement, TimelineKind.IMPLICIT, condition)


def _debiased_score_rules(family: DebiasedScoreFamily) -> Iterator[SliceRule]:
    for gamma, threshold in product(family.gammas, family.thresholds):
        if gamma <= 0 or threshold < 0:
            raise ConfigError(
                f"Debiased score slices have gamma {gamma:g} and threshold {threshold:g}; "
                "gamma must be positive and thresholds must not be negative."
            )
        attribute = Attribute(AttributeKind.DEBIASED_SCORE, float(gamma))
        condition = RangeCondition(attribute, float(threshold), math.inf, open_below=True)
        name = f"debiased_score(gamma={gamma:g})>{threshold:g}"
        yield SliceRule(name, family.engagement, TimelineKind.IMPLICIT, condition, weight=attribute)


def _range(attribute: Attribute, bounds: Range, family: str) -> RangeCondition:
    if not 0 <= bounds.lower < bounds.upper:
        raise ConfigError(
            f"{family} slices have a range from {bounds.lower:g} to {bounds.upper:g}; "
            "a range needs 0 <= lower < upper."
        )
    return RangeCondition(attribute, float(bounds.lower), float(bounds.upper))


def _interval(condition: RangeCondition) -> str:
    return f"[{condition.lower:g},{condition.upper:g})"

"""Slices: the sub-sequences of a user's timelines that are pooled, from a declarative list.

The rules of a family (``slice_families``) are crossed with logging sources, id types and time
windows (DV365 equation 6). Slices of one group share an embedding table: timeline, sign of the
engagement, id type, plain or weighted, product type (media type).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR, TimelineKind
from recsys.data.slices.families import (
    ALL,
    ANY,
    Engagement,
    EventKinds,
    Family,
    IdType,
    SliceConfig,
    SliceRule,
    UnsignedFamily,
    families_with_rules,
)
from recsys.data.slices.rules import (
    Attribute,
    AttributeKind,
    CategoryCondition,
    Condition,
    RangeCondition,
    attribute_values,
)

Member = TypeVar("Member", bound=StrEnum)


@dataclass(frozen=True)
class Slice:
    """One rule, one id type, one window: pooled to one vector.

    Attributes:
        name: for example ``implicit/watch_time[15,inf)/author/7d``.
        timeline: where its events come from.
        id_type: what is looked up.
        table: name of the table it shares.
        conditions: what an event must satisfy, all of them.
        weight: the attribute whose value weighs an event, ``None`` in plain slices.
    """

    name: str
    timeline: TimelineKind
    id_type: IdType
    table: str
    conditions: tuple[Condition, ...]
    weight: Attribute | None = None


@dataclass(frozen=True)
class SliceTable:
    """An embedding table shared by a group of slices.

    Attributes:
        name: the group: timeline, engagement, id type, plain or weighted, product type.
        timeline: the timeline of all its slices.
        id_type: what its rows stand for.
        weighted: whether its lookups are weighted.
        slices: positions of its slices in the set.
    """

    name: str
    timeline: TimelineKind
    id_type: IdType
    weighted: bool
    slices: tuple[int, ...]


@dataclass(frozen=True)
class SliceSet:
    """An ordered set of slices and the tables they share."""

    slices: tuple[Slice, ...]

    def __post_init__(self) -> None:
        """Refuse an empty set and names that occur twice."""
        if not self.slices:
            raise ConfigError("The slice configuration declares no slice; add a family to it.")
        names = [one.name for one in self.slices]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"The slice configuration declares {twice[0]} twice; "
                "remove it from one of the families that hold it."
            )

    @classmethod
    def of(cls, config: SliceConfig, manifest: DatasetManifest) -> SliceSet:
        """Expand a configuration for a prepared data set, see ``from_config``.

        Raises:
            ConfigError: as there.
        """
        kinds = EventKinds.of(manifest)
        return cls.from_config(config, manifest.surfaces, manifest.media_types, kinds)

    @classmethod
    def from_config(
        cls,
        config: SliceConfig,
        surfaces: Sequence[str],
        media_types: Sequence[str],
        kinds: EventKinds | None = None,
    ) -> SliceSet:
        """Expand a configuration for a data set.

        The number and order of the slices that are declared do not depend on the data set: slices
        of a surface or media type it lacks are there, and empty. Behind them come those of the
        log's own actions, and of impressions without dwell time where it has such.

        Args:
            config: families of rules.
            surfaces: names of the ``surface`` codes (manifest).
            media_types: names of the ``media_type`` codes (manifest).
            kinds: of events that the data set has; the known action types where None.

        Raises:
            ConfigError: a name, range, exponent, γ or s₀ that cannot be used, or a slice twice.
        """
        expansion = _Expansion(tuple(surfaces), tuple(media_types))
        return cls(tuple(expansion.slices(config, kinds or EventKinds())))

    @property
    def tables(self) -> tuple[SliceTable, ...]:
        """The tables, in order of their first slice."""
        positions: dict[str, list[int]] = {}
        for position, one in enumerate(self.slices):
            positions.setdefault(one.table, []).append(position)
        return tuple(
            SliceTable(
                name,
                self.slices[members[0]].timeline,
                self.slices[members[0]].id_type,
                self.slices[members[0]].weight is not None,
                tuple(members),
            )
            for name, members in positions.items()
        )

    def membership(
        self, timeline: TimelineKind, events: Mapping[str, NDArray], request_time: NDArray
    ) -> NDArray[np.bool_]:
        """Which slices hold which events: the plain reference of cells and pooling.

        Args:
            timeline: the timeline the events are from; slices of the other one hold none.
            events: timeline columns [E].
            request_time: [E] int64, ms, or one moment for all.

        Returns:
            [S, E] bool.
        """
        count = len(events["timestamp"])
        request_time = np.broadcast_to(np.asarray(request_time, np.int64), (count,))
        values: dict[Attribute, NDArray] = {}
        result = np.zeros((len(self.slices), count), np.bool_)
        for position, one in enumerate(self.slices):
            if one.timeline is not timeline:
                continue
            result[position] = True
            for condition in one.conditions:
                attribute = condition.attribute
                if attribute not in values:
                    values[attribute] = attribute_values(attribute, events, request_time)
                result[position] &= condition.holds(values[attribute])
        return result

    def reached(self, timeline: TimelineKind, events: Mapping[str, NDArray]) -> NDArray[np.bool_]:
        """Which events a slice can hold at some moment after them.

        Args:
            timeline: the timeline the events are from.
            events: timeline columns [E].

        Returns:
            [E] bool.
        """
        rules = {
            tuple(c for c in one.conditions if c.attribute.kind is not AttributeKind.AGE)
            for one in self.slices
            if one.timeline is timeline
        }
        now = events["timestamp"]
        reached = np.zeros(len(now), np.bool_)
        for rule in rules:
            held = np.ones(len(now), np.bool_)
            for condition in rule:
                held &= condition.holds(attribute_values(condition.attribute, events, now))
            reached |= held
        return reached

    def slice_counts(
        self,
        explicit: Mapping[str, NDArray],
        implicit: Mapping[str, NDArray],
        request_time: NDArray,
    ) -> NDArray[np.int64]:
        """How many events each slice holds in a jagged sample (``recsys data describe``).

        Args:
            explicit: jagged timeline: ``lengths`` [B] and columns [E].
            implicit: likewise.
            request_time: [B] int64, ms.

        Returns:
            [S] int64, summed over the requests.
        """
        counts = np.zeros(len(self.slices), np.int64)
        for timeline, events in (
            (TimelineKind.EXPLICIT, explicit),
            (TimelineKind.IMPLICIT, implicit),
        ):
            moments = np.repeat(np.asarray(request_time), np.asarray(events["lengths"]))
            counts += self.membership(timeline, events, moments).sum(axis=1)
        return counts


class _Expansion:
    """Crosses rules with sources, id types and windows."""

    def __init__(self, surfaces: tuple[str, ...], media_types: tuple[str, ...]) -> None:
        self.surfaces = surfaces
        self.media_types = media_types

    def slices(self, config: SliceConfig, kinds: EventKinds) -> Iterator[Slice]:
        for family, rules in families_with_rules(config, kinds):
            yield from self._cross(family, rules)

    def _cross(
        self, family: Family | UnsignedFamily, rules: Iterator[SliceRule]
    ) -> Iterator[Slice]:
        ids = [_member(IdType, name, "id type") for name in family.ids]
        sources = list(product(family.media_types, family.surfaces))
        for rule in rules:
            engagement = _member(Engagement, rule.engagement, "engagement")
            for (media_type, surface), id_type, window in product(sources, ids, rule.windows):
                source = "".join(f"@{name}" for name in (media_type, surface) if name != ANY)
                weighting = "plain" if rule.weight is None else "weighted"
                yield Slice(
                    name=f"{rule.timeline}/{rule.name}{source}/{id_type}/{window}",
                    timeline=rule.timeline,
                    id_type=id_type,
                    table=f"{rule.timeline}_{engagement}_{id_type}_{weighting}_{media_type}",
                    conditions=(
                        rule.condition,
                        *self._source_conditions(media_type, surface),
                        _window_condition(window),
                    ),
                    weight=rule.weight,
                )

    def _source_conditions(self, media_type: str, surface: str) -> Iterator[Condition]:
        for kind, name, known in (
            (AttributeKind.MEDIA_TYPE, media_type, self.media_types),
            (AttributeKind.SURFACE, surface, self.surfaces),
        ):
            if name != ANY:
                code = known.index(name) if name in known else -1
                yield CategoryCondition(Attribute(kind), code)


def _window_condition(window: str) -> RangeCondition:
    """Age in (0, T]; the whole history is (0, inf): an event after the request is in no slice."""
    age = Attribute(AttributeKind.AGE)
    if window == ALL:
        return RangeCondition(age, 0, math.inf, open_below=True)
    match = re.fullmatch(r"([1-9]\d*)([dh])", window)
    if match is None:
        raise ConfigError(
            f"Slices have the window {window!r}; a window is a number of days or hours "
            f"(3d, 12h) or {ALL}."
        )
    unit = MILLISECONDS_PER_DAY if match[2] == "d" else MILLISECONDS_PER_HOUR
    return RangeCondition(age, 0, int(match[1]) * unit, open_below=True)


def _member(kind: type[Member], name: str, what: str) -> Member:
    if name not in list(kind):
        raise ConfigError(f"Slices have the {what} {name!r}; it must be one of {', '.join(kind)}.")
    return kind(name)

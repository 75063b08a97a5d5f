"""What each column of a log is taken for, by its name and then by what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from recsys.data.infer.meanings import is_done, is_known_action
from recsys.data.infer.names import (
    ROW_NUMBERS,
    Role,
    is_exact,
    likeness,
    plain,
)
from recsys.data.infer.profile import Kind, Profile

#: At most so many different actions, surfaces or kinds of media a log has.
_MOST_ACTIONS = 64
_MOST_PLACES = 100
#: Different ratings: 0 to 10 in steps of a tenth.
_MOST_RATINGS = 101

#: Seconds that nobody watches or reads at a time by the median: such numbers are milliseconds.
_LONG = 1_800

#: A column says something of an item, or of a user, where so many of them have one value.
_DEPENDS = 0.95


@dataclass(frozen=True)
class Choice:
    """What a role was given to.

    Attributes:
        column: its name; None where there is none.
        why: in words, after "by".
        also: columns that are as likely.
    """

    column: str | None
    why: str
    also: tuple[str, ...] = ()


def roles_of(profiles: Mapping[str, Profile]) -> dict[Role, Choice]:
    """The column of each role that any column has; user and item always, as None where unclear.

    Args:
        profiles: of a log's columns, by their names.
    """
    chosen: dict[Role, Choice] = {}
    for role in Role:
        taken = {choice.column for choice in chosen.values()}
        free = [one for one in profiles.values() if one.name not in taken]
        choice = _by_name(role, free)
        if choice is not None:
            chosen[role] = choice
    for role in (Role.TIMESTAMP, Role.ACTION, Role.USER, Role.ITEM):
        if role not in chosen:
            taken = {choice.column for choice in chosen.values()}
            free = [one for one in profiles.values() if one.name not in taken]
            choice = _by_content(role, free, both=Role.USER not in chosen)
            if choice is not None:
                chosen[role] = choice
    return chosen


#: What columns that say whether something happened hold.
_FLAGS = ({"0", "1"}, {"true", "false"})


def flags_of(profiles: Mapping[str, Profile], roles: Mapping[Role, Choice]) -> list[str]:
    """Columns of 0 and 1 that say what came of an impression, where no column names actions."""
    if Role.ACTION in roles:
        return []
    taken = {choice.column for choice in roles.values()}
    return [
        one.name
        for one in profiles.values()
        if one.name not in taken
        and (one.kind is Kind.FLAG or {value.lower() for value in one.values} in _FLAGS)
        and any(is_done(word) for word in (plain(one.name), *plain(one.name).split("_")))
    ]


def dependents(sample: pl.DataFrame, key: str, columns: Sequence[str]) -> list[str]:
    """Columns of which nearly every value of ``key`` has one value, in rows that have both.

    Args:
        sample: rows of a log.
        key: its column of users or items.
        columns: to look at.
    """
    found = []
    for name in columns:
        pairs = sample.select(pl.col(key).alias("key"), pl.col(name).alias("value")).drop_nulls()
        if pairs.schema["value"].is_nested():
            pairs = pairs.with_columns(pl.col("value").hash())
        each = pairs.group_by("key").agg(pl.len(), pl.col("value").n_unique().alias("values"))
        several = each.filter(pl.col("len") > 1)
        if several.height >= 5 and (several["values"] == 1).mean() >= _DEPENDS:  # type: ignore[operator]
            found.append(name)
    return found


def in_milliseconds(profile: Profile) -> bool:
    """Whether lengths of time are in milliseconds, by the name or since they would be too long."""
    named = {"ms", "msec", "millis", "milliseconds"} & set(plain(profile.name).split("_"))
    return bool(named) or (profile.median or 0) > _LONG


def _by_name(role: Role, free: Sequence[Profile]) -> Choice | None:
    """The column whose name says most that it has a role."""
    scored = sorted(
        ((likeness(one.name, role), one) for one in free if _can_be(role, one)),
        key=lambda pair: -pair[0],
    )
    scored = [(score, one) for score, one in scored if score > 0]
    if not scored:
        return None
    best, profile = scored[0]
    if not is_exact(best) and role not in (Role.USER, Role.ITEM, Role.TIMESTAMP, Role.ACTION):
        return None
    also = tuple(
        one.name
        for score, one in scored[1:]
        if is_exact(score) == is_exact(best) and not _is_session(one)
    )
    why = "its name" if is_exact(best) else "a word in its name"
    if role is Role.USER and _is_session(profile):
        why = "its name; each session counts as a user"
    return Choice(profile.name, why, also)


def _by_content(role: Role, free: Sequence[Profile], both: bool) -> Choice | None:
    """The column whose values are as those of a role, where no name says so."""
    able = [one for one in free if _looks_like(role, one)]
    if not able:
        return None
    if role is Role.TIMESTAMP:
        return Choice(able[0].name, "its values, which are times", _others(able[0], able))
    if role is Role.ACTION:
        return Choice(able[0].name, "its values, such as " + ", ".join(able[0].values[:3]))
    if role is Role.USER and both and len(able) > 1:
        why = "its place: it comes first of the columns with ids that repeat"
        return Choice(able[0].name, why, _others(able[0], able))
    best = max(able, key=lambda one: one.distinct)
    why = "its values: ids that repeat" + (", the most of them" if len(able) > 1 else "")
    return Choice(best.name, why, _others(best, able))


def _others(best: Profile, able: Sequence[Profile]) -> tuple[str, ...]:
    return tuple(one.name for one in able if one.name != best.name)


def _can_be(role: Role, one: Profile) -> bool:
    """Whether a column's values allow a role that its name says it has."""
    if one.kind is Kind.EMPTY:
        return False
    numbers = one.kind in (Kind.WHOLE, Kind.NUMBER)
    if role in (Role.USER, Role.ITEM):
        is_link = role is Role.ITEM and one.kind is Kind.LINK
        return one.is_id or is_link
    if role in (Role.AUTHOR, Role.TOPIC):
        return one.kind in (Kind.WHOLE, Kind.TEXT) and one.is_id and not one.is_constant
    if role is Role.ACTION:
        few = one.is_id and one.distinct <= _MOST_ACTIONS
        vague = plain(one.name) in ("type", "kind", "label", "signal", "verb", "feedback")
        return few and (not vague or any(map(is_known_action, one.values)))
    if role in (Role.TIMESTAMP, Role.REQUEST_TIME):
        return one.kind is Kind.TIME
    if role is Role.RATING:
        return numbers and one.distinct <= _MOST_RATINGS and not _says_how_many(one)
    if role in (Role.DWELL_TIME, Role.VIDEO_DURATION):
        return numbers
    return one.is_id and one.distinct <= _MOST_PLACES and not one.is_constant


def _looks_like(role: Role, one: Profile) -> bool:
    """Whether a column's values alone say that it may have a role."""
    if role is Role.TIMESTAMP:
        return one.kind is Kind.TIME
    if role is Role.ACTION:
        known = sum(map(is_known_action, one.values))
        return one.kind is Kind.TEXT and one.distinct <= _MOST_ACTIONS and 2 * known >= one.distinct
    numbered = one.is_row_number or (plain(one.name) in ROW_NUMBERS and one.distinct_share > 0.99)
    repeats = one.distinct_share < 0.9 or one.known < 100
    return one.is_id and not numbered and repeats and one.distinct > min(20, 0.1 * one.known)


def _is_session(one: Profile) -> bool:
    return "session" in plain(one.name)


def _says_how_many(one: Profile) -> bool:
    return bool({"count", "num", "number"} & set(plain(one.name).split("_")))


def unread(profiles: Mapping[str, Profile]) -> Iterator[tuple[str, str]]:
    """Every column and why nothing is read from it, should that be so.

    Args:
        profiles: of a log's columns.
    """
    for one in profiles.values():
        if one.kind is Kind.EMPTY:
            yield one.name, "empty"
        elif one.is_constant:
            yield one.name, "the same in all rows"
        elif one.is_row_number:
            yield one.name, "numbers the rows"
        else:
            yield one.name, f"{one.kind}, {one.distinct:,} different"

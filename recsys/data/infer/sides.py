"""What is known of items and of users: in tables of their own, or in the rows of the log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recsys.data.infer.look import LogLook
from recsys.data.infer.names import Role
from recsys.data.infer.profile import Profile, profiles_of, sample_of, with_commas
from recsys.data.infer.roles import dependents
from recsys.data.infer.sayable import sayable_parts
from recsys.data.infer.tables import Match, TableColumn, columns_of, matched, topics_of


@dataclass(frozen=True)
class Side:
    """What is known of items or of users.

    Attributes:
        path: of their table; None where the log has the columns.
        match: its column of ids, and how they are the log's; None likewise, or where none is.
        columns: what the other columns are taken for.
        topics: columns that could be the topic of items that have none.
        with_commas: columns of numbers with decimal commas, each with a value.
    """

    path: Path | None
    match: Match | None
    columns: list[TableColumn]
    topics: tuple[str, ...] = ()
    with_commas: tuple[tuple[str, str], ...] = ()


def side_of(log: LogLook, path: Path | None, role: Role) -> Side | None:
    """What is known of items or users; None where nothing is.

    Args:
        log: the log.
        path: their table; None to look at the rows of the log.
        role: ``item_id`` or ``user_id``.

    Raises:
        DataError: the table is missing or damaged.
    """
    return _of_log(log, role) if path is None else _of_table(log, path, role)


def _of_log(log: LogLook, role: Role) -> Side | None:
    key, item = log.column(role), log.column(Role.ITEM)
    if key is None:
        return None
    free = [name for name in log.profiles if name not in (*log.columns_with_roles(), *log.flags)]
    names = dependents(log.sample, key, free)
    if role is Role.USER and item is not None:  # a user who sees one item only has what it has
        of_items = dependents(log.sample, item, names)
        names = [name for name in names if name not in of_items]
    if not names:
        return None
    first = log.sample.unique(key, keep="first", maintain_order=True).select(names)
    profiles = list(profiles_of(first).values())
    columns = columns_of(profiles, role is Role.ITEM, _taken(log))
    if not any(one.key for one in columns):
        return None
    return Side(None, None, columns, _topics(log, role, profiles, columns))


def _of_table(log: LogLook, path: Path, role: Role) -> Side:
    setting = "items" if role is Role.ITEM else "users"
    parts, unsayable = sayable_parts(path, setting)
    left_out = [TableColumn(name, None, why) for name, why in unsayable]
    sample = sample_of(parts)
    ids = log.survey.items if role is Role.ITEM else log.survey.users
    match = matched(parts, profiles_of(sample, parts), ids, role)
    if match is None:
        return Side(path, None, left_out)
    rows = sample.unique(match.column, keep="first", maintain_order=True).drop(match.column)
    profiles = list(profiles_of(rows, parts).values())
    columns = columns_of(profiles, role is Role.ITEM, _taken(log))
    topics = _topics(log, role, profiles, columns)
    return Side(path, match, [*columns, *left_out], topics, with_commas(profiles))


def _topics(
    log: LogLook, role: Role, profiles: list[Profile], columns: list[TableColumn]
) -> tuple[str, ...]:
    """Columns that could be the topic of items, where neither their table nor the log has one."""
    return () if role is Role.USER or "topic" in _taken(log) else topics_of(profiles, columns)


def _taken(log: LogLook) -> list[str]:
    """Keys of a table of items that the log's own columns give."""
    given = (("author", Role.AUTHOR), ("topic", Role.TOPIC))
    return [key for key, role in given if log.column(role) is not None]

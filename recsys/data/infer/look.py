"""A log that has been looked at: its columns by a sample, and who, what and when by every row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.actions import ActionNames
from recsys.data.contract.log_parts import LogPart
from recsys.data.infer.meanings import NEGATIVE, Meaning, first_of, meanings_of
from recsys.data.infer.names import Role
from recsys.data.infer.profile import profiles_of, sample_of
from recsys.data.infer.roles import flags_of, roles_of
from recsys.data.infer.sayable import is_sayable_action, sayable_parts
from recsys.data.infer.survey import Columns, Survey, survey

#: Names of actions that a draft lists.
_MOST_ACTIONS = 64


class LogLook:
    """A log and what it seems to consist of.

    Args:
        path: its file or folder.

    Attributes:
        path: likewise.
        sample: some of its rows.
        unsayable: columns that no description can name, and why; they are not looked at.
        lacking: per column that some of its files lack, how many do, and how many files there are.
        profiles: of its columns, in the sample.
        roles: what the columns are taken for.
        flags: columns that say with 0 and 1 what came of an impression.
        survey: of all rows.
        meanings: of its actions, the commonest first.

    Raises:
        DataError: a file is missing or damaged, or there is no row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        parts, self.unsayable = sayable_parts(path)
        self.sample = sample_of(parts)
        if self.sample.is_empty():
            raise DataError(f"{path} holds no rows; give a log with at least one event.")
        self.lacking = _lacking(parts)
        self.profiles = profiles_of(self.sample, parts)
        self.roles = roles_of(self.profiles)
        self.flags = flags_of(self.profiles, self.roles)
        self.survey: Survey = survey(parts, self._read_whole())
        self.meanings = self._meanings()

    def column(self, role: Role) -> str | None:
        """The column of a role."""
        return self.roles[role].column if role in self.roles else None

    @property
    def blank_actions(self) -> int:
        """Rows whose action is there and says nothing."""
        counted = self.survey.actions.items()
        return sum(rows for name, rows in counted if name is not None and not name.strip())

    @property
    def is_of_ratings(self) -> bool:
        """Whether its rows are ratings."""
        return Role.RATING in self.roles and Role.ACTION not in self.roles

    @property
    def unit(self) -> str | None:
        """Of its times; None where there are none, or datetimes."""
        column = self.column(Role.TIMESTAMP)
        return None if column is None else self.profiles[column].unit

    @property
    def has_times(self) -> bool:
        """Whether it has times that differ."""
        return self.survey.first is not None and self.survey.first != self.survey.last

    @property
    def unsayable_actions(self) -> dict[str, int]:
        """Rows by the names of actions that no description can hold, but blank ones."""
        counted = self.survey.actions.items()
        return {n: rows for n, rows in counted if n and n.strip() and not is_sayable_action(n)}

    def columns_with_roles(self) -> set[str]:
        """Columns that are taken for something."""
        return {choice.column for choice in self.roles.values() if choice.column is not None}

    def _read_whole(self) -> Columns:
        user, item, time, action = (
            self.column(role) for role in (Role.USER, Role.ITEM, Role.TIMESTAMP, Role.ACTION)
        )
        return Columns(user, item, time, self.unit or "ms", action, tuple(self.flags))

    def _meanings(self) -> list[Meaning]:
        counted = self.survey.actions
        names = {name: rows for name, rows in counted.items() if name and is_sayable_action(name)}
        if not names:
            return []
        commonest = sorted(names, key=lambda name: -names[name])[:_MOST_ACTIONS]
        found = meanings_of({name: names[name] for name in commonest}, self._first_action())
        return [_nameable(one) for one in found]

    def _first_action(self) -> str | None:
        user, item, time, action = (
            self.column(role) for role in (Role.USER, Role.ITEM, Role.TIMESTAMP, Role.ACTION)
        )
        if user is None or item is None or action is None:
            return None
        rows = self.sample.sort(time, maintain_order=True) if time is not None else self.sample
        named = {"user": user, "item": item, "action": action}
        return first_of(
            rows.select(pl.col(one).cast(pl.String).alias(n) for n, one in named.items())
        )


def _nameable(one: Meaning) -> Meaning:
    """A meaning that a description can say: some names cannot be those of own actions."""
    try:
        ActionNames({one.name: one.meaning})
    except ConfigError:
        known = "hide" if one.meaning == NEGATIVE else "click"
        return Meaning(one.name, one.rows, known, f"{one.why}; {one.meaning}, under a known name")
    return one


def _lacking(parts: Sequence[LogPart]) -> dict[str, tuple[int, int]]:
    names = dict.fromkeys(name for part in parts for name in part.types)
    having = {name: sum(name in part.types for part in parts) for name in names}
    num = len(parts)
    return {name: (num - count, num) for name, count in having.items() if count < num}

"""What a description is to say, from what was seen of the files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import LOG_SCHEMA, Column
from recsys.data.infer.findings import (
    odd_actions,
    odd_files,
    odd_ids,
    odd_lengths,
    odd_names,
    odd_numbers,
    odd_tables,
    odd_times,
    quantiles,
)
from recsys.data.infer.look import LogLook
from recsys.data.infer.names import Role, likeness
from recsys.data.infer.profile import with_commas
from recsys.data.infer.roles import Choice, in_milliseconds, unread
from recsys.data.infer.sides import Side
from recsys.data.infer.splits import Splitting, suggested

#: Columns of the contract, which the log may have under the same name.
CONTRACT = (*LOG_SCHEMA, Column.REQUEST_TIME)

_LENGTHS = (Role.DWELL_TIME, Role.VIDEO_DURATION)
_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "iso": "texts as in ISO 8601",
}


@dataclass(frozen=True)
class Draft:
    """A description to be.

    Attributes:
        name: of the data set.
        log: what was seen of the log.
        items: likewise of items; None for nothing.
        users: likewise of users.
    """

    name: str
    log: LogLook
    items: Side | None
    users: Side | None

    @cached_property
    def columns(self) -> dict[str, Choice]:
        """Column of the contract to the log's, with the reason; a None stands for none.

        Users and items are always among them, times too: None of these is to be filled in, or
        says that the order of the rows is all there is.
        """
        found: dict[str, Choice] = {}
        for name in CONTRACT:
            role = Role(name)
            if role in _LENGTHS and self._is_in_milliseconds(role):
                if name in self.log.profiles:
                    found[name] = Choice(None, "not read: it seems to be in milliseconds")
            elif role in self.log.roles:
                found[name] = self.log.roles[role]
            elif name in (Column.USER, Column.ITEM):
                found[name] = Choice(None, "no column seems to hold it: fill in its name")
            elif name == Column.TIMESTAMP:
                found[name] = Choice(None, self._why_no_times())
            elif name in self.log.profiles:
                found[name] = Choice(None, f"not read: {self.log.profiles[name].kind}")
        return found

    @cached_property
    def left_out(self) -> list[tuple[str, str]]:
        """Columns of the log that nothing is read from, and why."""
        of_sides = [
            one.column
            for side in (self.items, self.users)
            if side is not None and side.path is None
            for one in side.columns
            if one.key is not None
        ]
        taken = {choice.column for choice in self.columns.values()}
        taken |= {*of_sides, *self.log.flags}
        unused = [
            (name, why)
            for name, why in unread(self.log.profiles)
            if name not in taken and name not in self.columns
        ]
        return [*unused, *self.log.unsayable]

    @cached_property
    def time_unit(self) -> tuple[str, str] | None:
        """The unit of times and a comment; None where none is needed."""
        if self.log.unit is None:
            return None
        seen = self.log.survey
        if seen.first is None or seen.last is None:
            return self.log.unit, _UNITS[self.log.unit]
        first, last = (to_text(one)[:16].replace("T", " ") for one in (seen.first, seen.last))
        covered = f"{first} to {last} UTC"
        since = "" if self.log.unit == "iso" else " since 1970"
        return self.log.unit, f"{_UNITS[self.log.unit]}{since}: {covered}"

    @cached_property
    def needs_zone(self) -> bool:
        """Whether times may name no zone."""
        column = self.log.column(Role.TIMESTAMP)
        return column is not None and self.log.profiles[column].unit in (None, "iso")

    @cached_property
    def default_action(self) -> tuple[str, str] | None:
        """The action of rows that name none and a comment; None where every row names one."""
        rating = self.log.column(Role.RATING)
        if Role.ACTION in self.log.roles:
            unnamed = self.log.survey.actions[None]
            if not unnamed:
                return None
            return "impression", f"of the {unnamed:,} rows that name none"
        if rating is not None:
            one = self.log.profiles[rating]
            return "click", (
                f"a log of ratings: each row counts as positive, whatever {rating} says "
                f"({_number(one.least)} to {_number(one.most)}); leave low ones out of the file if "
                "they should not"
            )
        if self.log.flags:
            return "impression", "each row shows an item, and flags say what came of it"
        if Role.DWELL_TIME in self.columns:
            return "click", "no column names actions; impression: to predict the dwell time"
        return "click", "no column names actions; impression: an item was shown"

    @cached_property
    def splitting(self) -> Splitting:
        """The split."""
        seen = self.log.survey
        return suggested(
            seen.days, seen.future, self.log.has_times, self.log.is_of_ratings, seen.first
        )

    @cached_property
    def open(self) -> list[str]:
        """Keys that only the owner of the log can fill in."""
        found = [
            f"options.columns.{name}"
            for name in (Column.USER, Column.ITEM)
            if self.columns[name].column is None
        ]
        for key, side in (("items", self.items), ("users", self.users)):
            if side is not None and side.path is not None and side.match is None:
                found.append(f"options.{key}.id")
        return found

    @cached_property
    def summary(self) -> str:
        """The log in a line."""
        seen = self.log.survey
        parts = [f"{seen.rows:,} rows"]
        if self.log.column(Role.USER) is not None:
            parts.append(f"{seen.users.distinct:,} users")
        if self.log.column(Role.ITEM) is not None:
            parts.append(f"{seen.items.distinct:,} items")
        if seen.first is not None and seen.last is not None:
            parts.append(f"{to_text(seen.first)[:10]} to {to_text(seen.last)[:10]}")
        return f"{self.log.path.name}: {', '.join(parts)}"

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values of what was counted."""
        seen = self.log.survey
        share = seen.usable / seen.rows
        found = [("rows", f"{seen.rows:,}"), ("usable", f"{seen.usable:,} ({share:.1%})")]
        for role, ids, kind in (
            (Role.USER, seen.users, seen.user_type),
            (Role.ITEM, seen.items, seen.item_type),
        ):
            if self.log.column(role) is not None:
                about = "about " * (ids.share < 1)
                written = "text" if kind.dtype == pl.String() else "whole numbers"
                word = "users" if role is Role.USER else "items"
                found.append((word, f"{about}{ids.distinct:,}; ids are {written}"))
        if self.log.column(Role.USER) is not None and len(seen.users.counts):
            found.append(("events per user", quantiles(seen.users.counts)))
        if seen.first is not None and seen.last is not None:
            days = f"{len(seen.days):,} days with events"
            found.append(("times", f"{to_text(seen.first)} to {to_text(seen.last)}; {days}"))
            order = "in the order of time" if seen.in_order else "not in the order of time"
            found.append(("order of the rows", order))
        return found

    @cached_property
    def odd(self) -> list[str]:
        """What is odd, in sentences."""
        log = self.log
        return [
            *odd_files(log.lacking, [one.column for one in self.columns.values() if one.column]),
            *odd_ids(log.survey, log.column(Role.USER), log.column(Role.ITEM), log.profiles),
            *odd_times(log.survey, log.column(Role.TIMESTAMP)),
            *odd_actions(
                log.meanings,
                log.survey.actions[None],
                log.blank_actions,
                log.survey.rows if log.flags else 0,
            ),
            *odd_numbers(log.path.name, with_commas(log.profiles.values())),
            *odd_names(log.unsayable, log.unsayable_actions),
            *odd_lengths(
                log.roles[role].column
                for role in _LENGTHS
                if role in log.roles and self._is_in_milliseconds(role)
            ),
            *odd_tables("items", self.items),
            *odd_tables("users", self.users),
        ]

    def _why_no_times(self) -> str:
        named = [
            f"{one.name} holds {one.kind}, such as {', '.join(one.values[:2])}"
            for one in self.log.profiles.values()
            if likeness(one.name, Role.TIMESTAMP) and one.values
        ]
        return f"no times ({'; '.join(named) or 'no column'}): events are in the order of the rows"

    def _is_in_milliseconds(self, role: Role) -> bool:
        column = self.log.column(role)
        return column is not None and in_milliseconds(self.log.profiles[column])


def _number(number: float | None) -> str:
    return "?" if number is None else f"{number:g}"

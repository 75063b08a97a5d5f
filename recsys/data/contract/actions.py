"""What a user did: the action types of a data set, and what the names in a log mean.

A data set has the known action types, each at its place in ``ACTION_TYPES``, and behind them those
of the log's own, in the order they were declared in. A timeline stores positions in that list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import polars as pl

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION, NEGATIVE_ACTION_TYPES

POSITIVE = "positive"
NEGATIVE = "negative"
IGNORE = "ignore"
#: What a name of the log may mean beside a known action type.
MEANINGS = (POSITIVE, NEGATIVE, IGNORE)

#: How the reason of a row begins that the user asked to leave out.
IGNORED = "ignored action: "
UNKNOWN_ACTION = "action_type is unknown"

#: Unknown names that are counted each by itself, and those that a sentence names.
_MOST_COUNTED = 1_000
_MOST_NAMED = 10

_MOST_NAMES = 127  # codes are int8
_OWN_NAME = re.compile(r"\w[\w .:+-]{0,63}")
_RESERVED = ("watch_time", "unknown", *MEANINGS)


@dataclass(frozen=True)
class ActionTypes:
    """The action types of a data set.

    Attributes:
        names: ``ACTION_TYPES``, then own ones; an event's code is the place of its name.
        negative: those that say "less of this".
    """

    names: tuple[str, ...] = ACTION_TYPES
    negative: frozenset[str] = NEGATIVE_ACTION_TYPES

    @property
    def own(self) -> tuple[str, ...]:
        """Those that the log brought along."""
        return tuple(name for name in self.names if name not in ACTION_TYPES)

    @property
    def explicit(self) -> tuple[str, ...]:
        """Everything but impressions."""
        return tuple(name for name in self.names if name != IMPRESSION)

    @property
    def positive(self) -> tuple[str, ...]:
        """Explicit ones that do not say "less of this"."""
        return tuple(name for name in self.explicit if name not in self.negative)

    def codes(self, names: Iterable[str]) -> list[int]:
        """The places of some names, ascending."""
        return sorted(self.names.index(name) for name in set(names))

    def extended(self, other: ActionTypes) -> Self:
        """These, and behind them those of ``other`` that are new.

        Raises:
            ConfigError: one is positive here and negative there, or there are too many.
        """
        for name in other.own:
            if name in self.own and (name in self.negative) != (name in other.negative):
                before, now = _sign(name in self.negative), _sign(name in other.negative)
                raise ConfigError(
                    f"options.actions.{name} is {now}, but the data set was prepared with {before}"
                    "; keep what it was, or prepare the whole log again with overwrite=true."
                )
        new = [name for name in other.own if name not in self.names]
        return type(self)(_checked((*self.names, *new)), self.negative | other.negative)


@dataclass(frozen=True)
class ActionNames:
    """What the names in a log's ``action_type`` mean.

    A known action type that is not listed means itself; any other name is unknown.

    Attributes:
        meanings: name in the log to a known action type, or to one of ``MEANINGS``.
        default: the name of a row that has none.
    """

    meanings: Mapping[str, str]
    default: str | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigError: a meaning that there is not, a known action type with the other sign, a
                name of an own action that cannot be one, or a default that is unknown.
        """
        for name, meaning in self.meanings.items():
            if meaning not in (*ACTION_TYPES, *MEANINGS):
                raise ConfigError(_no_meaning(name, meaning))
            if meaning in (POSITIVE, NEGATIVE):
                _refuse_own_name(name, meaning)
        if self.default is not None and self._meaning(self.default) is None:
            raise ConfigError(
                f"default_action={self.default} is no known action type "
                f"({', '.join(ACTION_TYPES)}) and not among options.actions; say there what it "
                f"means, for example options.actions.{self.default}=positive."
            )

    @property
    def types(self) -> ActionTypes:
        """The action types that events can have, own ones in the order they are listed in."""
        own = [name for name in self.meanings if self._meaning(name) == name]
        own = [name for name in own if name not in ACTION_TYPES]
        negative = [name for name in own if self.meanings[name] == NEGATIVE]
        return ActionTypes(_checked((*ACTION_TYPES, *own)), NEGATIVE_ACTION_TYPES.union(negative))

    @property
    def default_type(self) -> str | None:
        """The action type of a row without a name; None where such rows are ignored."""
        meaning = IMPRESSION if self.default is None else self._meaning(self.default)
        return None if meaning == IGNORE else meaning

    def apply(self, column: str) -> tuple[pl.Expr, pl.Expr]:
        """The action type of each row, and where it is to be ignored the reason, else null.

        Args:
            column: of names in the log; unknown ones stay as they are.
        """
        named = pl.col(column).fill_null(self.default or IMPRESSION)
        known = {name: self._meaning(name) for name in self.meanings}
        ignored = [name for name, meaning in known.items() if meaning == IGNORE]
        renamed = {name: meaning for name, meaning in known.items() if meaning != IGNORE}
        reason = pl.when(named.is_in(ignored)).then(pl.lit(IGNORED) + named)
        return named.replace(renamed), reason

    def _meaning(self, name: str) -> str | None:
        """The action type of a name, ``ignore``, or None where the name is unknown."""
        meaning = self.meanings.get(name, name if name in ACTION_TYPES else None)
        return name if meaning in (POSITIVE, NEGATIVE) else meaning


def add_unknown(counted: Counter[str], names: pl.Series) -> None:
    """Count names of actions that mean nothing; at most a thousand different ones are kept.

    Args:
        counted: rows by name, to be added to.
        names: of the rows.
    """
    merge_unknown(counted, dict(names.value_counts(sort=True).iter_rows()))


def merge_unknown(counted: Counter[str], others: Mapping[str, int]) -> None:
    """Count what was counted elsewhere too, likewise."""
    for name, count in others.items():
        if name in counted or len(counted) < _MOST_COUNTED:
            counted[name] += count


def commonest_first(counted: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, the largest first, of equal ones in the order of the names."""
    return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0])))


def unknown_text(counted: Mapping[str, int]) -> str:
    """A sentence that names unknown actions, the commonest first, and says what to do.

    Args:
        counted: rows by name; at least one.
    """
    common = Counter(counted).most_common()
    named = ", ".join(f"{name} ({count:,})" for name, count in common[:_MOST_NAMED])
    more = len(common) - _MOST_NAMED
    further = f" and {more:,}{' or more' * (len(common) >= _MOST_COUNTED)} more" * (more > 0)
    return (
        f"Unknown names of actions: {named}{further}. Say what each means: "
        f"options.actions.{common[0][0]}=<one of {', '.join((*ACTION_TYPES, *MEANINGS))}>."
    )


def _sign(negative: bool) -> str:
    return NEGATIVE if negative else POSITIVE


def _no_meaning(name: str, meaning: object) -> str:
    hint = ""
    if name in ACTION_TYPES:
        hint = f" The name in the log comes first: did you mean options.actions.{meaning}={name}?"
    return (
        f"options.actions.{name}={meaning}: {meaning} is no known action type "
        f"({', '.join(ACTION_TYPES)}) and none of {', '.join(MEANINGS)}, which make {name} an "
        f"action of its own or leave its rows out.{hint}"
    )


def _refuse_own_name(name: str, meaning: str) -> None:
    if name in ACTION_TYPES:
        if name == IMPRESSION or (name in NEGATIVE_ACTION_TYPES) != (meaning == NEGATIVE):
            raise ConfigError(
                f"options.actions.{name}={meaning}: {name} is a known action type and not "
                f"{meaning}; map it to another one, or leave it out to let it mean itself."
            )
    elif name in _RESERVED or not _OWN_NAME.fullmatch(name):
        raise ConfigError(
            f"options.actions: {name!r} cannot be the name of an action of your own, which is a "
            "letter, digit or _ and at most 63 more of these, blanks and . : + -, and none of "
            f"{', '.join(_RESERVED)}; map it to a known action type "
            f"({', '.join(ACTION_TYPES[1:])}), or give it another name in the log."
        )


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > _MOST_NAMES:
        raise ConfigError(
            f"options.actions declares {len(names) - len(ACTION_TYPES)} actions of your own, at "
            f"most {_MOST_NAMES - len(ACTION_TYPES)} can be; let several names mean one known "
            "action type."
        )
    return names

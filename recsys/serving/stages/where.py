"""Leaving out items by what is known of them: ``category=shoes and price<50``.

Legend: S slots of the index.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.core.errors import ConfigError
from recsys.index.catalogue import SLOT, Catalogue
from recsys.index.usable_items import POST_ID
from recsys.serving.item_facts import ItemFacts
from recsys.serving.pipeline import Restriction, StepUsers

_CONDITION = re.compile(r"\s*(?P<name>[^=<>!]+?)\s*(?P<sign><=|>=|!=|=|<|>)\s*(?P<value>.*?)\s*")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

#: Values that a sentence names, and the commonest ones among which the nearest is looked for.
_VALUES_SHOWN, _LOOKED_THROUGH = 5, 10_000


@dataclass(frozen=True)
class Condition:
    """What a column must be.

    Attributes:
        name: of the column.
        sign: ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        values: one of them; of order signs one alone.
    """

    name: str
    sign: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.name}{self.sign}{'|'.join(self.values)}"


def parse_where(text: str) -> list[Condition]:
    """The conditions of ``category=shoes|boots and price<50``, all of which must hold.

    Raises:
        ConfigError: one is none.
    """
    conditions = []
    for part in _AND.split(text):
        found = _CONDITION.fullmatch(part)
        values = tuple(one.strip() for one in found["value"].split("|")) if found else ()
        if found is None or not all(values):
            raise ConfigError(
                f"where={text}: {part!r} is no condition; write `column=value`, `column!=value` or "
                "`column<number` (also <=, >, >=), alternatives as `column=a|b`, and several "
                "conditions with ` and ` between them."
            )
        conditions.append(Condition(found["name"], found["sign"], values))
    return conditions


class WhereItems:
    """Leaves out items of which a condition does not hold, or is not known to hold.

    Args:
        conditions: all of them must hold.
        facts: of the items.
        index: whose items are left out.

    Raises:
        ConfigError: there is no such column, it has values of another kind, or no item fulfils a
            condition, or all of them.
    """

    name = "where"

    def __init__(self, conditions: list[Condition], facts: ItemFacts, index: Catalogue) -> None:
        ids = index.items[POST_ID]
        holds = np.ones(len(ids), np.bool_)
        for one in conditions:
            column = facts.column(one.name, ids)
            fulfilled = _holds(one, column).fill_null(False).to_numpy()
            if not fulfilled.any():
                raise _unfulfilled(one, column)
            holds &= fulfilled
        if not holds.any():
            raise ConfigError(
                f"where={' and '.join(map(str, conditions))}: there are items for each of the "
                "conditions, but none for all of them; leave one out."
            )
        self.items = int(holds.sum())
        self._eligible = np.zeros(index.slots_given, np.bool_)
        self._eligible[index.items[SLOT].to_numpy()[holds]] = True

    def restrict(self, users: StepUsers) -> Restriction:
        """The slots [S] of items of which all is true, for all users alike."""
        return Restriction(self._eligible)


def _holds(condition: Condition, column: pl.Series) -> pl.Series:
    """Whether it holds [n]; null where the value is unknown."""
    is_number, is_list = column.dtype.is_numeric(), isinstance(column.dtype, pl.List)
    if condition.sign in _ORDER:
        if not is_number:
            raise _misfit(condition, column, "has no order; it is compared by = and !=")
        if len(condition.values) > 1:
            raise _misfit(condition, column, "is compared with one number by this sign")
        limit = _numbers(condition, column)[0]
        return _ORDER[condition.sign](column.cast(pl.Float64), limit)  # type: ignore[no-any-return]
    if is_number:
        same = column.cast(pl.Float64).is_in(_numbers(condition, column))
    elif is_list:
        texts = column.cast(pl.List(pl.String)).to_frame("values")
        wanted = list(condition.values)
        any_of = pl.col("values").list.eval(pl.element().is_in(wanted)).list.any()
        same = texts.select(any_of).to_series()
    else:
        same = column.cast(pl.String).is_in(list(condition.values))
    return ~same if condition.sign == "!=" else same


def _numbers(condition: Condition, column: pl.Series) -> list[float]:
    try:
        numbers = [float(value) for value in condition.values]
    except ValueError:
        numbers = [math.nan]
    if any(map(math.isnan, numbers)):
        raise _misfit(condition, column, "holds numbers; compare it with one")
    return numbers


def _misfit(condition: Condition, column: pl.Series, problem: str) -> ConfigError:
    return ConfigError(
        f"where={condition}: the column {condition.name} ({column.dtype}) {problem}."
    )


def _unfulfilled(condition: Condition, column: pl.Series) -> ConfigError:
    """No item is so: what is known of the column, and the value that may be meant."""
    known = column.drop_nulls()
    known = known.explode().drop_nulls() if isinstance(known.dtype, pl.List) else known
    if known.dtype.is_float():
        known = known.drop_nans()
    if known.is_empty():
        there_is = f"no item has a value of {condition.name}"
    elif known.dtype.is_numeric():
        there_is = f"the values of {condition.name} are from {known.min()!s} to {known.max()!s}"
    else:
        there_is = _nearest_value(condition, known.cast(pl.String))
    return ConfigError(f"where={condition}: no item is so; {there_is}.")


def _nearest_value(condition: Condition, known: pl.Series) -> str:
    values = known.value_counts(sort=True)[known.name].head(_LOOKED_THROUGH).to_list()
    folded = {value.casefold(): value for value in reversed(values)}
    for asked in condition.values:
        if near := difflib.get_close_matches(asked.casefold(), folded, n=1):
            return f"the nearest is {condition.name}={folded[near[0]]}"
    more = ", …" * (known.n_unique() > _VALUES_SHOWN)
    return f"values of {condition.name} are {', '.join(values[:_VALUES_SHOWN])}{more}"

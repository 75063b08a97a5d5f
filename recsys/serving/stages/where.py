"""Leaving out items by what is known of them: ``category=shoes and price<50``.

Legend: S slots of the index.
"""

from __future__ import annotations

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
_AND = re.compile(r"\s+and\s+")
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


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
        ConfigError: there is no such column, or it has values of another kind.
    """

    name = "where"

    def __init__(self, conditions: list[Condition], facts: ItemFacts, index: Catalogue) -> None:
        ids = index.items[POST_ID]
        holds = np.ones(len(ids), np.bool_)
        for one in conditions:
            holds &= _holds(one, facts.column(one.name, ids)).fill_null(False).to_numpy()
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
        return [float(value) for value in condition.values]
    except ValueError:
        raise _misfit(condition, column, "holds numbers; compare it with one") from None


def _misfit(condition: Condition, column: pl.Series, problem: str) -> ConfigError:
    value = "|".join(condition.values)
    return ConfigError(
        f"where={condition.name}{condition.sign}{value}: the column {condition.name} "
        f"({column.dtype}) {problem}."
    )

"""The columns of a table that a description can name; the others are looked at by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from recsys.core.location import located
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS, column_names
from recsys.data.contract.log_parts import LogPart, log_parts
from recsys.data.contract.table_snapshots import TableSnapshot, with_snapshot

#: What stands for what only the owner of the log knows, and what is refused in any text.
OPEN, _INTERPOLATION = "???", "${"


def is_sayable(name: str) -> bool:
    """Whether a description can hold a name.

    >>> [is_sayable(name) for name in ("a b", " ", "???", "${x}")]
    [True, False, False, False]
    """
    return is_sayable_action(name) and name != OPEN


def is_sayable_action(name: str) -> bool:
    """Whether a description can hold the name of an action, which stands before the colon.

    >>> [is_sayable_action(name) for name in ("a b", " ", "???", "${x}")]
    [True, False, True, False]
    """
    return bool(name.strip()) and _INTERPOLATION not in name


def sayable_parts(path: Path, setting: str = "path") -> tuple[list[LogPart], list[tuple[str, str]]]:
    """The parts of a table with the columns that can be named, and the others and why not.

    Args:
        path: a file or folder.
        setting: the key that names it.

    Raises:
        DataError: a file is missing or damaged.
    """
    data = with_snapshot(path)
    parts = log_parts(data, DEFAULT_CHUNK_ROWS, setting)
    is_table = isinstance(data, TableSnapshot)
    odd = dict(
        pair
        for part in parts
        for pair in _unsayable(list(part.types) if is_table else column_names(located(part.where)))
    )
    kept = [
        replace(part, types={name: kind for name, kind in part.types.items() if name not in odd})
        for part in parts
    ]
    return kept, list(odd.items())


def _unsayable(names: list[str]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(names):
        if not is_sayable(name):
            yield name, "a name that no description can hold"
        elif names.count(name) > 1:
            yield name, f"{names.count(name)} columns have this name"

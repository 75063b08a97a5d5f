"""Items that are announced after a data set was prepared, by raw id, beside its live events.

Legend: n items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.ids import as_ids
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live.items import ITEM, GrownDataset
from recsys.data.stores.live.journal import AwayError, Journal, Pages
from recsys.data.stores.live.rows import LATER
from recsys.data.stores.vocabulary import FIRST_SEEN, RAW, UNKNOWN_INDEX

#: Why an item is set aside.
KNOWN, NO_ID = "item is known already", "item is no id of the log, whose ids are whole numbers"


#: What features can hold.
_LARGEST = float(np.finfo(np.float32).max)


class AnnouncedItems:
    """The items of a journal by what was stated of them last; an item keeps its number for good.

    The journal has every statement in its order. What is stated is kept as it was given, with raw
    ids of authors and topics, and encoded by the generation of the data set that is opened with
    it. A statement that does not say since when the item is there withdraws it. Several threads
    may use one.

    Args:
        journal: where they are written down.

    Attributes:
        withdrawn: raw ids of the items that nobody is to be shown, as text; another object
            whenever these are others.
        stated: how many statements say what an item is.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = RLock()
        self._read_until = 0
        self._rows: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}
        self.withdrawn: frozenset[str] = frozenset()
        self.stated = 0
        self.refresh()

    def refresh(self) -> None:
        """Take in what others have announced or withdrawn, where the journal can be reached."""
        with self._lock, suppress(AwayError), self._journal.reading() as pages:
            self._read(pages)

    def names(self, ids: Sequence[int | str]) -> NDArray[np.int64]:
        """[n] as which items of these raw ids are noted; 0 for those that nobody announced."""
        if any(str(one) not in self._numbers for one in ids):
            self.refresh()
        found = [self._numbers.get(str(one)) for one in ids]
        return np.array([UNKNOWN_INDEX if one is None else LATER + one for one in found], np.int64)

    def behind(self, dataset: PreparedDataset) -> tuple[PreparedDataset, int]:
        """A generation of the data set, and what was announced until now behind it, if anything.

        Returns:
            It, and how many statements it knows.
        """
        with self._lock:
            rows, stated = list(self._rows), self.stated
        if not rows:
            return dataset, stated
        alone = GrownDataset(dataset.path, dataset.manifest)
        schema = {Column.ITEM.value: pl.String(), FIRST_SEEN: pl.Int64(), **alone.stated}
        frame = pl.DataFrame(rows, schema)
        ids = as_ids(frame[Column.ITEM], alone.vocabulary(ITEM).table.schema[RAW])
        items = frame.with_columns(ids)
        return GrownDataset(dataset.path, dataset.manifest, items=items), stated

    def announce(
        self, dataset: GrownDataset, items: Sequence[Mapping[str, Any]], now: int
    ) -> tuple[int, Counter[str]]:
        """Take in items; on the disk, and known to all that have the journal open, on return.

        One that was announced before is from now on what is stated of it now, and one that was
        withdrawn is there again; of items that the data set has itself only the latter is so.

        Args:
            dataset: behind which they come.
            items: ``item_id``, and any of ``first_seen`` (ms) and what is ``stated`` of the data
                set's items; an author or topic that it does not know is unknown until days are
                appended.
            now: ms; when one that does not say so is first seen, unless it was announced before.

        Returns:
            How many were taken, and how many not, by reason.

        Raises:
            AwayError: the journal cannot be reached.
            ConfigError: something else is stated, or a value is none of its column; none was taken.
            DataError: the data set has hashed ids.
        """
        dataset.refuse_hashed()
        columns = dataset.stated
        rows = [_checked(one, columns) for one in items]
        own, no_id = self._own(dataset, [row[Column.ITEM] for row in rows])
        reasons: Counter[str] = Counter()
        fresh: dict[str, dict[str, Any]] = {}
        with self._lock, self._journal.writing() as pages:
            self._read(pages)
            for row, is_own, is_no_id in zip(rows, own, no_id, strict=True):
                name = row[Column.ITEM]
                former = fresh.get(name) or self._latest(name)
                row.setdefault(FIRST_SEEN, former[FIRST_SEEN] if former else now)
                is_back = name in self.withdrawn and name not in fresh
                if is_no_id:
                    reasons[NO_ID] += 1
                elif not is_back and (is_own or row == former):
                    reasons[KNOWN] += 1
                else:
                    fresh[name] = row
            if fresh:
                pages.announce(list(fresh.values()))
        self.refresh()
        return len(fresh), reasons

    def withdraw(self, dataset: GrownDataset, item: int | str) -> bool:
        """Take an item out of what can be shown, until it is announced again.

        Args:
            dataset: whose own item it may be.
            item: raw id.

        Returns:
            Whether there is such an item.

        Raises:
            AwayError: the journal cannot be reached.
            DataError: the data set has hashed ids.
        """
        dataset.refuse_hashed()
        name = str(item)
        (is_own,), _ = self._own(dataset, [name])
        with self._lock, self._journal.writing() as pages:
            self._read(pages)
            if not is_own and name not in self._numbers:
                return False
            if name not in self.withdrawn:
                pages.announce([{Column.ITEM.value: name}])
        self.refresh()
        return True

    def _own(self, dataset: GrownDataset, names: list[str]) -> tuple[list[bool], list[bool]]:
        """[n] whether the data set has items itself, and whether they are no ids of it."""
        vocabulary = dataset.vocabulary(ITEM)
        ids = as_ids(pl.Series(RAW, names, pl.String()), vocabulary.table.schema[RAW])
        index = vocabulary.indices(ids).cast(pl.Int64)
        is_own = index.is_between(UNKNOWN_INDEX + 1, dataset.own_items - 1)
        return is_own.to_list(), ids.is_null().to_list()

    def _latest(self, name: str) -> dict[str, Any] | None:
        number = self._numbers.get(name)
        return None if number is None else self._rows[number]

    def _read(self, pages: Pages) -> None:
        statements = pages.announced(self._read_until)
        withdrawn = set(self.withdrawn)
        for row in statements:
            name = row[Column.ITEM]
            if FIRST_SEEN not in row:
                withdrawn.add(name)
                continue
            withdrawn.discard(name)
            self.stated += 1
            if name in self._numbers:
                self._rows[self._numbers[name]] = row
            else:
                self._numbers[name] = len(self._rows)
                self._rows.append(row)
        self._read_until += len(statements)
        if withdrawn != self.withdrawn:
            self.withdrawn = frozenset(withdrawn)


def _checked(item: Mapping[str, Any], columns: Mapping[str, pl.DataType]) -> dict[str, Any]:
    """An item as it is written down.

    Raises:
        ConfigError: it states what is stated of no item, or a value that is none of its column.
    """
    row: dict[str, Any] = {Column.ITEM.value: str(item[Column.ITEM])}
    if item.get(FIRST_SEEN) is not None:
        row[FIRST_SEEN] = int(item[FIRST_SEEN])
    for name, value in item.items():
        if name in (Column.ITEM, FIRST_SEEN) or value is None:
            continue
        if name not in columns:
            raise ConfigError(
                f"item {row[Column.ITEM]}: {name} is nothing that the data set states of items; it "
                f"has {', '.join(columns) or 'none'}."
            )
        row[name] = _value(f"item {row[Column.ITEM]}: {name}", value, columns[name])
    return row


def _value(where: str, value: Any, kind: pl.DataType) -> Any:
    is_list = isinstance(value, list | tuple)
    if isinstance(kind, pl.List) and is_list and all(isinstance(one, str | int) for one in value):
        return [str(one) for one in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind.is_numeric() and is_number and abs(value) <= _LARGEST:
        return float(value)
    if kind == pl.String() and (isinstance(value, str) or is_number):
        return str(value)
    expected = "a list of text" if isinstance(kind, pl.List) else str(kind)
    expected = {"String": "text"}.get(expected, "a number" if kind.is_numeric() else expected)
    raise ConfigError(f"{where} is {value!r}; expected {expected}.")

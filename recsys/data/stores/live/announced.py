"""Items that are announced after a data set was prepared, by raw id, beside its live events.

Legend: n items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
from recsys.data.stores.live.journal import Journal, Pages
from recsys.data.stores.live.rows import LATER
from recsys.data.stores.vocabulary import FIRST_SEEN, RAW, UNKNOWN_INDEX

#: Why an item is set aside.
KNOWN, NO_ID = "item is known already", "item is no id of the log, whose ids are whole numbers"


#: What features can hold.
_LARGEST = float(np.finfo(np.float32).max)


class AnnouncedItems:
    """The items of a journal in the order they were announced; an item keeps its number for good.

    What is stated of them is kept as it was given, with raw ids of authors and topics, and encoded
    by the generation of the data set that is opened with them. Several threads may use one.

    Args:
        journal: where they are written down.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = RLock()
        self._rows: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}
        self.refresh()

    def refresh(self) -> int:
        """Take in what others have announced; returns how many there are now."""
        with self._lock, self._journal.reading() as pages:
            self._read(pages)
            return len(self._rows)

    def names(self, ids: Sequence[int | str]) -> NDArray[np.int64]:
        """[n] as which items of these raw ids are noted; 0 for those that nobody announced."""
        if any(str(one) not in self._numbers for one in ids):
            self.refresh()
        found = [self._numbers.get(str(one)) for one in ids]
        return np.array([UNKNOWN_INDEX if one is None else LATER + one for one in found], np.int64)

    def behind(self, dataset: PreparedDataset) -> PreparedDataset:
        """A generation of the data set, and what was announced until now behind it, if anything."""
        with self._lock:
            rows = list(self._rows)
        if not rows:
            return dataset
        alone = GrownDataset(dataset.path, dataset.manifest)
        schema = {Column.ITEM.value: pl.String(), FIRST_SEEN: pl.Int64(), **alone.stated}
        frame = pl.DataFrame(rows, schema)
        ids = as_ids(frame[Column.ITEM], alone.vocabulary(ITEM).table.schema[RAW])
        return GrownDataset(dataset.path, dataset.manifest, items=frame.with_columns(ids))

    def announce(
        self, dataset: GrownDataset, items: Sequence[Mapping[str, Any]]
    ) -> tuple[int, Counter[str]]:
        """Take in items; on the disk, and known to all that have the journal open, on return.

        Args:
            dataset: behind which they come.
            items: ``item_id``, ``first_seen`` (ms), and any of what is ``stated`` of the data set's
                items; an author or topic that it does not know is unknown until days are appended.

        Returns:
            How many were taken, and how many not, by reason.

        Raises:
            ConfigError: something else is stated, or a value is none of its column; none was taken.
            DataError: the data set has hashed ids.
        """
        dataset.refuse_hashed()
        columns = dataset.stated
        rows = [_checked(one, columns) for one in items]
        vocabulary = dataset.vocabulary(ITEM)
        text = pl.Series(RAW, [row[Column.ITEM] for row in rows], pl.String())
        ids = as_ids(text, vocabulary.table.schema[RAW])
        own = vocabulary.indices(ids).to_list()
        reasons: Counter[str] = Counter()
        fresh: dict[str, dict[str, Any]] = {}
        with self._lock, self._journal.writing() as pages:
            self._read(pages)
            for row, index, is_no_id in zip(rows, own, ids.is_null(), strict=True):
                name = row[Column.ITEM]
                if is_no_id:
                    reasons[NO_ID] += 1
                elif index != UNKNOWN_INDEX or name in self._numbers or name in fresh:
                    reasons[KNOWN] += 1
                else:
                    fresh[name] = row
            if fresh:
                pages.announce(list(fresh.values()))
        self.refresh()
        return len(fresh), reasons

    def _read(self, pages: Pages) -> None:
        for row in pages.announced(len(self._rows)):
            self._numbers[row[Column.ITEM]] = len(self._rows)
            self._rows.append(row)


def _checked(item: Mapping[str, Any], columns: Mapping[str, pl.DataType]) -> dict[str, Any]:
    """An item as it is written down.

    Raises:
        ConfigError: it states what is stated of no item, or a value that is none of its column.
    """
    row = {Column.ITEM.value: str(item[Column.ITEM]), FIRST_SEEN: int(item[FIRST_SEEN])}
    for name, value in item.items():
        if name in row or value is None:
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

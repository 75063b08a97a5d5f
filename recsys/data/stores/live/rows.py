"""Events as somebody reports them: checked row by row, and fitted to a data set.

Legend: n events, V indices of an id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.core.errors import DataError
from recsys.data.contract.actions import UNKNOWN_ACTION
from recsys.data.contract.rejected import NOT_LATER
from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION
from recsys.data.contract.time_columns import LAST_TIMESTAMP
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live.items import GrownDataset
from recsys.data.stores.timelines.writer import EVENT_RECORD

_REQUIRED = ("user", "item", "timestamp", "action_type")
_NUMBERS = tuple(name for name in EVENT_RECORD.names or () if EVENT_RECORD[name].kind == "f")

#: What stands beside the columns of a timeline: user and item as they were given, by which events
#: of users or items that the data set does not know are told apart.
GIVEN = ("given_user", "given_item")
#: An index from here on is that of no data set: ``LATER`` + i is the item that was announced as the
#: i-th after it, whatever index that has in one generation of the data set or another.
LATER = 1 << 30
LIVE_RECORD = np.dtype([*EVENT_RECORD.descr, *((name, np.int32) for name in GIVEN)])


class LaterItems:
    """What items of after a data set are called, whatever index they have in a generation of it.

    Args:
        dataset: the generation.
    """

    def __init__(self, dataset: PreparedDataset) -> None:
        self._index, self._own = np.empty(0, np.int64), dataset.manifest.vocabulary_sizes["item"]
        if isinstance(dataset, GrownDataset):
            self._index, self._own = dataset.given, dataset.own_items
        index, number = np.unique(self._index, return_index=True)
        self._names = LATER + number[index >= self._own]

    def noted(self, item: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n] of indices what stays theirs; those of the data set's own items do anyway."""
        place = item - self._own
        later = (place >= 0) & (place < len(self._names))
        return (
            np.where(later, self._names[np.where(later, place, 0)], item) if later.any() else item
        )

    def found(self, noted: NDArray[np.integer]) -> NDArray[np.integer]:
        """[n] indices in this generation; what it does not have yet stays as it is noted."""
        number = noted - LATER
        later = (number >= 0) & (number < len(self._index))
        return (
            np.where(later, self._index[np.where(later, number, 0)], noted)
            if later.any()
            else noted
        )


class EventRows:
    """What events of a data set may be.

    Args:
        dataset: after whose last event they come.

    Attributes:
        last: moment of that event, ms.
        later: how items of after the data set are noted.

    Raises:
        DataError: its times are made up.
    """

    def __init__(self, dataset: PreparedDataset) -> None:
        self._dataset = dataset
        self._manifest = dataset.manifest
        if not self._manifest.has_times:
            raise DataError(
                f"{self._manifest.name} has an order of events and no times, behind which nothing "
                "later lies; prepare a log with times."
            )
        self.last = self._manifest.counts["last_timestamp"]
        self._sizes = self._manifest.vocabulary_sizes
        self.later = LaterItems(dataset)
        self._codes = {
            "media_type": len(self._manifest.media_types),
            "surface": len(self._manifest.surfaces),
        }

    def checked(self, columns: Mapping[str, ArrayLike]) -> tuple[NDArray, Counter[str]]:
        """Rows that can be used, [m] of ``EVENT_RECORD``, and how many cannot, by reason.

        An index i that the data set does not have is noted as -1 - i, and items of after it as
        ``LATER`` says.

        Raises:
            DataError: a column is missing or unknown, or is not n numbers of its kind.
        """
        arrays = _arrays(columns)
        records = np.zeros(len(arrays["user"]), EVENT_RECORD)
        bad: dict[str, NDArray[np.bool_]] = {}
        for name in EVENT_RECORD.names or ():
            column = arrays.get(name)
            if name in _NUMBERS:
                column = np.full(len(records), np.nan, np.float32) if column is None else column
                bad[f"{name} is negative"] = column < 0
                bad[f"{name} is infinite"] = np.isinf(column)
                column = np.where(np.isnan(column), np.nan, column)  # one NaN of the many
            elif column is None:
                continue
            elif name == "action_type":
                bad[UNKNOWN_ACTION] = (column < 0) | (column >= len(self._manifest.action_types))
            elif name == "timestamp":
                bad[NOT_LATER] = column <= self.last
                bad["timestamp is out of range"] = column >= LAST_TIMESTAMP
            elif name in self._codes:
                column = np.where((column < 0) | (column > np.iinfo(np.int8).max), 0, column)
            else:
                most = np.iinfo(np.int32).max
                bad[f"{name} is no index"] = (column < 0) | (column > most)
                # of no item yet, and not of the one that will have this index one day
                there = column < self._sizes[name]
                if name == "item":
                    column, there = self.later.noted(column), there | (column >= LATER)
                column = np.where(there, column, ~column)
            records[name] = column
        # what the explicit timeline does not hold makes no two events of one
        explicit = records["action_type"] != ACTION_TYPES.index(IMPRESSION)
        for name in _NUMBERS:
            records[name][explicit] = np.nan
        good = np.ones(len(records), bool)
        reasons: Counter[str] = Counter()
        for reason, failed in bad.items():
            reasons[reason] += int((failed & good).sum())
            good &= ~failed
        return records[good], +reasons

    def fitted(self, records: NDArray) -> NDArray:
        """Events as the data set would hold them, [n] of ``LIVE_RECORD``.

        Indices and codes that it does not have are the unknown 0; an author or topic that was not
        given is the item's. Events that lie in the data set, and actions that it does not know,
        since another generation of it was written for, are left out.
        """
        known = records["timestamp"] > self.last
        known &= records["action_type"] < len(self._manifest.action_types)
        given = records if known.all() else records[known]  # most often all of them
        fitted = np.empty(len(given), LIVE_RECORD)
        for name in EVENT_RECORD.names or ():
            fitted[name] = given[name]
        fitted["item"] = self.later.found(given["item"])
        for name, of in zip(GIVEN, ("user", "item"), strict=True):
            fitted[name] = fitted[of]
        for name, size in (self._sizes | self._codes).items():
            fitted[name][(fitted[name] < 0) | (fitted[name] >= size)] = 0
        for name, of_item in self._ids_of_items.items():
            absent = np.flatnonzero(fitted[name] == 0)
            fitted[name][absent] = of_item[fitted["item"][absent]]
        return fitted

    @cached_property
    def _ids_of_items(self) -> dict[str, NDArray[np.int32]]:
        return self._dataset.ids_of_items


def _arrays(columns: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """The columns as numbers of one length."""
    names = EVENT_RECORD.names or ()
    for name in _REQUIRED:
        if name not in columns:
            raise DataError(
                f"events lack the column {name}; they have {', '.join(columns) or 'none'}, and "
                f"need {', '.join(_REQUIRED)}."
            )
    arrays = {}
    for name, values in columns.items():
        if name not in names:
            raise DataError(
                f"events have a column {name}; the columns of events are {', '.join(names)}."
            )
        array = np.asarray(values)
        kinds, expected = ("iuf", "numbers") if name in _NUMBERS else ("iu", "whole numbers")
        if array.ndim != 1 or (array.dtype.kind not in kinds and len(array)):
            raise DataError(
                f"column {name} of events is {array.dtype} of shape {array.shape}; expected "
                f"{expected}, one per event."
            )
        with np.errstate(over="ignore"):  # what is too large is infinite, and set aside
            arrays[name] = array.astype(np.float32 if name in _NUMBERS else np.int64)
        if len(array) != len(arrays[next(iter(arrays))]):
            raise DataError(
                f"column {name} of events has {len(array)} values, "
                f"{next(iter(arrays))} has {len(arrays[next(iter(arrays))])}; give one per event."
            )
    return arrays

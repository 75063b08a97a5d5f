"""A prepared data set and what has come since its last event, as one."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import TIMELINES, Counters, PreparedDataset
from recsys.data.stores.live.counters import LiveCounters
from recsys.data.stores.live.events import LiveEvents
from recsys.data.stores.live.items import GrownDataset, refuse_without_moments
from recsys.data.stores.live.timelines import LiveTimelines
from recsys.data.stores.vocabulary import FIRST_SEEN


class LiveDataset(GrownDataset):
    """A data set whose timelines and counters hold live events; all else is as it was prepared.

    What reads the timelines and counters of a data set (batches of requests and of a ranker,
    features of candidates) takes it in its place, and knows an event with the next read after it
    was appended. Request rows, and the engagements that sequence models are trained on, stay those
    that were prepared. A user of after the preparation is unknown until days are appended, and so
    is an item that is not among those it was opened with: those that it is given, or that were
    announced to the folder of the events.

    Attributes:
        live: what has come.
    """

    def __init__(
        self,
        path: Path,
        manifest: DatasetManifest,
        newest: DatasetManifest | None = None,
        live: LiveEvents | None = None,
        items: pl.DataFrame | None = None,
    ) -> None:
        super().__init__(path, manifest, newest, items if live is None else live.items)
        self.live = live or LiveEvents(GrownDataset(path, self.newest, items=items))

    @classmethod
    def open(
        cls, path: Path | str, live: Path | str | None = None, items: pl.DataFrame | None = None
    ) -> Self:
        """Open a data set and its live events.

        Args:
            path: the prepared data set.
            live: folder of the events, which other processes may have open too; None for events
                that are in the memory of this process.
            items: that came after the data set, as of ``GrownDataset``, by the moment they came;
                with a folder of events they are announced instead.

        Raises:
            DataError: one of both cannot be used, or they do not belong together.
        """
        dataset = PreparedDataset.open(path)
        if live is None:
            if items is not None:
                refuse_without_moments(items)
                items = items.sort(FIRST_SEEN, Column.ITEM)
            return cls(dataset.path, dataset.manifest, items=items)
        if items is not None:
            raise ValueError("items of after the preparation are announced to a folder of events")
        return cls(dataset.path, dataset.manifest, live=LiveEvents.open(live, dataset))

    def grown(self) -> Self:
        """The data set with all that was announced until now; this one goes on as it is.

        Both have the same events, and number the items that both have alike.
        """
        stored = PreparedDataset.open(self.path)
        return type(self)(self.path, stored.manifest, live=self.live.seen_by(stored))

    @cached_property
    def timelines(self) -> LiveTimelines:
        """The users' timelines."""
        return LiveTimelines.of(self.path / TIMELINES, self.live)

    def with_live(self, stored: Counters) -> LiveCounters:
        """The counters of all events."""
        return LiveCounters(stored, self.live, self.manifest.actions)

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        """Open both again in the process that unpickles them."""
        known = None if self.manifest is self.newest else self.manifest
        return _reopened, (type(self), self.path, known, self.live)

    def _described_by(self, manifest: DatasetManifest) -> Self:
        return type(self)(self.path, manifest, self.newest, self.live, self.given_items)


def _reopened(
    kind: type[LiveDataset], path: Path, known: DatasetManifest | None, live: LiveEvents
) -> LiveDataset:
    newest = PreparedDataset.open(path).manifest
    dataset = kind(path, newest, live=live)
    return dataset if known is None else dataset.as_known(known)

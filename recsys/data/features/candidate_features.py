"""Numbers of candidates as they could be known at a moment, for training rows and in serving alike.

Two sources, neither of which sees the moment itself or anything later: the counters of the whole
log, by the hour, and the user's own timelines. Legend: B requests, R rows (candidates over all
requests), D numbers of a row, W windows, A action types beside the impression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import (
    IMPRESSION,
    MILLISECONDS_PER_HOUR,
    TimelineKind,
)
from recsys.data.features.config import CONTENT, CROSSED, SHARED, CandidateFeatureConfig
from recsys.data.features.cross_counts import (
    Candidates,
    CrossCounts,
    cross_counts,
    history_counts,
)
from recsys.data.stores.counters.store import CounterStore
from recsys.data.stores.dataset import PreparedDataset

_USER = "user"
_HOURS_PER_DAY = 24


@dataclass(frozen=True, eq=False)
class _Counted:
    """Events in each window: ``shown`` [W, n] and ``acted`` [W, n, A]."""

    shown: NDArray[np.float64]
    acted: NDArray[np.float64]


class CandidateFeatures:
    """Computes the numbers of candidates.

    A count n is given as log(1 + n). A rate is given as its lift over what was to be expected,
    log((n + k p) / ((m + k) p)) with n actions on m impressions, the prior p and its weight k: 0
    where nothing is known. The prior of an item, author and topic is the rate of all items until
    then, and so is that of a user; what the user did with the candidate's item, author, topic or
    content is compared with what the user does at all. The time since the last action is
    1 / (1 + days), 0 for never.

    Args:
        dataset: the prepared data set; a live one counts what comes while it is open.
        config: what is counted.
        clusters: [V] the cluster of content of each item index, 0 where its content is not known;
            None where nothing is crossed with it.

    Raises:
        ConfigError: an action that the data set does not have, or the log has no times.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        config: CandidateFeatureConfig,
        clusters: NDArray[np.int32] | None = None,
    ) -> None:
        manifest = dataset.manifest
        if not manifest.has_times:
            raise ConfigError(
                f"{manifest.name} has an order of events and no times: nothing can be counted by "
                "the hour; prepare a log with times."
            )
        self.config = config
        self._dataset = dataset
        self._counters = dataset.with_live(CounterStore.open(dataset))
        self._sizes = manifest.vocabulary_sizes
        self._windows: list[int | None] = [*config.windows_hours, None]
        names = [name for name in self._counters.actions if name != IMPRESSION]
        for name in config.actions:
            if name not in manifest.actions.explicit:
                raise ConfigError(
                    f"actions: {name} is no action type of {manifest.name}; it has "
                    f"{', '.join(names) or 'impressions only'}."
                )
        self.actions = tuple(name for name in names if not config.actions or name in config.actions)
        self._codes = manifest.actions.codes(self.actions)
        self.actions = tuple(manifest.actions.names[code] for code in self._codes)
        self._counted = [self._counters.actions.index(name) for name in self.actions]
        self._shown = self._counters.actions.index(IMPRESSION)
        num_items = self._sizes["item"]
        own = np.arange(num_items, dtype=np.int32)
        self._of_item = {"item": own, **dataset.ids_of_items}
        self._first_seen = dataset.vocabulary("item").first_seen(num_items)
        if clusters is not None:
            self._of_item[CONTENT] = clusters
            self._sizes = {**self._sizes, CONTENT: int(clusters.max()) + 1}
        # a log without authors or topics has the unknown one alone
        known = [name for name in CROSSED if self._sizes.get(name, 0) > 1]
        self._counters_of = [name for name in SHARED if name in known and name in config.counters]
        self._crossed = [name for name in known if name in config.cross_features]

    @property
    def names(self) -> tuple[str, ...]:
        """D names, in the order of the columns."""
        windows = ["all" if hours is None else f"{hours} h" for hours in self._windows]
        found = ["item age", "item is new"]
        for entity in self._counters_of:
            found += self._names_of(entity, windows, counts=False)
        if self._crossed:
            found += self._names_of(_USER, windows, counts=False)
        for entity in self._crossed:
            found += self._names_of(f"user and {entity}", windows, counts=True)
            found += [f"user and {entity}: last {name}" for name in (IMPRESSION, *self.actions)]
        return tuple(found)

    def compute(
        self,
        user: NDArray[np.integer],
        moment: NDArray[np.int64],
        rows_per_request: NDArray[np.int64],
        item: NDArray[np.integer],
        ids: Mapping[str, NDArray[np.integer]] | None = None,
    ) -> NDArray[np.float32]:
        """The numbers of some candidates.

        Args:
            user: [B] user indices; 0 is the unknown user, who did nothing.
            moment: [B] ms; everything strictly before it may be seen.
            rows_per_request: [B] int64, sums to R.
            item: [R] item indices, those of a request side by side.
            ids: ``author`` and ``topic``, [R] indices of each, where items are among the rows that
                the data set does not have; None for what it says of its items.

        Returns:
            [R, D], all finite.
        """
        of_item = {} if ids is None else ids
        request = np.repeat(np.arange(len(user)), rows_per_request)
        rate = self._rate_of_all(moment)  # [B, A]
        columns = [*self._age(item, moment[request])]
        for name in self._counters_of:
            index = of_item[name] if name in of_item else self._of_item[name][item]
            counted = self._counts(name, index, moment[request])
            columns += self._numbers(counted, rate[request], counts=False)
        if self._crossed:
            candidates = Candidates(
                rows_per_request,
                {
                    name: of_item[name] if name in of_item else self._of_item[name][item]
                    for name in self._crossed
                },
            )
            columns += self._cross_columns(user, moment, candidates, request, rate)
        if not len(item):
            return np.empty((0, len(columns)), np.float32)
        return np.stack(columns, axis=1, dtype=np.float32, casting="same_kind")

    def _names_of(self, entity: str, windows: list[str], counts: bool) -> list[str]:
        found = []
        for window in windows:
            found.append(f"{entity}: {IMPRESSION}s, {window}")
            if counts:
                found += [f"{entity}: {name}, {window}" for name in self.actions]
            found += [f"{entity}: {name} lift, {window}" for name in self.actions]
        return found

    def _numbers(
        self, counted: _Counted, expected: NDArray[np.float64], counts: bool
    ) -> list[NDArray[np.float64]]:
        """Columns [n] of what was counted, window by window; ``expected`` [n, A] are priors."""
        found = []
        for shown, acted in zip(counted.shown, counted.acted, strict=True):
            found.append(np.log1p(shown))
            if counts:
                found += list(np.log1p(acted).T)
            found += list(np.log(self._shrunk(acted, shown, expected) / expected).T)
        return found

    def _shrunk(
        self, acted: NDArray[np.float64], shown: NDArray[np.float64], prior: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """[n, A] rates of ``acted`` [n, A] in ``shown`` [n], drawn to ``prior`` [n, A]."""
        weight = self.config.prior
        return (acted + weight * prior) / (shown[:, None] + weight)

    def _rate_of_all(self, moment: NDArray[np.int64]) -> NDArray[np.float64]:
        """[B, A] actions an impression until then, a little above 0 and finite."""
        everything = self._counts("everything", np.zeros(len(moment), np.int64), moment)
        return (everything.acted[-1] + 1) / (everything.shown[-1][:, None] + self.config.prior)

    def _counts(
        self, entity: str, index: NDArray[np.integer], moment: NDArray[np.int64]
    ) -> _Counted:
        found = self._counters.counts(entity, index, moment, self._windows).astype(np.float64)
        return _Counted(found[..., self._shown], found[..., self._counted])

    def _cross_columns(
        self,
        user: NDArray[np.integer],
        moment: NDArray[np.int64],
        candidates: Candidates,
        request: NDArray[np.int64],
        rate: NDArray[np.float64],
    ) -> list[NDArray]:
        """Columns [R] of what users did at all, and of what is shared with a candidate."""
        own: list[NDArray[np.int32]] = []
        crossed: list[CrossCounts] = []
        for kind in (TimelineKind.IMPLICIT, TimelineKind.EXPLICIT):
            events = self._histories(user, moment, kind)
            action, number = self._action_columns(kind, events)
            own.append(history_counts(events, action, number, moment, self._windows))
            crossed.append(
                cross_counts(events, action, number, moment, candidates, self._sizes, self._windows)
            )
        at_all = self._both(*own)
        own_rate = self._shrunk(at_all.acted[-1], at_all.shown[-1], rate)  # [B, A]
        columns = [column[request] for column in self._numbers(at_all, rate, counts=False)]
        implicit, explicit = crossed
        for name in self._crossed:
            counted = self._both(implicit.counts[name], explicit.counts[name])
            columns += self._numbers(counted, own_rate[request], counts=True)
            last = [implicit.hours[name], explicit.hours[name][:, : len(self._codes)]]
            columns += [1 / (1 + hours / _HOURS_PER_DAY) for hours in np.hstack(last).T]
        return columns

    def _histories(
        self, user: NDArray[np.integer], moment: NDArray[np.int64], kind: TimelineKind
    ) -> dict[str, NDArray]:
        """Jagged events before the moments, with what they may share with a candidate."""
        stored = dict.fromkeys("item" if name == CONTENT else name for name in self._crossed)
        events = self._dataset.timelines.histories(
            user, moment, kind, self.config.max_events, (*stored, "action_type")
        )
        if CONTENT in self._crossed:
            events[CONTENT] = self._of_item[CONTENT][events["item"]]
        return events

    def _both(self, implicit: NDArray[np.int32], explicit: NDArray[np.int32]) -> _Counted:
        acted = explicit[..., : len(self._codes)]
        return _Counted(implicit[..., 0].astype(np.float64), acted.astype(np.float64))

    def _action_columns(
        self, kind: TimelineKind, events: dict[str, NDArray]
    ) -> tuple[NDArray[np.int8], int]:
        """[E] the column each event counts in, and how many there are; the last is not used."""
        if kind is TimelineKind.IMPLICIT:
            return np.zeros(len(events["timestamp"]), np.int8), 1
        column_of = np.full(len(self._dataset.manifest.actions.names), len(self._codes), np.int8)
        column_of[self._codes] = np.arange(len(self._codes))
        return column_of[events["action_type"]], len(self._codes) + 1

    def _age(self, item: NDArray[np.integer], moment: NDArray[np.int64]) -> list[NDArray]:
        """log(1 + hours since an item was first seen), and whether it was not seen before."""
        hours = (moment - self._first_seen[item]) / MILLISECONDS_PER_HOUR
        is_new = hours <= 0
        return [np.log1p(np.where(is_new, 0.0, hours)), is_new.astype(np.float64)]

"""What was known of a row's user, item, author and topic before its request, as numbers.

Nothing of the row itself, and nothing of what came after, is in them. A logged row counts
once it was shown strictly before the moment asked about, its label once the time in which an action
still counts for it has passed as well; events count strictly before the moment. That moment is the
request's time less the gap that the model's histories have, in training and in evaluation alike.
Rows of all splits are counted, as their events stand in the histories of a model.

Legend: R rows, N rows or events that are counted, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.progress import track
from recsys.data.contract.schema import (
    LENGTHS,
    MILLISECONDS_PER_DAY,
    MILLISECONDS_PER_HOUR,
    TIMELINE_COLUMNS,
    Feature,
    FeatureKind,
    FeatureSide,
    Split,
    TimelineKind,
)
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import ALL_EVENTS, END_OF_TIME
from recsys.data.stores.timelines import TimelineStore
from recsys.evaluation.baselines.means import observed_mean, smoothed
from recsys.evaluation.baselines.rows import (
    AUTHOR,
    GROUPS,
    ITEM,
    TOPIC,
    USER,
    Rows,
    group_keys,
)
from recsys.evaluation.baselines.timed_counts import Before, TimedCounts

#: What is read of an event.
_EVENT_COLUMNS = ("timestamp", ITEM, AUTHOR, TOPIC, "action_type")

#: Users whose timelines are read at a time.
_USERS = 4096

#: Groups whose rates of every task a model of one task sees; of the others it sees its own task's.
_ALWAYS = (USER, ITEM)


class CountFeatures:
    """Counts over all rows and events of a data set, asked about rows at the time of each.

    Args:
        dataset: the prepared data set.
        gap_ms: time between the moment asked about and a request.
    """

    def __init__(self, dataset: PreparedDataset, gap_ms: int) -> None:
        manifest = dataset.manifest
        self.manifest = manifest
        self.gap = gap_ms
        self.user_features = dataset.user_features
        self.item_features = dataset.item_features
        logged = Rows.of(dataset, None).in_order_shown()
        self.labels = logged.labels
        sizes = manifest.vocabulary_sizes
        self.groups = tuple(group for group in GROUPS if _occurs(group, sizes))
        self.rows = {
            group: TimedCounts(logged.keys(group, sizes), logged.shown) for group in self.groups
        }
        self.mean = observed_mean(dataset.requests(Split.FIT).labels)  # [K]
        self.delay = [
            round(manifest.label_hours(task.name) * MILLISECONDS_PER_HOUR)
            for task in manifest.tasks
        ]
        self.events = _events(dataset.timelines, self.groups, sizes)
        self.first_seen = dataset.vocabulary("item").first_seen(sizes["item"])

    def asked(self, rows: Rows) -> AskedCounts:
        """The counts for some rows."""
        return AskedCounts(self, rows)


class AskedCounts:
    """The numbers of some rows R.

    Args:
        counts: what is counted.
        rows: what is asked about.
    """

    def __init__(self, counts: CountFeatures, rows: Rows) -> None:
        self._counts = counts
        self._rows = rows
        self._moment = rows.time - counts.gap
        sizes = counts.manifest.vocabulary_sizes
        self._keys = {group: rows.keys(group, sizes) for group in counts.groups}
        self._before: dict[tuple[str, int], Before] = {}
        self._events_before: dict[tuple[TimelineKind, str], Before] = {}

    def shared(self) -> dict[str, NDArray[np.float32]]:
        """What models of all tasks see: by name [R]."""
        columns: dict[str, NDArray] = {}
        for group in self._counts.groups:
            columns[f"rows of {group}"] = self._of_rows(group, 0).count
        for task, _ in enumerate(self._counts.manifest.tasks):
            columns |= self._rates(
                task, [group for group in self._counts.groups if group in _ALWAYS]
            )
        columns |= self._of_events("impressions", TimelineKind.IMPLICIT)
        actions = self._counts.manifest.actions
        for name, some in (("actions", actions.positive), ("negative actions", actions.negative)):
            columns |= self._of_events(name, TimelineKind.EXPLICIT, actions.codes(some))
        columns["hour"] = self._rows.time % MILLISECONDS_PER_DAY // MILLISECONDS_PER_HOUR
        columns["item age, days"] = self._item_age()
        columns |= self._stated()
        return {name: values.astype(np.float32) for name, values in columns.items()}

    def of_task(self, task: int) -> dict[str, NDArray[np.float32]]:
        """What models of one task see besides: its rate in each other group, and its action."""
        others = [group for group in self._counts.groups if group not in _ALWAYS]
        columns: dict[str, NDArray] = dict(self._rates(task, others))
        actions, name = self._counts.manifest.actions, self._counts.manifest.tasks[task].name
        if name in actions.explicit:
            columns |= self._of_events(name, TimelineKind.EXPLICIT, actions.codes([name]))
        return {name: values.astype(np.float32) for name, values in columns.items()}

    def categorical(self) -> list[str]:
        """Names of the columns that are indices without an order."""
        return [name for name, (_, kind) in self._stated_places().items() if kind is _CATEGORICAL]

    def _rates(self, task: int, groups: list[str]) -> dict[str, NDArray[np.float64]]:
        """By name the smoothed mean label of each group [R], the pairs' towards the user's."""
        counts = self._counts
        label = counts.labels[:, task]
        observed = ~np.isnan(label)
        value = np.where(observed, label, 0)

        def rate(group: str) -> NDArray[np.float64]:
            before = self._of_rows(group, counts.delay[task])
            of_group = counts.rows[group]
            number = before.count if observed.all() else of_group.sums(observed, before)
            prior = rate(USER) if len(GROUPS[group]) > 1 else float(counts.mean[task])
            return smoothed(of_group.sums(value, before), number, prior)

        name = counts.manifest.tasks[task].name
        return {f"{name} rate of {group}": rate(group) for group in groups}

    def _of_rows(self, group: str, delay: int) -> Before:
        if (group, delay) not in self._before:
            found = self._counts.rows[group].before(self._keys[group], self._moment - delay)
            self._before[group, delay] = found
        return self._before[group, delay]

    def _of_events(
        self, name: str, kind: TimelineKind, codes: list[int] | None = None
    ) -> dict[str, NDArray]:
        """Events of some action types by group, and the share that they are of the user's."""
        columns: dict[str, NDArray] = {}
        events = self._counts.events[kind]
        chosen = None if codes is None else np.isin(events.action, codes)
        if chosen is not None and not chosen.any():
            return columns
        for group, of_group in events.by_group.items():
            if (kind, group) not in self._events_before:
                found = of_group.before(self._keys[group], self._moment)
                self._events_before[kind, group] = found
            before = self._events_before[kind, group]
            count = before.count if chosen is None else of_group.sums(chosen, before)
            columns[f"{name} of {group}"] = count
            if GROUPS[group][0] == USER and group != USER:
                of_user = columns[f"{name} of {USER}"]
                columns[f"share of {name} of {group}"] = smoothed(count, of_user, 0.0)
        return columns

    def _item_age(self) -> NDArray[np.float64]:
        """NaN for an item that was not seen before the moment asked about."""
        age = (self._moment - self._counts.first_seen[self._rows.ids[ITEM]]) / MILLISECONDS_PER_DAY
        return np.where(age > 0, age, np.nan)

    def _stated(self) -> dict[str, NDArray]:
        return {name: column for name, (column, _) in self._stated_places().items()}

    def _stated_places(self) -> dict[str, tuple[NDArray, FeatureKind]]:
        """Features of user, item and context as the data set has them; ids are only counted."""
        counts, rows = self._counts, self._rows
        arrays: dict[tuple[FeatureSide, FeatureKind], tuple[NDArray, Any]] = {
            (FeatureSide.USER, _CATEGORICAL): (counts.user_features.categorical, rows.ids[USER]),
            (FeatureSide.USER, _DENSE): (counts.user_features.dense, rows.ids[USER]),
            (FeatureSide.ITEM, _CATEGORICAL): (counts.item_features.categorical, rows.ids[ITEM]),
            (FeatureSide.ITEM, _DENSE): (counts.item_features.dense, rows.ids[ITEM]),
            (FeatureSide.CONTEXT, _CATEGORICAL): (rows.context_categorical, slice(None)),
            (FeatureSide.CONTEXT, _DENSE): (rows.context_dense, slice(None)),
        }
        return {
            f"{side} {feature.name}": (array[:, position][row], kind)
            for (side, kind), (array, row) in arrays.items()
            for position, feature in enumerate(counts.manifest.select(side, kind))
            if not _is_id(feature)
        }


@dataclass(frozen=True, eq=False)
class _Events:
    """The events of a timeline kind: ``by_group``, and ``action`` [N], the type of each."""

    by_group: dict[str, TimedCounts]
    action: NDArray[np.int8]


def _events(
    store: TimelineStore, groups: tuple[str, ...], sizes: dict[str, int]
) -> dict[TimelineKind, _Events]:
    """All events; those that show an item have the action type 0."""
    found = {}
    for kind in TimelineKind:
        events = _timelines(store, kind)
        time = events.pop("timestamp")
        by_group = {group: TimedCounts(group_keys(events, group, sizes), time) for group in groups}
        action = events.get("action_type", np.zeros(len(time), np.int8))
        found[kind] = _Events(by_group, action)
    return found


def _timelines(store: TimelineStore, kind: TimelineKind) -> dict[str, NDArray]:
    """Columns of all events of a kind in order of time, and whose they are."""
    types = TIMELINE_COLUMNS[kind]
    kept = [name for name in _EVENT_COLUMNS if name in types]
    parts: dict[str, list[NDArray]] = {name: [np.empty(0, types[name])] for name in kept}
    parts[USER] = [np.empty(0, np.int32)]
    users = store.users()
    for first in track(range(0, len(users), _USERS), f"Counting {kind} events"):
        some = users[first : first + _USERS]
        events = store.histories(some, np.full(len(some), END_OF_TIME), kind, ALL_EVENTS)
        events[USER] = np.repeat(some, events[LENGTHS])
        for name, found in parts.items():
            found.append(events[name])
    joined = {name: np.concatenate(found) for name, found in parts.items()}
    order = np.argsort(joined["timestamp"], kind="stable")
    return {name: column[order] for name, column in joined.items()}


def _occurs(group: str, sizes: dict[str, int]) -> bool:
    """Whether the log has any of the ids, beside the unknown one."""
    return all(sizes[name] > 1 for name in GROUPS[group])


def _is_id(feature: Feature) -> bool:
    return feature.name.removesuffix("_id") in (USER, ITEM, AUTHOR, TOPIC)


_CATEGORICAL, _DENSE = FeatureKind.CATEGORICAL, FeatureKind.DENSE

"""Users of two publications in groups: by their events, and by new ones between the two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.dataset import TIMELINES, PreparedDataset
from recsys.data.stores.timelines import TimelineStore
from recsys.embeddings.stores import Publication
from recsys.embeddings.stores.base import UserId
from recsys.embeddings.users import Users

_ALL_EVENTS = np.iinfo(np.int64).max
#: Groups of activity, of about as many users each.
_GROUPS = 4


class Activity:
    """What a prepared data set knows of the users of two publications.

    Args:
        dataset: the data set.
        first: a publication.
        second: another; the earlier of the two says which events count as activity.
    """

    def __init__(self, dataset: PreparedDataset, first: Publication, second: Publication) -> None:
        self._dataset = dataset
        self._timelines = TimelineStore.open(dataset.path / TIMELINES)
        #: Events before these moments are in the embeddings.
        self._cutoffs = sorted(one.timestamp - one.details.get("gap", 0) for one in (first, second))

    def groups(self, users: Sequence[UserId]) -> dict[str, NDArray[np.bool_]]:
        """Names of groups, and [U] who is in them.

        Raises:
            ConfigError: the data set knows none of the users.
        """
        known = Users.of(self._dataset)
        index = dict(zip(known.raw.tolist(), known.index.tolist(), strict=True))
        position = np.array([index.get(user, -1) for user in users], np.int64)
        inside = position >= 0
        if not inside.any():
            raise ConfigError(
                f"{self._dataset.path} knows none of the users of the stores; give the data set "
                "whose users were published."
            )
        before, by_then = (self._events(position[inside], cutoff) for cutoff in self._cutoffs)
        found = {}
        edges = np.unique(np.quantile(before, np.arange(1, _GROUPS) / _GROUPS, method="higher"))
        group = np.searchsorted(edges, before, side="left")
        for number in np.unique(group):
            mine = group == number
            least, most = before[mine].min(), before[mine].max()
            span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            found[f"{span} events"] = _spread(mine, inside)
        if self._cutoffs[0] < self._cutoffs[1]:
            moved = by_then > before
            found["no new event between"] = _spread(~moved, inside)
            found["new events between"] = _spread(moved, inside)
        if not inside.all():
            found["not in the data set"] = ~inside
        return found

    def _events(self, users: NDArray[np.int64], cutoff: int) -> NDArray[np.int64]:
        """[U] events of both timelines before a moment."""
        before = np.full(len(users), cutoff)
        kinds = [self._timelines.lengths(users, before, kind, _ALL_EVENTS) for kind in TimelineKind]
        total: NDArray[np.int64] = np.sum(kinds, axis=0)
        return total


def _spread(some: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[U] of all users, from those who are in the data set."""
    found = np.zeros(len(inside), np.bool_)
    found[inside] = some
    return found

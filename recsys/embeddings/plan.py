"""Whose embeddings a publication computes, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.stores.timelines import TimelineStore
from recsys.data.stores.timelines.layout import StoreManifest
from recsys.embeddings.changes import Moment, active_users, changed_users, users_with_late_events
from recsys.embeddings.stores import Publication

#: Users whose activity is looked up at once.
_USERS_PER_STEP = 1_000_000


@dataclass(frozen=True, eq=False)
class PublicationPlan:
    """Who is active, computed and withdrawn.

    Attributes:
        active: [U] bool, users with an embedding as of this moment.
        computed: [U] bool, users whose embedding is written.
        withdrawn: [U] bool, users who are not active (any more).
        scope: who is computed and why, in words.
    """

    active: NDArray[np.bool_]
    computed: NDArray[np.bool_]
    withdrawn: NDArray[np.bool_]
    scope: str


def plan_publication(
    timelines: TimelineStore,
    users: NDArray[np.int32],
    moment: Moment,
    former: Publication | None,
    publication: Publication,
    age_edges: tuple[int, ...],
    only_changed: bool,
) -> PublicationPlan:
    """Compare a publication with the former one.

    Args:
        timelines: the log.
        users: [U] indices.
        moment: of the publication.
        former: the publication readers see.
        publication: the one that has begun.
        age_edges: ages (ms) at which an event enters or leaves a window of a slice.
        only_changed: leave out users whose embedding cannot have changed.
    """
    active = _in_steps(users, lambda some: active_users(timelines, some, moment))
    reason = _reason_for_everyone(former, publication, only_changed)
    if former is None or reason is not None:
        return PublicationPlan(active, active, ~active, f"everyone: {reason}")
    last = Moment(former.timestamp, former.details["gap"], former.details["retention"])
    changed = _in_steps(users, lambda some: changed_users(timelines, some, last, moment, age_edges))
    late = users_with_late_events(
        timelines, StoreManifest.load(timelines.path), former.details["blocks"], last.cutoff
    )
    changed |= np.isin(users, late)
    was_active = _in_steps(users, lambda some: active_users(timelines, some, last))
    scope = f"changed since version {former.version}"
    return PublicationPlan(active, active & changed, was_active & ~active, scope)


def of_same_dataset(former: Publication, publication: Publication) -> bool:
    """Whether the data set is that of the former publication, perhaps grown: no user is lost."""
    return former.details["dataset"][0] in publication.details["dataset"]


def _reason_for_everyone(
    former: Publication | None, publication: Publication, only_changed: bool
) -> str | None:
    if former is None:
        return "the store is new"
    if not only_changed:
        return "asked for"
    if publication.timestamp < former.timestamp:
        return "the last publication is of a later moment"
    if not of_same_dataset(former, publication):
        return "the data set was prepared anew since the last publication"
    for name in ("tower", "batch_users", "gap", "retention", "timelines"):
        if publication.details[name] != former.details.get(name):
            return f"the last publication had another {name}"
    return None


def _in_steps(
    users: NDArray[np.int32], evaluate: Callable[[NDArray[np.int32]], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    parts = [
        evaluate(users[start : start + _USERS_PER_STEP])
        for start in range(0, len(users), _USERS_PER_STEP)
    ]
    return np.concatenate([np.empty(0, np.bool_), *parts])

"""`recsys data delete`: a user removed from timelines and from a store of embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from omegaconf import MISSING

from recsys.core.errors import ConfigError, DataError
from recsys.data.stores.dataset import TIMELINES, PreparedDataset, locked_dataset
from recsys.data.stores.engagements.build import forget_engagements
from recsys.data.stores.timelines import TimelineWriter
from recsys.embeddings.stores import open_store
from recsys.embeddings.stores.base import UserId
from recsys.embeddings.users import Users


@dataclass(frozen=True)
class DeleteConfig:
    """Whom to delete, and from where: ``dataset``, ``store``, or both.

    Attributes:
        user: the raw id, as in the log.
        dataset: a prepared data set; the user's events leave its timelines.
        store: ``redis://host:port/database``, or the folder of an LMDB; the user's embedding
            leaves it in all versions.
    """

    user: str = MISSING
    dataset: str | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would delete nothing."""
        if self.dataset is None and self.store is None:
            raise ConfigError(
                "Give dataset=… to delete the user from timelines, store=… to delete the user's "
                "embedding, or both."
            )


@dataclass(frozen=True)
class DeleteReport:
    """What was deleted.

    Attributes:
        events: number of events removed from the timelines.
        embedding: whether readers of the store had an embedding of the user.
    """

    events: int
    embedding: bool


def delete_user(config: DeleteConfig) -> DeleteReport:
    """Remove a user, at once; safe to run again where it was interrupted.

    Requests and features of the data set are not touched: prepare it again from a log without the
    user to train without them.

    Raises:
        DataError: the data set does not know the user, or the user shares a hashed index with
            others, whose events would go too.
        ArtifactError: there is no store.
    """
    ids = _spellings(config.user)
    if config.store is not None:
        with open_store(config.store, readonly=True) as store:  # refuses a place without a store
            had_embedding = any(store.get_many(ids))
    events = 0
    if config.dataset is not None:
        with locked_dataset(config.dataset) as dataset:
            events = _delete_events(dataset, ids)
    # After the timelines: a publication that begins now finds the user in neither.
    if config.store is not None:
        with open_store(config.store) as store:
            for user in ids:
                store.delete(user)
    return DeleteReport(events, config.store is not None and had_embedding)


def _spellings(user: str) -> list[UserId]:
    """The raw ids a text may stand for: logs have integers or strings, stores the same."""
    ids: list[UserId] = [user]
    if user.removeprefix("-").isdecimal() and -(2**63) <= int(user) < 2**63:
        ids.append(int(user))
    return ids


def _delete_events(dataset: PreparedDataset, ids: list[UserId]) -> int:
    users = Users.of(dataset)
    known = np.flatnonzero([np.any(users.raw == user) for user in ids])
    if not len(known):
        raise DataError(
            f"{dataset.path} knows no user {ids[0]}; give the id as it is in the log. "
            "Nothing was deleted."
        )
    [index] = users.index[users.raw == ids[known[0]]].tolist()
    if np.count_nonzero(users.index == index) > 1:
        raise DataError(
            f"User {ids[0]} shares the hashed index {index} with other users, so their events "
            "cannot be told apart; prepare the data set with ids=dictionary to delete users."
        )
    with TimelineWriter(dataset.path / TIMELINES) as writer:
        events = writer.delete_users([index])
    forget_engagements(dataset.path)
    return events

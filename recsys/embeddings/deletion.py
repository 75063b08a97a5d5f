"""`recsys data delete`: a user removed from timelines and from a store of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
from omegaconf import MISSING

from recsys.core.bounds import Settings, Store
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.ids import as_ids
from recsys.data.stores.counters.build import COUNTERS
from recsys.data.stores.dataset import TIMELINES, PreparedDataset, locked_dataset
from recsys.data.stores.engagements.build import SEQUENCES
from recsys.data.stores.live import LiveEvents
from recsys.data.stores.tail import delete_from_tail
from recsys.data.stores.timelines import TimelineWriter
from recsys.data.stores.vocabulary import INDEX, RAW, UNKNOWN_INDEX
from recsys.embeddings.stores import open_store
from recsys.embeddings.stores.base import UserId


@dataclass(frozen=True)
class DeleteConfig(Settings):
    """Whom to delete, and from where: ``dataset``, ``store``, or both, and ``live``.

    Attributes:
        user: the raw id, as in the log.
        dataset: a prepared data set; the user's events leave its timelines.
        store: ``redis://host:port/database``, or the folder of an LMDB; the user's embedding
            leaves it in all versions.
        live: folder of the data set's live events, or Redis, which the user's leave too.
    """

    user: str = MISSING
    dataset: str | None = None
    store: Store | None = None
    live: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would delete nothing."""
        super().__post_init__()
        if self.dataset is None and self.store is None:
            raise ConfigError(
                "Give dataset=… to delete the user from timelines, store=… to delete the user's "
                "embedding, or both."
            )
        if self.live is not None and self.dataset is None:
            raise ConfigError(
                f"live={self.live}: give dataset=… too, the prepared data set whose live events "
                "they are."
            )


@dataclass(frozen=True)
class DeleteReport:
    """What was deleted.

    Attributes:
        events: number of events removed from the timelines; live_events likewise.
        embedding: whether readers of the store had an embedding of the user.
    """

    events: int
    live_events: int
    embedding: bool


def delete_user(config: DeleteConfig) -> DeleteReport:
    """Remove a user, at once; safe to run again where it was interrupted.

    Requests and features of the data set are not touched, but for rows whose labels may still come:
    they go with the next append. Prepare it again from a log without the user to train without
    them.

    Raises:
        DataError: the data set does not know the user, or the user shares a hashed index with
            others, whose events would go too; or ``live`` holds no live events of the data set.
        ArtifactError: there is no store.
    """
    ids = _spellings(config.user)
    if config.store is not None:
        with open_store(config.store, readonly=True) as store:  # refuses a place without a store
            had_embedding = any(store.get_many(ids))
    events = live_events = 0
    if config.dataset is not None:
        with locked_dataset(config.dataset) as dataset:
            index = _index_of(dataset, config.user)
            if config.live is not None:
                live_events = _delete_live(dataset, config.live, index)
            events = _delete_events(dataset, index)
    # After the timelines: a publication that begins now finds the user in neither.
    if config.store is not None:
        with open_store(config.store) as store:
            for user in ids:
                store.delete(user)
    return DeleteReport(events, live_events, config.store is not None and had_embedding)


def _spellings(user: str) -> list[UserId]:
    """The raw ids written like a text: logs have integers or strings, stores the same."""
    ids: list[UserId] = [user]
    numbers = [as_ids(pl.Series([user]), dtype)[0] for dtype in (pl.Int64(), pl.UInt64())]
    return ids + [number for number in numbers if number is not None][:1]


def _index_of(dataset: PreparedDataset, user: str) -> int:
    known = dataset.vocabulary("user")
    index = int(known.indices_of([user])[0])
    if index == UNKNOWN_INDEX:
        raise DataError(
            f"{dataset.path} knows no user {user}; give the id as it is in the log. "
            "Nothing was deleted."
        )
    if (known.table[INDEX] == index).sum() > 1:
        raise DataError(
            f"User {user} shares the hashed index {index} with other users, so their events "
            "cannot be told apart; prepare the data set with ids=dictionary to delete users."
        )
    return index


def _delete_live(dataset: PreparedDataset, place: str, index: int) -> int:
    if "://" not in place and not Path(place).is_dir():
        raise DataError(f"{place} is no folder of live events; name that of the service's state.")
    live = LiveEvents.open(place, dataset)
    try:
        return live.delete_users([index])
    finally:
        live.close()


def _delete_events(dataset: PreparedDataset, index: int) -> int:
    known = dataset.vocabulary("user").table
    with TimelineWriter(dataset.path / TIMELINES) as writer:
        events = writer.delete_users([index])
    SEQUENCES.forget(dataset.path)
    COUNTERS.forget(dataset.path)
    delete_from_tail(dataset, known.filter(pl.col(INDEX) == index)[RAW][0])
    return events

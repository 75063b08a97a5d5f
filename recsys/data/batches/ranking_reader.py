"""Building the batches of a ranker: recent events and numbers of candidates, as of the request.

Legend: B requests, E events, T recent events, R rows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.request_reader import RequestRows, RowReader
from recsys.data.batches.requests import RankingBatch
from recsys.data.content.clusters import candidate_features
from recsys.data.contract.schema import IMPRESSION, LENGTHS, TimelineKind
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.stores.dataset import PreparedDataset

#: Columns of ids of an event, in the order of ``RankingBatch.recent_ids``.
RECENT_IDS = ("item", "author", "topic")


class UserVectors(Protocol):
    """Embeddings of users that somebody else has published."""

    @property
    def shape(self) -> tuple[int, int]:
        """N vectors of width W."""

    def read(
        self, user: NDArray[np.integer], moment: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """[B, N, W] as served at moments [B] in ms, and [B] whether there is one."""


class RankingReader(RowReader[RankingBatch]):
    """Reads recent events and numbers of candidates beside the features of rows.

    Args:
        dataset: the prepared data set.
        gap_hours: how long before the request everything that is read ends.
        recent_events: T, newest events of both timelines together.
        features: what is counted of candidates.
        user_embeddings: published ones; None for a model that reads none.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        *,
        gap_hours: float,
        recent_events: int,
        features: CandidateFeatureConfig,
        user_embeddings: UserVectors | None = None,
    ) -> None:
        super().__init__(dataset, gap_hours=gap_hours, max_events=recent_events)
        self.candidates = candidate_features(dataset, features)
        self._user_embeddings = user_embeddings
        self._impression = dataset.manifest.actions.names.index(IMPRESSION)

    def read(self, rows: RequestRows) -> RankingBatch:
        """The batch of some requests."""
        moment = rows.request_time - self._gap
        return RankingBatch(
            **self._of_rows(rows),
            **self._recent(rows.user, moment),
            **self._embedded(rows.user, moment),
            counted=self._counted(rows),
        )

    def candidate_side(self, rows: RequestRows) -> dict[str, Tensor]:
        """Of the batch of some requests what belongs to the rows alone, and not to their users."""
        return {
            "item_categorical": self._item_categorical(rows),
            "item_dense": self._item_dense(rows),
            "counted": self._counted(rows),
        }

    def _counted(self, rows: RequestRows) -> Tensor:
        moment = rows.request_time - self._gap
        counted = self.candidates.compute(rows.user, moment, rows.rows_per_request, rows.item)
        return torch.from_numpy(counted)

    def _embedded(self, user: NDArray[np.integer], moment: NDArray[np.int64]) -> dict[str, Tensor]:
        """The fields of published embeddings."""
        if self._user_embeddings is None:
            values, known = np.zeros((len(user), 0, 0), np.float32), np.zeros(len(user), np.bool_)
        else:
            values, known = self._user_embeddings.read(user, moment)
        return {
            "user_embedding": torch.from_numpy(values),
            "has_embedding": torch.from_numpy(known),
        }

    def _recent(self, user: NDArray[np.integer], moment: NDArray[np.int64]) -> dict[str, Tensor]:
        """The fields of recent events, both timelines together in order of time."""
        parts, lengths = [], []
        for kind in TimelineKind:
            events = self._dataset.timelines.histories(user, moment, kind, self._max_events)
            events = self._fit_vocabulary.hide_unseen_events(events)
            lengths.append(events[LENGTHS])
            parts.append(self._columns(events))
        owner, time, ids, action, dwell = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        # what a user did with an item comes behind its impression, also at the same moment
        order = np.lexsort((action != self._impression + 1, time, owner))
        place, kept = _places_from_the_end(owner[order], len(user), self._max_events)
        order, place = order[kept], place[kept]
        slot = owner[order] * self._max_events + place
        filled = {
            "recent_ids": (ids, np.int64),
            "recent_action": (action, np.int64),
            "recent_time": (time, np.int64),
            "recent_dwell": (dwell, np.float32),
        }
        shape = (len(user), self._max_events)
        found = {
            name: torch.from_numpy(_filled(column[order], slot, shape, dtype))
            for name, (column, dtype) in filled.items()
        }
        found["recent_lengths"] = torch.from_numpy(np.bincount(owner[order], minlength=len(user)))
        return {**found, "events": torch.from_numpy(np.stack(lengths, axis=1))}

    def _columns(self, events: dict[str, NDArray]) -> tuple[NDArray, ...]:
        """Owner, time, ids [E, 3], action and dwell time of the events of a timeline."""
        owner = np.repeat(np.arange(len(events[LENGTHS])), events[LENGTHS])
        ids = np.stack([events[name] for name in RECENT_IDS], axis=1)
        none = np.zeros(len(owner), np.float32)
        action = events.get("action_type", np.full(len(owner), self._impression))
        dwell = np.log1p(np.nan_to_num(np.maximum(events.get("dwell_time", none), 0), nan=0.0))
        return owner, events["timestamp"], ids, action.astype(np.int64) + 1, dwell


def _places_from_the_end(
    owner: NDArray[np.int64], num_owners: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of events [E] sorted by owner the slot of each among ``most``, the last one's at the end;
    and which of them have one.
    """
    stop = np.cumsum(np.bincount(owner, minlength=num_owners))
    from_end = stop[owner] - np.arange(len(owner))  # 1 the newest
    return most - from_end, from_end <= most


def _filled(
    column: NDArray, slot: NDArray[np.int64], shape: tuple[int, int], dtype: type
) -> NDArray:
    """[B, T, ...] zeros but for the column's entries in their slots."""
    filled = np.zeros((shape[0] * shape[1], *column.shape[1:]), dtype)
    filled[slot] = column
    return filled.reshape(*shape, *column.shape[1:])

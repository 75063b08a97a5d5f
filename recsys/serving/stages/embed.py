"""Embedding users as of a moment, from their timelines.

Legend: B users, V items of the data set, W width of an embedding.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.sequence_tower import Embed
from recsys.core.errors import ArtifactError
from recsys.serving.histories import Histories
from recsys.serving.pipeline import Embedded, StepUsers


class UserEmbedder:
    """Runs a user tower on the histories that a log holds.

    Args:
        tower: ``SequenceTowerArtifact.embed``, or a trained model's.
        histories: that end strictly before the moment.
        items: [V, W] float32 embedding of every item index, zeros where there is none.
    """

    name = "embed"

    def __init__(self, tower: Embed, histories: Histories, items: NDArray[np.float32]) -> None:
        self._tower = tower
        self._histories = histories
        self._items = torch.from_numpy(items)

    def embed(self, users: StepUsers) -> Embedded:
        """The embeddings [B, W]; a user who is not in the log has no history.

        Raises:
            ArtifactError: an embedding holds NaN or infinity.
        """
        places, found, lengths = [], [], []
        for place, batch in self._histories.parts(users):
            with torch.no_grad():
                found.append(self._tower(batch, self._items[batch.item]).numpy())
            places.append(place)
            lengths.append(batch.lengths.numpy())
        order = np.argsort(np.concatenate(places))
        embedding, events = np.concatenate(found)[order], np.concatenate(lengths)[order]
        bad = ~np.isfinite(embedding).all(axis=1)
        if bad.any():
            raise ArtifactError(
                f"The user tower gives NaN or infinity for {int(bad.sum())} of {len(bad)} users "
                f"(user index {int(users.indices[np.argmax(bad)])} is the first); its training has "
                "diverged: export an earlier checkpoint."
            )
        return Embedded(embedding, events)


class HistoryLengths:
    """For sources that read histories themselves: everybody has an embedding, which says nothing.

    Args:
        histories: that end strictly before the moment.
    """

    name = "histories"

    def __init__(self, histories: Histories) -> None:
        self._histories = histories

    def embed(self, users: StepUsers) -> Embedded:
        """Ones [B, 1], and how many events each history has."""
        events = np.zeros(len(users), np.int64)
        for place, batch in self._histories.parts(users):
            events[place] = batch.lengths.numpy()
        return Embedded(np.ones((len(users), 1), np.float32), events)


class CountsEvents(Protocol):
    """Reads the timelines of users."""

    def num_events(
        self, user: NDArray[np.integer], request_time: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """[B] events that a model reads of each user [B] at a moment [B] in ms."""
        ...


class TimelineLengths:
    """How much is known of users; the predictions read their timelines themselves.

    Args:
        reader: of timelines.
    """

    name = "timelines"

    def __init__(self, reader: CountsEvents) -> None:
        self._reader = reader

    def embed(self, users: StepUsers) -> Embedded:
        """Ones [B, 1], which say nothing, and how many events each user has."""
        events = self._reader.num_events(users.indices, np.full(len(users), users.moment))
        return Embedded(np.ones((len(users), 1), np.float32), events)

"""User embeddings as of a moment, from the users' timelines."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.sequence_tower import Embed
from recsys.core.errors import ArtifactError
from recsys.data.batches.sequences.reader import SequenceReader


class UserEmbedder:
    """Runs a user tower on the histories that a log holds.

    Args:
        embed: the tower: ``SequenceTowerArtifact.embed``, or a trained model's.
        reader: of the histories; it cuts them strictly before the moment.
        items: [V, W] float32 embedding of every item index, zeros where there is none.
    """

    def __init__(self, embed: Embed, reader: SequenceReader, items: NDArray[np.float32]) -> None:
        self._embed = embed
        self._reader = reader
        self._items = torch.from_numpy(items)

    def __call__(
        self, users: NDArray[np.int64], moment: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The users' embeddings [B, W], and how many events each was made from [B].

        Args:
            users: [B] indices; 0, the unknown user, has no history.
            moment: ms.

        Raises:
            ArtifactError: an embedding holds NaN or infinity.
        """
        batch = self._reader.before(users, moment)
        with torch.no_grad():
            embedding = self._embed(batch, self._items[batch.item]).numpy()
        bad = ~np.isfinite(embedding).all(axis=1)
        if bad.any():
            raise ArtifactError(
                f"The user tower gives NaN or infinity for {int(bad.sum())} of {len(users)} users "
                f"(user index {int(users[np.argmax(bad)])} is the first); its training has "
                "diverged: export an earlier checkpoint."
            )
        return embedding, batch.lengths.numpy()

"""Embedding users as of a moment, from their timelines.

Legend: B users, V items of the data set, W width of an embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.sequence_tower import Embed
from recsys.core.errors import ArtifactError
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.serving.pipeline import Embedded, StepUsers


class UserEmbedder:
    """Runs a user tower on the histories that a log holds.

    Args:
        tower: ``SequenceTowerArtifact.embed``, or a trained model's.
        reader: of the histories; it cuts them strictly before the moment.
        items: [V, W] float32 embedding of every item index, zeros where there is none.
        gap_ms: how long before the moment a history ends.
    """

    name = "embed"

    def __init__(
        self, tower: Embed, reader: SequenceReader, items: NDArray[np.float32], gap_ms: int = 0
    ) -> None:
        self._tower = tower
        self._gap_ms = gap_ms
        self._reader = reader
        self._items = torch.from_numpy(items)

    def embed(self, users: StepUsers) -> Embedded:
        """The embeddings [B, W]; a user who is not in the log has no history.

        Raises:
            ArtifactError: an embedding holds NaN or infinity.
        """
        batch = self._reader.before(users.indices, users.moment, self._gap_ms)
        with torch.no_grad():
            embedding = self._tower(batch, self._items[batch.item]).numpy()
        bad = ~np.isfinite(embedding).all(axis=1)
        if bad.any():
            raise ArtifactError(
                f"The user tower gives NaN or infinity for {int(bad.sum())} of {len(bad)} users "
                f"(user index {int(users.indices[np.argmax(bad)])} is the first); its training has "
                "diverged: export an earlier checkpoint."
            )
        return Embedded(embedding, batch.lengths.numpy())

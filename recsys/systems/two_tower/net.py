"""The user tower of the two-tower model: recent history, features, a published embedding.

Legend: B users, E events (jagged), N vectors of width W_p of a published embedding, M of them as
the model takes them, W width of an embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.towers import TowerBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.nn.interaction.adopted import AdoptedEmbedding, AdoptionConfig
from recsys.systems.nxtpost.net import SequenceTower, SequenceTowerConfig

#: How a published embedding may come in.
ADOPTED = ("projected", "gated")


class UserTower(nn.Module):
    """Recent history and features by ``SequenceTower``; what a published embedding adds to them.

    Args:
        history: sizes of what reads history and features.
        adoption: how a published embedding comes in.
        width: W.
        manifest: surfaces, actions and user features of the data set.
        embedding_shape: N and W_p; None for a model that reads no published embedding.

    Raises:
        ConfigError: ``adoption.kind`` is not one for towers.
    """

    def __init__(
        self,
        history: SequenceTowerConfig,
        adoption: AdoptionConfig,
        width: int,
        manifest: DatasetManifest,
        embedding_shape: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.history = SequenceTower(history, width, manifest)
        self.adopted = None
        if embedding_shape is None:
            return
        if adoption.kind not in ADOPTED:
            raise ConfigError(
                f"model.adoption.kind={adoption.kind} is for rankers; a two-tower model takes "
                f"{' or '.join(ADOPTED)}."
            )
        self.adopted = AdoptedEmbedding(adoption, embedding_shape, width)
        self.joined = nn.Sequential(
            nn.Linear((1 + adoption.vectors) * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, batch: TowerBatch, items: Tensor) -> Tensor:
        """The user embeddings.

        Args:
            batch: of B users.
            items: [E, W] embeddings of the events' items.

        Returns:
            [B, W], L2-normalised.
        """
        encoded = self.history.encode(
            items,
            batch.action_type,
            batch.surface,
            batch.timestamp,
            batch.lengths,
            batch.user_categorical,
            batch.user_dense,
            batch.host_lengths,
        )
        user = self.history.user_embedding(encoded, batch.request_time)
        if self.adopted is None or batch.user_embedding is None:
            return user
        adopted = self.adopted(batch.user_embedding, batch.has_embedding)  # [B, M, W]
        joined = self.joined(torch.cat([user.unsqueeze(1), adopted], dim=1).flatten(1))
        return F.normalize(user + joined, dim=1)

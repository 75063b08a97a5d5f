"""The user tower of the two-tower model: recent history, features, a published embedding.

Legend: B users, E events (jagged), N vectors of width W_p of a published embedding, M of them as
the model takes them, W width of an embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.errors import ConfigError
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

    def forward(
        self,
        post_embedding: Tensor,
        action_type: Tensor,
        surface: Tensor,
        timestamp: Tensor,
        lengths: Tensor,
        request_time: Tensor,
        user_categorical: Tensor,
        user_dense: Tensor,
        published: Tensor | None = None,
        has_published: Tensor | None = None,
        host_lengths: Tensor | None = None,
    ) -> Tensor:
        """The user embeddings of a batch; this is what is exported.

        Args:
            post_embedding: [E, W] embeddings of the events' items, each user's oldest first.
            action_type: [E] int64.
            surface: [E] int64.
            timestamp: [E] int64, ms.
            lengths: [B] int64, events per user; 0 is allowed.
            request_time: [B] int64, ms.
            user_categorical: [B, F_u] int64.
            user_dense: [B, D_u] float32.
            published: [B, N, W_p] float32, not looked at where there is none; None for a model
                that reads none.
            has_published: [B] bool.
            host_lengths: [B] ``lengths`` on the host.

        Returns:
            [B, W], L2-normalised.
        """
        encoded = self.history.encode(
            post_embedding,
            action_type,
            surface,
            timestamp,
            lengths,
            user_categorical,
            user_dense,
            host_lengths,
        )
        user = self.history.user_embedding(encoded, request_time)
        if self.adopted is not None:
            assert published is not None and has_published is not None
            adopted = self.adopted(published, has_published)  # [B, M, W]
            joined = self.joined(torch.cat([user.unsqueeze(1), adopted], dim=1).flatten(1))
            user = F.normalize(user + joined, dim=1)
        return user

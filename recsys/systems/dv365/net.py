"""The user tower: pooled slices, encoded (η of DV365 equation 10), and maybe recent events."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.nn.encoders.base import UserEncoder
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.pooling.slice_pooling import SlicePooling
from recsys.nn.sequence.recent_events import RecentEvents


class UserTower(nn.Module):
    """Turns a user's timelines into the user embedding; this is what is exported.

    Args:
        pooling: timelines → pooled slices [B, N, D].
        encoder: pooled slices → vectors [B, N, D].
        recent: the most recent events → vectors that come behind those (appendix C).

    Attributes:
        num_outputs: N_out, vectors of a user embedding.
    """

    def __init__(
        self,
        pooling: CellPooling | SlicePooling,
        encoder: UserEncoder,
        recent: RecentEvents | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.encoder = encoder
        self.recent = recent
        self.num_outputs = encoder.num_outputs + (0 if recent is None else recent.num_outputs)

    def forward(
        self,
        explicit: dict[str, Tensor],
        implicit: dict[str, Tensor],
        request_time: Tensor,
    ) -> Tensor:
        """Encode the timelines of a batch of requests.

        Args:
            explicit: jagged explicit timeline, see ``recsys.data.batches.requests``.
            implicit: jagged implicit timeline.
            request_time: [B] int64, ms.

        Returns:
            [B, N_out, D].
        """
        if request_time.shape[0] == 0:  # lookups cannot tell the width of nothing
            shape = [0, self.num_outputs, self.pooling.dimension]
            return torch.zeros(shape, device=request_time.device)
        encoded: Tensor = self.encoder(self.pooling(explicit, implicit, request_time))
        if self.recent is not None:
            encoded = torch.cat([encoded, self.recent(explicit, implicit)], dim=1)
        return encoded

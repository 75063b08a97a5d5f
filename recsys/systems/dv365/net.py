"""The user tower: pooled slices, encoded (η of DV365 equation 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.nn.encoders.base import UserEncoder
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.pooling.slice_pooling import SlicePooling


class UserTower(nn.Module):
    """Turns a user's timelines into the user embedding; this is what is exported.

    Args:
        pooling: timelines → pooled slices [B, N, D].
        encoder: pooled slices → user embedding [B, N_out, D].
    """

    def __init__(self, pooling: CellPooling | SlicePooling, encoder: UserEncoder) -> None:
        super().__init__()
        self.pooling = pooling
        self.encoder = encoder

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
            shape = [0, self.encoder.num_outputs, self.pooling.dimension]
            return torch.zeros(shape, device=request_time.device)
        encoded: Tensor = self.encoder(self.pooling(explicit, implicit, request_time))
        return encoded

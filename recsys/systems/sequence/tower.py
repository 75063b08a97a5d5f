"""The user tower of SASRec or HSTU by itself, as it is exported: items come as their embeddings.

Legend: B users, E events over all histories (jagged), D width, W = D + 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.nn.sequence.base import newest_steps, step_number
from recsys.systems.sequence.module import SequenceRecommender


class SequenceUserTower(nn.Module):
    """A history of items → a user embedding whose product with an item's is the model's score.

    Items have the D numbers that the model learned and one more, which is for the index alone:
    where scores are dot products, it gives all rows of ``exported_items`` one length, so that an
    index of cosines orders items as their products do; where scores are cosines it is 0. The user
    embedding has a 0 there.

    Args:
        model: trained.
        max_length: newest events that are looked at.
    """

    def __init__(self, model: SequenceRecommender, max_length: int) -> None:
        super().__init__()
        self.width = model.config.width
        self.max_length = max_length
        self.normalised = model.config.scale is not None
        self.token_scale = float(model.config.width) ** 0.5
        self.unknown = nn.Parameter(model.items.weight[0].detach().clone())
        self.no_history = nn.Parameter(model.no_history.detach().clone())
        self.positions = model.positions
        self.encoder = model.encoder

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
    ) -> Tensor:
        """The user embeddings of a batch; only items, their order and their times are looked at.

        Args:
            post_embedding: [E, W] rows of ``exported_items``, each user's events oldest first;
                zeros for an item that has none, which is read as the unknown one.
            action_type: [E], not looked at.
            surface: [E], not looked at.
            timestamp: [E] int64, ms.
            lengths: [B] int64, events per user; 0 is allowed.
            request_time: [B], not looked at.
            user_categorical: [B, F_u], not looked at.
            user_dense: [B, D_u], not looked at.

        Returns:
            [B, W], L2-normalised where scores are cosines.
        """
        event, lengths = newest_steps(lengths, self.max_length)
        items = post_embedding[:, : self.width].index_select(0, event)
        is_known = (items != 0).any(dim=1, keepdim=True)
        items = torch.where(is_known, items, self.unknown)
        num_steps = event.shape[0]
        of_step = torch.repeat_interleave(lengths, lengths, output_size=num_steps)
        from_end = of_step - 1 - step_number(lengths, num_steps)
        tokens = items * self.token_scale + self.positions(from_end)
        states = self.encoder(tokens, lengths, timestamp.index_select(0, event))
        # one more row, for users without history
        rows = torch.cat([states, self.no_history.unsqueeze(0)], dim=0)
        last = torch.cumsum(lengths, dim=0) - 1
        last = last.masked_fill(lengths == 0, num_steps)
        users = rows.index_select(0, last)
        if self.normalised:
            users = F.normalize(users, dim=1)
        return torch.cat([users, torch.zeros_like(users[:, :1])], dim=1)


def exported_items(model: SequenceRecommender) -> Tensor:
    """[num_items, W]: the learned rows of all items, that of the unknown one, 0, among them."""
    items = model.items.weight.detach()
    column = torch.zeros(len(items), dtype=torch.float64)
    if model.config.scale is None:
        square = items.double().square().sum(dim=1)
        square[0] = 0.0  # the unknown item is not in an index
        column = (square.max() - square).clamp(min=0).sqrt()
    return torch.cat([items, column.unsqueeze(1).to(items.dtype)], dim=1)

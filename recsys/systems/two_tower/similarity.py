"""Scores of all items by a mixture of logits, some at a time.

Legend: B users, n and V items, W width of an embedding, P pairs of components.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from recsys.nn.interaction.mixture_of_logits import MixtureOfLogits

#: Numbers that are in memory at a time for the gates of pairs: 4 MiB, which stay in a cache.
_NUMBERS_AT_A_TIME = 2**20
#: Items whose scores for one user are computed together.
_ITEMS_OF_ONE = 256


class MixtureScorer:
    """Scores of all items for the queries of a split.

    Args:
        mixture: trained.
        users: [Q, W], a row per query.
        items: [V, W], a row per item index.
    """

    def __init__(self, mixture: MixtureOfLogits, users: Tensor, items: Tensor) -> None:
        self.mixture = mixture
        self.users = users
        self.items = items

    def score(self, queries: slice) -> Tensor:
        """Scores of all item indices, [q, V]."""
        return mixed_scores(self.mixture, self.users[queries], self.items)


@torch.no_grad()
def mixed_scores(mixture: MixtureOfLogits, users: Tensor, items: Tensor) -> Tensor:
    """[B, n] scores of every user [B, W] with every item [n, W], float32."""
    config = mixture.config
    pairs = config.user_components * config.item_components
    numbers = max(len(users), 1) * (pairs + config.gate_hidden_size)
    step = max(_NUMBERS_AT_A_TIME // numbers, 1)
    parts = [mixture.of_all(users, some).float() for some in items.split(step)]
    return torch.cat(parts, dim=1)


class OneUserScores(nn.Module):
    """Scores of items for one user, each the same whatever is scored beside it.

    They are computed in float64, in blocks of one size, and rounded to float32. This is what is
    exported of a mixture.

    Args:
        mixture: trained.
    """

    def __init__(self, mixture: MixtureOfLogits) -> None:
        super().__init__()
        self.mixture = deepcopy(mixture).double()
        self.block = _ITEMS_OF_ONE

    def forward(self, user: Tensor, items: Tensor) -> Tensor:
        """[n] float32 of a user [W] and items [n, W]."""
        count, width = items.shape[0], items.shape[1]
        blocks = (count + self.block - 1) // self.block
        filled = torch.zeros([blocks * self.block, width], dtype=torch.float64, device=items.device)
        filled[:count] = items
        of_user = user.to(torch.float64).unsqueeze(0).expand(self.block, width)
        scores = torch.zeros([blocks * self.block], dtype=torch.float64, device=items.device)
        for number in range(blocks):
            first = number * self.block
            some = filled[first : first + self.block]
            scores[first : first + self.block] = self.mixture(of_user, some)
        return scores[:count].to(torch.float32)

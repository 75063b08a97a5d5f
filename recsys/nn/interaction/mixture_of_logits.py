"""Mixture of logits: a similarity richer than a dot product, of components that an index can hold.

Legend: B users, R pairs, Q and X components of a user and of an item, D width of a component.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.bounds import Number, Positive, Settings, Width

_Few = Annotated[int, Number(at_least=1, at_most=64)]


@dataclass(frozen=True)
class MixtureOfLogitsConfig(Settings):
    """Sizes of a mixture of logits.

    Attributes:
        user_components: Q.
        item_components: X.
        width: D of each component.
        gate_hidden_size: hidden layer of the gating network.
        temperature: τ, by which the cosines are divided.
    """

    user_components: _Few = 4
    item_components: _Few = 4
    width: Width = 32
    gate_hidden_size: Width = 64
    temperature: Positive = 0.05


class MixtureOfLogits(nn.Module):
    """``φ(q, x) = Σ_p π_p(q, x) ⟨f_p(q), g_p(x)⟩ / τ`` over the Q · X pairs of components.

    Components are L2-normalised; π is a softmax of what a network makes of the user, of the item
    and of the pairs' cosines (Zhai et al., KDD 2023, equations 3 to 6).

    Args:
        user_width: of a user's embedding.
        item_width: of an item's embedding.
        config: sizes.
    """

    def __init__(self, user_width: int, item_width: int, config: MixtureOfLogitsConfig) -> None:
        super().__init__()
        self.config = config
        self.num_user, self.num_item = config.user_components, config.item_components
        self.temperature = config.temperature
        pairs = self.num_user * self.num_item
        self.of_user = nn.Linear(user_width, config.user_components * config.width)
        self.of_item = nn.Linear(item_width, config.item_components * config.width)
        self.user_gate = _gate(user_width, config.gate_hidden_size, pairs)
        self.item_gate = _gate(item_width, config.gate_hidden_size, pairs)
        self.pair_gate = _gate(pairs, config.gate_hidden_size, pairs)

    def user_components(self, user: Tensor) -> Tensor:
        """[B, user_width] → [B, Q, D], each of length 1."""
        components = self.of_user(user).unflatten(1, (self.num_user, -1))
        return F.normalize(components, dim=2)

    def item_components(self, item: Tensor) -> Tensor:
        """[n, item_width] → [n, X, D], each of length 1."""
        components = self.of_item(item).unflatten(1, (self.num_item, -1))
        return F.normalize(components, dim=2)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """[R] the similarity of pairs, of [R, user_width] and [R, item_width]."""
        cosines = torch.bmm(
            self.user_components(user), self.item_components(item).transpose(1, 2)
        ).flatten(1)  # [R, Q · X]
        return self._mixed(cosines, self.user_gate(user) + self.item_gate(item))

    def of_all(self, user: Tensor, item: Tensor) -> Tensor:
        """[B, n] the similarity of every user [B, ...] with every item [n, ...]."""
        users, items = self.user_components(user), self.item_components(item)
        cosines = torch.einsum("bqd,nxd->bnqx", users, items).flatten(2)  # [B, n, Q · X]
        gates = self.user_gate(user).unsqueeze(1) + self.item_gate(item)
        return self._mixed(cosines, gates)

    def _mixed(self, cosines: Tensor, gates: Tensor) -> Tensor:
        share = (gates + self.pair_gate(cosines)).softmax(dim=-1)
        return (share * cosines).sum(dim=-1) / self.temperature


def _gate(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))

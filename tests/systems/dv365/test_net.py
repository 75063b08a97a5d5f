"""The user tower is what is exported: it must script, and keep its order of arguments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.nn.encoders import EncoderConfig, build_encoder
from recsys.systems.dv365.net import UserTower


class TwoSlices(nn.Module):
    """Number of explicit and of implicit events, and age of the request, as pooled vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.dimension = 1

    def forward(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> Tensor:
        numbers = [explicit["lengths"], 10 * implicit["lengths"] + request_time]
        return torch.stack(numbers, dim=1).unsqueeze(2).float()


def test_tower_scripts_and_encodes_what_the_pooling_gives() -> None:
    tower = UserTower(
        TwoSlices(), build_encoder(EncoderConfig("linear_compression", num_outputs=1), 2, 1)
    )
    explicit = {"lengths": torch.tensor([3, 0])}
    implicit = {"lengths": torch.tensor([1, 2])}
    arguments = (explicit, implicit, torch.tensor([5, 0]))
    expected = torch.tensor([[[(3 + 15) / 2]], [[(0 + 20) / 2]]])
    torch.testing.assert_close(tower(*arguments), expected)
    torch.testing.assert_close(torch.jit.script(tower)(*arguments), expected)

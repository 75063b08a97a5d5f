"""Equation 5 by hand, and channels that are missing."""

from __future__ import annotations

import math

import torch

from recsys.nn.interaction.channel_fusion import ChannelFusion


def test_equation_5_by_hand() -> None:
    fusion = ChannelFusion(2, 2)
    with torch.no_grad():
        fusion.projection.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
        fusion.projection.bias.copy_(torch.tensor([0.0, math.log(3) - 4 + 1]))
    channels = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    # logits 1 and 4 + ln 3 − 3: weights 1/4 and 3/4
    fused = fusion(channels, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(fused, torch.tensor([[0.25 + 2.25, 0.5 + 3.0]]))


def test_a_missing_channel_is_not_looked_at() -> None:
    torch.manual_seed(0)
    fusion = ChannelFusion(3, 4)
    channels = torch.randn(5, 3, 4)
    present = torch.tensor([[True, False, True]] * 5)
    expected = fusion(channels, present)
    channels[:, 1] = float("nan")
    torch.testing.assert_close(fusion(channels, present), expected)
    alone = fusion(channels, torch.tensor([[False, False, True]] * 5))
    torch.testing.assert_close(alone, channels[:, 2])


def test_no_channel_at_all_gives_zeros_and_no_gradient_that_is_not_finite() -> None:
    fusion = ChannelFusion(2, 3)
    channels = torch.randn(2, 2, 3, requires_grad=True)
    fused = fusion(channels, torch.tensor([[False, False], [True, True]]))
    assert torch.equal(fused[0], torch.zeros(3))
    fused.square().sum().backward()
    assert channels.grad is not None and torch.isfinite(channels.grad).all()
    assert torch.equal(channels.grad[0], torch.zeros(2, 3))
    assert fusion.projection.weight.grad is not None
    assert torch.isfinite(fusion.projection.weight.grad).all()


def test_it_scripts() -> None:
    fusion = ChannelFusion(2, 3)
    arguments = (torch.randn(4, 2, 3), torch.rand(4, 2) > 0.3)
    torch.testing.assert_close(torch.jit.script(fusion)(*arguments), fusion(*arguments))

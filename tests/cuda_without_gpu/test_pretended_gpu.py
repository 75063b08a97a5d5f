"""The pretended GPU itself: what CUDA refuses, and what it waits for, is noted; nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.cuda_without_gpu.pretended_gpu import GPU, PretendedGpu, Side

Two = Callable[[Tensor, Tensor], Any]


def sum_of(values: Tensor, unsafe: bool) -> Tensor:
    """As one segment; with checks of the lengths or without."""
    length = torch.full((1,), len(values), device=values.device)
    return torch.segment_reduce(values, "sum", lengths=length, unsafe=unsafe)


def noted(act: Two) -> PretendedGpu:
    """What is noted of an act with a tensor [4] of the device and one of the host."""
    with PretendedGpu() as gpu:
        act(torch.arange(4.0, device="cuda"), torch.arange(4.0))
    return gpu


@pytest.mark.parametrize(
    "act",
    [
        lambda device, host: device + host,
        lambda device, host: host @ device,
        lambda device, host: torch.cat([device, host]),
        lambda device, host: torch.cat([device, host.sum()[None]]),
        lambda device, host: torch.stack([device.sum(), host.sum()]),
        lambda device, host: host[device.long()],
        lambda device, host: device.index_select(0, host.long()),
        lambda device, host: device.add_(torch.ones(4)),
        lambda device, host: device + torch.ones(4, device=host.device),
        lambda device, host: device + device.cpu(),
        lambda device, host: device.numpy(),
        lambda device, host: nn.Linear(4, 1)(device),
        lambda device, host: _HostInBackward.apply(device.requires_grad_()).sum().backward(),
    ],
)
def test_both_sides_in_one_operation_are_noted(act: Two) -> None:
    assert noted(act).mixed.total() == 1


class _HostInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value * 2

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        return outer * torch.full((4,), 2.0)


@pytest.mark.parametrize(
    "act",
    [
        lambda device, host: device * 2 + 1.0,
        lambda device, host: device * host.sum(),
        lambda device, host: device + torch.ones(4, device=device.device),
        lambda device, host: torch.where(device > 1, device, 0.0),
        lambda device, host: device[1:] @ device.new_ones(3),
        lambda device, host: device.masked_fill(device > 1, 0),
        lambda device, host: device.__setitem__(device > 1, 0),
        lambda device, host: torch.repeat_interleave(device.long(), output_size=6),
        lambda device, host: sum_of(device, unsafe=True),
        lambda device, host: nn.Linear(4, 1, device=device.device)(device).sum().backward(),
        lambda device, host: host.nonzero().tolist(),
    ],
)
def test_what_cuda_does_by_itself_is_not_noted(act: Two) -> None:
    gpu = noted(act)
    assert not gpu.mixed
    assert not gpu.waits


@pytest.mark.parametrize(
    "act",
    [
        lambda device, host: device.sum().item(),
        lambda device, host: int(device.sum()),
        lambda device, host: bool((device > 1).any()),
        lambda device, host: device.tolist(),
        lambda device, host: device.cpu(),
        lambda device, host: device.to("cpu"),
        lambda device, host: host.to(device.device),
        lambda device, host: host.to(device),
        lambda device, host: device.copy_(host),
        lambda device, host: torch.tensor([1.0], device="cuda"),
        lambda device, host: device.new_tensor([1.0]),
        lambda device, host: device.nonzero(),
        lambda device, host: device[device > 1],
        lambda device, host: device[host.long()],
        lambda device, host: device.unique(),
        lambda device, host: torch.bincount(device.long()),
        lambda device, host: torch.repeat_interleave(device.long()),
        lambda device, host: sum_of(device, unsafe=False),
    ],
)
def test_the_host_s_waits_are_noted_once(act: Two) -> None:
    gpu = noted(act)
    assert not gpu.mixed
    assert gpu.waits.total() == 1


def test_tensors_are_where_they_are_made_or_moved() -> None:
    with PretendedGpu() as gpu:
        with GPU:
            made = nn.Linear(2, 2)
        moved = nn.Linear(2, 2).to("cuda")
        for module in (made, moved):
            assert gpu.side(module.weight) is Side.DEVICE
            assert module.weight.device == GPU
            assert module.weight.is_cuda
        moved(torch.ones(1, 2, device="cuda")).sum().backward()
        optimizer = torch.optim.AdamW(moved.parameters(), fused=True)
        nn.utils.clip_grad_norm_(moved.parameters(), 1.0)
        optimizer.step()
        assert not torch.ones(2).is_cuda
    assert not gpu.mixed

"""Run by test_hstu_triton.py: compares the interpreted kernels with plain PyTorch."""

from __future__ import annotations

from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.nn.kernels.hstu_triton import Sequences, silu_attention
from recsys.nn.sequence.hstu import (
    TIME_BUCKET_WIDTH,
    TIME_BUCKETS,
    HSTUEncoder,
    time_buckets,
)

MAX_LENGTH = 150


def plain(
    parts: list[Tensor], by_position: Tensor, by_time: Tensor | None, lengths: list[int],
    timestamps: Tensor, heads: int,
) -> Tensor:  # fmt: skip
    """One user after the other, all scores in memory; in the type of the inputs."""
    attended = []
    users = zip(*(part.split(lengths) for part in (*parts, timestamps)), strict=True)
    for queries, keys, values, times in users:
        step = torch.arange(len(queries))
        distance = step[:, None] - step
        bias = by_position[distance.clamp(min=0)]
        if by_time is not None:
            bias = bias + by_time[time_buckets(times[None])[0]]
        of_heads = []
        cut = (part.chunk(heads, 1) for part in (queries, keys, values))
        for query, key, value in zip(*cut, strict=True):
            scores = F.silu(query @ key.T + bias).masked_fill(distance < 0, 0)
            of_heads.append(scores @ value / MAX_LENGTH)
        attended.append(torch.cat(of_heads, 1))
    return torch.cat([parts[0][:0], *attended])


def compare(
    lengths: list[int],
    heads: int,
    head_width: int,
    dtype: torch.dtype = torch.float32,
    *,
    has_times: bool = True,
    apart: bool = False,
) -> None:
    """Attention and all gradients, relative to the largest number of each.

    ``apart`` has queries, keys and values side by side in wider rows, as a projection leaves them.
    """
    torch.manual_seed(sum(lengths) + head_width)
    steps, width = sum(lengths), heads * head_width
    whole = torch.randn(steps, 3 * width).to(dtype)
    parts = list(whole.chunk(3, 1)) if apart else [p.contiguous() for p in whole.chunk(3, 1)]
    by_position = torch.randn(MAX_LENGTH)
    by_time = torch.randn(TIME_BUCKETS) if has_times else None
    timestamps = torch.exp(torch.rand(steps) * 20).long().cumsum(0)
    outer = torch.randn(steps, width).to(dtype)
    sequences = Sequences.of(
        torch.tensor(lengths, dtype=torch.int64),
        timestamps if has_times else None,
        MAX_LENGTH,
        TIME_BUCKET_WIDTH,
        steps,
        Sequences.block_size(head_width, dtype),
    )
    leaves = [p.detach().requires_grad_() for p in (*parts, by_position, by_time) if p is not None]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    ours = silu_attention(*leaves[:4], leaves[4] if has_times else None, sequences, heads)
    expected = plain(
        exact[:3], exact[3], exact[4] if has_times else None, lengths, timestamps, heads
    )
    found = [ours, *torch.autograd.grad(ours, leaves, outer)]
    reference = [
        expected,
        *torch.autograd.grad(expected, exact, outer.double(), materialize_grads=True),
    ]
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for mine, theirs in zip(found, reference, strict=True):
        scale = float(theirs.detach().abs().max()) if theirs.numel() else 1.0
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance * scale)
    print(f"{lengths} of {heads} x {head_width} in {dtype} agrees")


def states_and_gradients(encoder: HSTUEncoder, lengths: Tensor, tokens: Tensor) -> list[Tensor]:
    times = 10_000 * torch.arange(len(tokens)) ** 2
    states = encoder(tokens, lengths, times)
    return [states, *torch.autograd.grad(states.square().sum(), list(encoder.parameters()))]


def compare_encoders() -> None:
    """A whole encoder by kernels, and in tiles."""
    torch.manual_seed(0)
    encoder = HSTUEncoder(24, 2, 2, 0.0, MAX_LENGTH, has_times=True)
    lengths = torch.tensor([5, 0, 40, 1])
    tokens = torch.randn(46, 24)
    expected = states_and_gradients(encoder, lengths, tokens)
    with mock.patch.object(HSTUEncoder, "has_kernel", return_value=True):
        ours = states_and_gradients(encoder, lengths, tokens)
    for mine, theirs in zip(ours, expected, strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * scale)
    print("the encoder agrees")


def numbers_kept(lengths: list[int]) -> int:
    """How many numbers attention keeps for the backward."""
    kept = []
    parts = [torch.randn(sum(lengths), 16, requires_grad=True) for _ in range(3)]
    tables = torch.randn(MAX_LENGTH), torch.randn(TIME_BUCKETS)
    sequences = Sequences.of(
        torch.tensor(lengths), torch.arange(sum(lengths)), MAX_LENGTH, 0.3, sum(lengths), 32
    )
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()), lambda _: None
    ):
        silu_attention(*parts, *tables, sequences, 1)
    return sum(kept)


def compare_what_is_kept() -> None:
    """Queries, keys, values and tables: it does not matter how many steps see each other."""
    assert numbers_kept([120]) == numbers_kept([1] * 120) == 3 * 120 * 16 + 150 + 129
    print("what is kept agrees")


compare([1], 1, 16)
compare([0, 3, 0, 70, 1, 0], 2, 16)
compare([64, 128, 65, 63], 1, 20, apart=True)  # whole blocks, and one more or less
compare([150, 33], 1, 50, has_times=False)  # the longest there may be
compare([40, 37], 4, 32, torch.bfloat16, apart=True)
compare([70, 5], 1, 64, torch.bfloat16)
compare([70, 33, 32], 1, 128)
compare([0, 0], 2, 16)
compare([], 1, 16)
compare_encoders()
compare_what_is_kept()

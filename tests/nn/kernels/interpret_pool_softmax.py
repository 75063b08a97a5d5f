"""Run by test_pool_softmax_triton.py: compares the interpreted kernels with plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.nn.kernels.pool_softmax_triton import logsumexp_of_negatives
from recsys.nn.softmax.exclusions import Exclusions, Owned

SCALE = 0.7


def plain(queries: Tensor, columns: Tensor, bias: Tensor | None, exclusions: Exclusions) -> Tensor:
    logits = SCALE * queries.float() @ columns.float().T
    if bias is not None:
        logits = logits + bias
    row, column = exclusions.pairs(slice(0, len(queries)))
    excluded = torch.zeros_like(logits, dtype=torch.bool)
    excluded[row, column] = True
    return torch.logsumexp(logits.masked_fill(excluded, -torch.inf), dim=1)


def value_and_gradients(function, queries, columns, bias, exclusions) -> tuple[Tensor, ...]:
    queries, columns = (part.clone().requires_grad_() for part in (queries, columns))
    value = function(queries, columns, bias, exclusions)
    outer = torch.linspace(-1, 1, len(value))
    total = (value * outer).masked_fill(value.isneginf(), 0).sum()  # no negatives: no gradient
    return value.detach(), *torch.autograd.grad(total, [queries, columns])


def compare(
    num_queries: int,
    num_columns: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    num_owners: int = 0,
    pairs_per_owner: int = 0,
    with_bias: bool = False,
) -> None:
    torch.manual_seed(num_queries)
    queries = torch.randn(num_queries, width).to(dtype)
    columns = torch.randn(num_columns, width).to(dtype)
    bias = 3 * torch.randn(num_columns) if with_bias else None
    target = torch.randint(-1, num_columns, (num_queries,))
    exclusions = Exclusions(target)
    if num_owners:
        drawn = torch.arange(num_owners).repeat_interleave(pairs_per_owner)
        position = torch.randint(num_columns, drawn.shape)
        owned = Owned.from_pairs(drawn, position, num_owners)
        exclusions = Exclusions(target, torch.randint(num_owners, (num_queries,)), owned)
    arguments = (queries, columns, bias, exclusions)
    ours = value_and_gradients(lambda *a: logsumexp_of_negatives(*a, SCALE), *arguments)
    expected = value_and_gradients(plain, *arguments)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-5, atol=1e-5)
    for mine, reference in zip(ours[1:], expected[1:], strict=True):
        scale = float(reference.abs().max()) if reference.numel() else 1.0
        torch.testing.assert_close(mine, reference, rtol=tolerance, atol=tolerance * scale)
    print(f"{num_queries} x {num_columns} of width {width} in {dtype} agrees")


compare(70, 130, 20)  # several tiles, none of them full
compare(70, 130, 20, with_bias=True, num_owners=9, pairs_per_owner=30)
compare(130, 70, 16, num_owners=2, pairs_per_owner=200)  # owners of almost everything
compare(5, 3, 50, num_owners=1, pairs_per_owner=99)  # an owner of everything: no negatives
compare(1, 1, 8)
compare(0, 4, 8)
compare(4, 0, 8)
compare(140, 100, 64, torch.bfloat16, num_owners=5, pairs_per_owner=20)
compare(70, 70, 130, torch.bfloat16, with_bias=True)

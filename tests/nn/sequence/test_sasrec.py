from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.nn.sequence import tiles
from recsys.nn.sequence.attention import aligned
from recsys.nn.sequence.sasrec import SASRecBlock, SASRecEncoder, SoftmaxAttention
from tests.nn.sequence.encoder_checks import (
    LENGTHS,
    WIDTH,
    check_batch_invariant,
    check_causal,
    check_scripts,
    sample,
)

_attention = F.scaled_dot_product_attention


def _encoder(heads: int = 2, dropout: float = 0.0) -> SASRecEncoder:
    torch.manual_seed(1)
    encoder = SASRecEncoder(WIDTH, blocks=2, heads=heads, dropout=dropout)
    for parameter in encoder.parameters():  # norms too, which start as the identity
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def _block_step_by_step(block: SASRecBlock, inputs: Tensor) -> Tensor:
    """One user's block, one step and head at a time, [T, D] → [T, D]."""
    heads, width = block.attention.heads, inputs.shape[1] // block.attention.heads
    outputs = []
    for i in range(len(inputs)):
        normed = block.attention_norm(inputs[i])
        attended = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            query = block.query(normed)[part]
            scores = [query @ block.key(inputs[j])[part] / math.sqrt(width) for j in range(i + 1)]
            weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
            values = [block.value(inputs[j])[part] for j in range(i + 1)]
            attended.append(sum(w * v for w, v in zip(weights, values, strict=True)))
        hidden = block.feed_forward_norm(normed + torch.cat(attended))
        first, second = block.feed_forward[0], block.feed_forward[3]
        outputs.append(hidden + second(F.relu(first(hidden))))
    return torch.stack(outputs)


def test_attention_worked_example():
    # scores 0 and ln 3: weights 1/4 and 3/4
    attention = SoftmaxAttention(1, 1, dropout=0.0)
    queries = torch.tensor([[[5.0], [1.0]]])
    keys = torch.tensor([[[0.0], [math.log(3)]]])
    values = torch.tensor([[[4.0], [8.0]]])
    no_future = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    attended = attention.attend(queries, keys, values, no_future)
    assert torch.allclose(attended[0, :, 0], torch.tensor([4.0, 7.0]))


@pytest.mark.parametrize("heads", [1, 2])
def test_what_a_gpu_computes_equals_what_a_cpu_does(heads):
    encoder = _encoder(heads).double()
    tokens = sample()[0].double()
    results = []
    with patch.object(SoftmaxAttention, "attend", _by_kernel):
        results.append(_states_and_gradients(encoder, tokens))
    results.append(_states_and_gradients(encoder, tokens))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def _by_kernel(
    self: SoftmaxAttention, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor
) -> Tensor:
    """As on a GPU: with the zeros that its kernels want behind a head of width 3 or 6."""
    with patch("recsys.nn.sequence.attention.F.scaled_dot_product_attention", _aligned):
        return self.attend_by_kernel(queries, keys, values)


def _aligned(queries: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any) -> Tensor:
    return _attention(aligned(queries), aligned(keys), aligned(values), *rest, **named)


def _states_and_gradients(encoder: SASRecEncoder, tokens: Tensor) -> list[Tensor]:
    states = encoder(tokens, LENGTHS)
    return [states, *torch.autograd.grad(states.square().sum(), list(encoder.parameters()))]


def test_a_gpu_keeps_no_scores():
    """PyTorch's fused attention for the CPU stands for those of CUDA."""

    def kept(lengths: list[int]) -> int:
        numbers: list[int] = []
        attention = SoftmaxAttention(8, 1, dropout=0.0)
        parts = [torch.randn(len(lengths), max(lengths), 8, requires_grad=True) for _ in range(3)]
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: numbers.append(tensor.numel()), lambda _: None
        ):
            attention.attend_by_kernel(*parts)
        return sum(numbers)

    assert kept([120]) == kept([1] * 120)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("max_scores", [1, 60, 10_000])
def test_equals_one_step_at_a_time(heads, max_scores, monkeypatch):
    monkeypatch.setattr(tiles, "_TILE_SCORES", heads * max_scores)
    encoder = _encoder(heads)
    tokens, _ = sample()
    expected = []
    for states in tokens.split(LENGTHS.tolist()):
        for block in encoder.blocks:
            states = _block_step_by_step(block, states) if len(states) else states
        expected.append(encoder.norm(states))
    assert torch.allclose(encoder(tokens, LENGTHS), torch.cat(expected), atol=1e-5)


def test_gradients_equal_those_of_one_step_at_a_time():
    encoder = SASRecEncoder(WIDTH, blocks=1, heads=2, dropout=0.0).double()
    tokens = sample()[0].double()
    target = torch.randn_like(tokens)

    def gradients(states: Tensor) -> list[Tensor]:
        loss = (states - target).square().sum()
        return list(torch.autograd.grad(loss, list(encoder.parameters())))

    parts = [part for part in tokens.split(LENGTHS.tolist()) if len(part)]
    reference = torch.cat([_block_step_by_step(encoder.blocks[0], part) for part in parts])
    for ours, theirs in zip(
        gradients(encoder(tokens, LENGTHS)), gradients(encoder.norm(reference)), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_causal():
    check_causal(_encoder())


def test_batch_invariant():
    check_batch_invariant(_encoder())


def test_scripts():
    check_scripts(_encoder(dropout=0.5))


def test_dropout_only_in_training():
    encoder = _encoder(dropout=0.5)
    tokens, _ = sample()
    assert not torch.equal(encoder(tokens, LENGTHS), encoder(tokens, LENGTHS))
    encoder.eval()
    assert torch.equal(encoder(tokens, LENGTHS), encoder(tokens, LENGTHS))

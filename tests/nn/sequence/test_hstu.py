from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.nn.sequence import tiles
from recsys.nn.sequence.hstu import HSTUBlock, HSTUEncoder, SiLUAttention, time_buckets
from tests.nn.sequence.encoder_checks import (
    LENGTHS,
    WIDTH,
    check_batch_invariant,
    check_causal,
    check_scripts,
    sample,
)

MAX_LENGTH = 9


def _encoder(heads: int = 2, dropout: float = 0.0, *, has_times: bool = True) -> HSTUEncoder:
    torch.manual_seed(1)
    encoder = HSTUEncoder(WIDTH, 2, heads, dropout, MAX_LENGTH, has_times)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def _norm(vector: Tensor) -> Tensor:
    return (vector - vector.mean()) / torch.sqrt(vector.var(unbiased=False) + 1e-5)


def _block_step_by_step(block: HSTUBlock, inputs: Tensor, times: Tensor) -> Tensor:
    """One user's block, one pair of steps at a time: [T, D] and ms [T] → [T, D]."""
    heads = block.attention.heads
    width = inputs.shape[1] // heads
    projected = [F.silu(block.projection.weight @ _norm(step)) for step in inputs]
    gates, values, queries, keys = zip(*(step.chunk(4) for step in projected), strict=True)
    outputs = []
    for i in range(len(inputs)):
        attended = torch.zeros_like(inputs[0])
        for j in range(i + 1):
            bias = block.bias.position[i - j]
            if block.bias.time is not None:
                seconds = max(1.0, abs(int(times[i]) - int(times[j])) / 1000)
                bias = bias + block.bias.time[min(128, math.floor(math.log(seconds) / 0.301))]
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                score = queries[i][part] @ keys[j][part] + bias
                attended[part] += F.silu(score) / MAX_LENGTH * values[j][part]
        outputs.append(inputs[i] + block.output(gates[i] * _norm(attended)))
    return torch.stack(outputs)


def test_attention_worked_example():
    # one key of score ln 3, weight ln 3 · sigmoid(ln 3) = 3/4 ln 3; its value is 8, n is 6
    attention = SiLUAttention(1, 1, max_length=6)
    one, score = torch.ones(1, 1, 1), torch.full((1, 1, 1), math.log(3) - 0.5)
    attended = attention.attend(one, score, 8 * one, bias=torch.tensor([[0.5]]))
    assert attended.item() == pytest.approx(math.log(3))


def test_time_buckets_worked_example():
    # differences of 0 s, 1 s, e^0.301 s = 1.351 s and a day: ln(86400) / 0.301 = 37.76
    times = torch.tensor([[0, 1000, 1352, 86_400_000]])
    assert time_buckets(times)[0, 0].tolist() == [0, 0, 1, 37]
    assert time_buckets(times)[0, 3, 0] == 37  # whichever comes first
    far = torch.tensor([[0, 2**62]])  # ms: ln(4.6e15) / 0.301 = 119.7
    assert time_buckets(far).max() == 119
    assert time_buckets(far, num_buckets=100).max() == 99


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("has_times", [False, True])
@pytest.mark.parametrize("max_scores", [1, 60, 10_000])
def test_equals_one_step_at_a_time(heads, has_times, max_scores, monkeypatch):
    monkeypatch.setattr(tiles, "_TILE_SCORES", heads * max_scores)
    encoder = _encoder(heads, has_times=has_times)
    tokens, times = sample()
    expected = []
    parts = zip(tokens.split(LENGTHS.tolist()), times.split(LENGTHS.tolist()), strict=True)
    for states, own_times in parts:
        for block in encoder.blocks:
            states = _block_step_by_step(block, states, own_times) if len(states) else states
        expected.append(states)
    encoded = encoder(tokens, LENGTHS, times if has_times else None)
    assert torch.allclose(encoded, torch.cat(expected), atol=1e-5)


def test_gradients_equal_those_of_one_step_at_a_time():
    encoder = HSTUEncoder(WIDTH, 1, 2, 0.0, MAX_LENGTH, has_times=True).double()
    tokens, times = sample()
    tokens = tokens.double()
    target = torch.randn_like(tokens)

    def gradients(states: Tensor) -> list[Tensor]:
        loss = (states - target).square().sum()
        return list(torch.autograd.grad(loss, list(encoder.parameters())))

    parts = zip(tokens.split(LENGTHS.tolist()), times.split(LENGTHS.tolist()), strict=True)
    reference = [_block_step_by_step(encoder.blocks[0], *part) for part in parts if len(part[0])]
    for ours, theirs in zip(
        gradients(encoder(tokens, LENGTHS, times)), gradients(torch.cat(reference)), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_shorter_batches_are_divided_by_the_same_length():
    encoder = _encoder(has_times=False).eval()
    tokens = torch.randn(MAX_LENGTH, WIDTH)
    whole = encoder(tokens, torch.tensor([MAX_LENGTH]))
    assert torch.allclose(encoder(tokens[:3], torch.tensor([3])), whole[:3], atol=1e-6)


def test_causal():
    check_causal(_encoder())


@pytest.mark.parametrize("has_times", [False, True])
def test_batch_invariant(has_times):
    check_batch_invariant(_encoder(has_times=has_times))


@pytest.mark.parametrize("has_times", [False, True])
def test_scripts(has_times):
    check_scripts(_encoder(dropout=0.5, has_times=has_times))


def test_refuses_sequences_that_are_too_long():
    with pytest.raises(ValueError, match="has 10 steps, the encoder was made for at most 9"):
        _encoder(has_times=False)(torch.randn(10, WIDTH), torch.tensor([10]))


def test_asks_for_the_times_it_was_made_for():
    with pytest.raises(ValueError, match="give timestamps"):
        _encoder()(torch.randn(3, WIDTH), torch.tensor([3]))

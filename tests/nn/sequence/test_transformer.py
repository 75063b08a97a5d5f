"""The Transformer against a loop over users, heads and steps; masks, empty sequences, scripting."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.nn.sequence.transformer import TransformerLayer, TransformerSequenceEncoder

WIDTH, HEADS = 8, 2
LENGTHS = torch.tensor([3, 0, 1, 5])


def build(causal: bool, dropout: float = 0.2) -> TransformerSequenceEncoder:
    """Every weight random, also those that start at 0 or 1; in evaluation mode."""
    torch.manual_seed(0)
    encoder = TransformerSequenceEncoder(WIDTH, 2, HEADS, 3, dropout, causal).double().eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def random_tokens(steps: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, WIDTH, dtype=torch.float64, generator=generator)


def norm(row: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    centred = row - row.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias


def reference_layer(tokens: Tensor, layer: TransformerLayer, causal: bool) -> Tensor:
    """One user's sequence [T, D], one head and one step at a time."""
    attention = layer.attention
    queries, keys, values = (
        tokens @ attention.projection.weight.T + attention.projection.bias
    ).split(WIDTH, dim=1)
    size = WIDTH // HEADS
    outputs = []
    for step in range(len(tokens)):
        seen = slice(0, step + 1) if causal else slice(None)
        heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = keys[seen, part] @ queries[step, part] / math.sqrt(size)
            heads.append(torch.exp(scores) / torch.exp(scores).sum() @ values[seen, part])
        attended = attention.output.weight @ torch.cat(heads) + attention.output.bias
        hidden = norm(tokens[step] + attended, layer.attention_norm)
        first, _, second = layer.feed_forward
        inner = torch.clamp(first.weight @ hidden + first.bias, min=0)
        fed = second.weight @ inner + second.bias
        outputs.append(norm(hidden + fed, layer.output_norm))
    return torch.stack(outputs)


@pytest.mark.parametrize("causal", [True, False])
def test_agrees_with_the_loop_over_users_heads_and_steps(causal: bool) -> None:
    encoder = build(causal)
    tokens = random_tokens(int(LENGTHS.sum()))
    expected = []
    for sequence in tokens.split(LENGTHS.tolist()):
        for layer in encoder.layers if len(sequence) else []:
            sequence = reference_layer(sequence, layer, causal)
        expected.append(sequence)
    torch.testing.assert_close(encoder(tokens, LENGTHS), torch.cat(expected))


def test_causal_states_ignore_later_tokens_and_bidirectional_ones_see_them() -> None:
    tokens = random_tokens(6)
    changed = tokens.clone()
    changed[4] += 1
    lengths = torch.tensor([6])
    causal, bidirectional = build(True), build(False)
    assert torch.equal(causal(tokens, lengths)[:4], causal(changed, lengths)[:4])
    assert not torch.allclose(causal(tokens, lengths)[4:], causal(changed, lengths)[4:])
    for before, after in zip(
        bidirectional(tokens, lengths), bidirectional(changed, lengths), strict=True
    ):
        assert not torch.allclose(before, after)


@pytest.mark.parametrize("causal", [True, False])
def test_a_user_does_not_depend_on_the_others_of_the_batch(causal: bool) -> None:
    encoder = build(causal)
    tokens = random_tokens(3)
    alone = encoder(tokens, torch.tensor([3]))
    for others in ([2, 9], [0, 1]):
        before, after = random_tokens(others[0], 2), random_tokens(others[1], 3)
        lengths = torch.tensor([others[0], 3, others[1]])
        together = encoder(torch.cat([before, tokens, after]), lengths)
        torch.testing.assert_close(together[others[0] : others[0] + 3], alone)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_a_batch_without_steps_gives_no_states(causal: bool, lengths: list[int]) -> None:
    states = build(causal)(random_tokens(0), torch.tensor(lengths, dtype=torch.int64))
    assert states.shape == (0, WIDTH)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_are_finite_and_reach_every_weight(causal: bool) -> None:
    encoder = build(causal, dropout=0.2).train()
    tokens = random_tokens(int(LENGTHS.sum())).requires_grad_()
    states = encoder(tokens, LENGTHS)
    (states * torch.randn_like(states)).sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert torch.isfinite(parameter.grad).all(), name


def test_dropout_is_on_in_training_only() -> None:
    encoder = build(True)
    tokens, lengths = random_tokens(4), torch.tensor([4])
    assert torch.equal(encoder(tokens, lengths), encoder(tokens, lengths))
    encoder.train()
    assert not torch.allclose(encoder(tokens, lengths), encoder(tokens, lengths))


@pytest.mark.parametrize("causal", [True, False])
def test_scripted_saved_and_loaded_it_gives_the_same_states(causal: bool, tmp_path: Path) -> None:
    encoder = build(causal)
    torch.jit.script(encoder).save(str(tmp_path / "encoder.pt"))
    loaded = torch.jit.load(str(tmp_path / "encoder.pt"))
    for lengths in ([3, 0, 1, 5], [0], [1]):
        tokens = random_tokens(sum(lengths))
        torch.testing.assert_close(
            loaded(tokens, torch.tensor(lengths)), encoder(tokens, torch.tensor(lengths))
        )


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"heads=3 does not divide .* 8; choose one of \[1, 2, 4"):
        TransformerSequenceEncoder(8, heads=3)

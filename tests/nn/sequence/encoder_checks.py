"""What holds for every causal encoder of sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.nn.sequence.base import SequenceEncoder

LENGTHS = torch.tensor([4, 0, 7, 1, 7])
WIDTH = 6


def sample(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens [E, D] and times [E] of the users of ``LENGTHS``."""
    generator = torch.Generator().manual_seed(seed)
    steps = int(LENGTHS.sum())
    tokens = torch.randn(steps, WIDTH, generator=generator)
    gaps = torch.randint(0, 10**9, (steps,), generator=generator)
    return tokens, gaps.cumsum(0)


def check_causal(encoder: SequenceEncoder) -> None:
    """A state looks at its own token and the user's earlier ones, and at nothing else."""
    encoder.eval()
    tokens, times = sample()
    tokens.requires_grad_()
    user = torch.repeat_interleave(LENGTHS)
    states = encoder(tokens, LENGTHS, times)
    for step in range(len(tokens)):
        [gradient] = torch.autograd.grad(states[step].square().sum(), tokens, retain_graph=True)
        looked_at = gradient.abs().sum(dim=1) > 0
        expected = (user == user[step]) & (torch.arange(len(tokens)) <= step)
        assert torch.equal(looked_at, expected), step


def check_batch_invariant(encoder: SequenceEncoder) -> None:
    """A user's states do not depend on who else is in the batch."""
    encoder.eval()
    tokens, times = sample()
    together = encoder(tokens, LENGTHS, times).split(LENGTHS.tolist())
    parts = zip(tokens.split(LENGTHS.tolist()), times.split(LENGTHS.tolist()), strict=True)
    for (own_tokens, own_times), states in zip(parts, together, strict=True):
        alone = encoder(own_tokens, torch.tensor([len(own_tokens)]), own_times)
        # other shapes are other sums: up to 24 roundings apart, behind two norms
        assert torch.allclose(alone, states, atol=1e-5)


def check_scripts(encoder: SequenceEncoder) -> None:
    """TorchScript gives the same, also for batches without users or steps."""
    encoder.eval()
    tokens, times = sample()
    scripted = torch.jit.script(encoder)
    assert torch.allclose(
        scripted(tokens, LENGTHS, times), encoder(tokens, LENGTHS, times), atol=1e-6
    )
    for lengths in (torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0])):
        assert scripted(tokens[:0], lengths, times[:0]).shape == (0, WIDTH)
        assert encoder(tokens[:0], lengths, times[:0]).shape == (0, WIDTH)

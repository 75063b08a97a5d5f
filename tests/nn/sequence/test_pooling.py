"""Each pooling against a loop over users."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.nn.sequence.pooling import AttentionPooling, build_pooling

NAMES = ["mean", "sum", "attention", "last"]


def reference(name: str, states: Tensor, pooling: torch.nn.Module) -> Tensor:
    """One user's states [T, D] → [D]."""
    if len(states) == 0:
        return torch.zeros(states.shape[1])
    if name == "attention":
        assert isinstance(pooling, AttentionPooling)
        scores = torch.exp(states @ pooling.score.weight[0])
        return sum((s * state for s, state in zip(scores, states, strict=True))) / scores.sum()
    return {"mean": states.mean(dim=0), "sum": states.sum(dim=0), "last": states[-1]}[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [[3, 0, 1, 4], [0, 0], [2]])
def test_pooling_agrees_with_the_loop_over_users_and_scripts(name: str, lengths: list[int]) -> None:
    torch.manual_seed(0)
    pooling = build_pooling(name, 3)
    states = torch.randn(sum(lengths), 3)
    pooled = pooling(states, torch.tensor(lengths))
    expected = torch.stack([reference(name, s, pooling) for s in states.split(lengths)])
    torch.testing.assert_close(pooled, expected)
    scripted = torch.jit.script(pooling)
    torch.testing.assert_close(scripted(states, torch.tensor(lengths)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right_with_a_user_without_states(name: str) -> None:
    torch.manual_seed(0)
    pooling = build_pooling(name, 3).double()
    lengths = torch.tensor([2, 0, 1])
    states = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: pooling(s, lengths), [states])


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="pooling=max is unknown; choose one of mean, sum"):
        build_pooling("max", 3)

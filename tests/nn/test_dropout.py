from __future__ import annotations

import pytest
import torch
from torch import nn

from recsys.nn.dropout import FastDropout


@pytest.mark.parametrize("probability", [0.05, 0.2, 0.5])
def test_drops_its_share_and_scales_the_rest(probability):
    torch.manual_seed(0)
    inputs = torch.ones(501, 399)
    outputs = FastDropout(probability)(inputs)
    dropped = outputs == 0
    # 5 standard deviations of a binomial share
    tolerance = 5 * (probability * (1 - probability) / inputs.numel()) ** 0.5
    assert abs(dropped.float().mean().item() - probability) < tolerance
    kept = outputs[~dropped]
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - probability)), rtol=2e-5)


def test_neighbours_are_dropped_independently():
    # four elements share a draw: no pair of places within it may go together
    torch.manual_seed(0)
    dropped = (FastDropout(0.5)(torch.ones(100_000, 4)) == 0).double()
    correlation = torch.corrcoef(dropped.T) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max() < 5 / 100_000**0.5


def test_gradient_passes_what_was_kept():
    torch.manual_seed(0)
    inputs = torch.randn(1000, requires_grad=True)
    outputs = FastDropout(0.3)(inputs)
    outputs.sum().backward()
    assert inputs.grad is not None
    assert torch.allclose(inputs.grad * inputs, outputs)


def test_follows_the_global_seed():
    torch.manual_seed(3)
    first = FastDropout(0.5)(torch.ones(100))
    torch.manual_seed(3)
    assert torch.equal(first, FastDropout(0.5)(torch.ones(100)))


def test_does_nothing_in_evaluation_or_without_probability():
    inputs = torch.randn(7)
    assert torch.equal(FastDropout(0.5).eval()(inputs), inputs)
    assert torch.equal(FastDropout(0.0)(inputs), inputs)


def test_scripts():
    scripted = torch.jit.script(nn.Sequential(FastDropout(0.5)))
    inputs = torch.ones(10_000)
    assert 0.4 < (scripted(inputs) == 0).float().mean() < 0.6
    assert torch.equal(scripted.eval()(inputs), inputs)

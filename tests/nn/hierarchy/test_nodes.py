"""Nodes that are learned: each way finds the groups that items are in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.nn.hierarchy.nodes import METHODS, RANDOM, IndexConfig, build_nodes
from recsys.nn.hierarchy.soft_assignment import embeddings_of, soft_nodes


def same(values: torch.Tensor) -> torch.Tensor:
    return values.detach()


def grouped(seed: int = 0, groups: int = 6, each: int = 40) -> tuple[torch.Tensor, np.ndarray]:
    """Items of length 1 around the centres of some groups."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(groups, 16, generator=generator), dim=1)
    group = np.repeat(np.arange(groups), each)
    items = centres[group] + 0.05 * torch.randn(len(group), 16, generator=generator)
    return torch.nn.functional.normalize(items, dim=1), group


@pytest.mark.parametrize("method", [one for one in METHODS if one != RANDOM])
def test_items_of_a_group_come_to_one_node(method: str) -> None:
    torch.manual_seed(0)
    items, group = grouped()
    nodes = build_nodes(IndexConfig(method=method), [6, 4], 16)
    nodes.refit(items)
    weights = [one for one in nodes.parameters() if one.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=0.01) if weights else None
    for step in range(60):
        learned = nodes.learn(items, step / 60, same)
        assert [one.shape for one in learned.nodes] == [items.shape] * 2
        loss = sum(learned.losses.values(), torch.zeros(()))
        assert torch.isfinite(loss)
        if optimiser is not None:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    code = nodes.assign(items)[:, 0].numpy()
    whole = [one for one in range(6) if len(np.unique(code[group == one])) == 1]
    assert len(whole) >= 5  # k-means may have put two groups together and torn one apart
    assert len(np.unique(code)) == 6


def test_random_nodes_are_even_and_cut_through_groups() -> None:
    items, group = grouped(each=500)
    nodes = build_nodes(IndexConfig(method=RANDOM), [6, 4], 16)
    nodes.refit(items)
    chosen = nodes.assign(items)
    table = np.zeros((6, 6, 4))
    np.add.at(table, (group, chosen[:, 0].numpy(), chosen[:, 1].numpy()), 1)
    # 20.8 of each group are expected in each of the 24 nodes: chi² of 143 degrees of freedom
    expected = 500 / 24
    assert 80 < ((table - expected) ** 2 / expected).sum() < 230
    alone = torch.cat([nodes.assign(one.unsqueeze(0)) for one in items[:50]])
    assert torch.equal(alone, chosen[:50])
    first = chosen[:, 0] == 2
    torch.testing.assert_close(nodes.codes[0][2].detach(), items[first].mean(dim=0))
    second = chosen[:, 1] == 3
    left = (items - nodes.codes[0][chosen[:, 0]].detach())[second].mean(dim=0)
    torch.testing.assert_close(nodes.codes[1][3].detach(), left)
    assert not [one for one in nodes.parameters() if one.requires_grad]
    assert build_nodes(IndexConfig(method=RANDOM), [], 16).assign(items).shape == (3000, 0)


def test_codes_that_are_learned_apart_move_no_item() -> None:
    items = grouped()[0][::10].clone().requires_grad_()
    for joint in (True, False):
        nodes = build_nodes(IndexConfig(joint=joint, balance=0.1), [6, 4], 16)
        learned = nodes.learn(items, 0.5, same)
        expected = soft_nodes(items, list(nodes.codes), 20.0).nodes
        assert all(map(torch.equal, learned.nodes, expected))
        assert [one.requires_grad for one in learned.nodes] == [joint] * 2
        moved = torch.autograd.grad(
            learned.losses["balance"],
            [items, nodes.codes[0]],
            retain_graph=True,
            allow_unused=True,
        )
        assert (moved[0] is not None) == joint and moved[1].abs().max() > 0
        [by_distance] = torch.autograd.grad(learned.losses["reconstruction"], [nodes.codes[0]])
        assert by_distance.abs().max() > 0
    with pytest.raises(ConfigError, match="joint=false with reconstruction=0"):
        IndexConfig(joint=False, reconstruction=0)


def test_a_node_is_the_sum_of_its_codes() -> None:
    nodes = build_nodes(IndexConfig(), [3, 2], 4)
    chosen = torch.tensor([[2, 1]])
    first, second = nodes.embeddings(chosen)
    assert torch.equal(first[0], nodes.codes[0][2])
    assert torch.equal(second[0], nodes.codes[0][2] + nodes.codes[1][1])
    assert torch.equal(embeddings_of(chosen, list(nodes.codes))[1], second)


def test_streaming_codes_are_moving_averages() -> None:
    nodes = build_nodes(IndexConfig(method="streaming", decay=0.9, crowding=0.0), [2], 1)
    nodes.refit(torch.tensor([[1.0], [-1.0]]))
    of_one = int(nodes.assign(torch.tensor([[1.0]])))
    nodes.learn(torch.tensor([[2.0], [4.0]]), 0.5, same)
    # N = 0.9 · 1 + 0.1 · 2, S = 0.9 · 1 + 0.1 · (2 + 4)
    assert nodes.codes[0][of_one].item() == pytest.approx(1.5 / 1.1)
    assert nodes.codes[0][1 - of_one].item() == pytest.approx(-1.0)


def test_a_crowded_code_is_farther_away() -> None:
    items = torch.nn.functional.normalize(torch.randn(400, 8), dim=1)

    def largest(crowding: float) -> float:
        torch.manual_seed(1)
        config = IndexConfig(method="streaming", crowding=crowding, decay=0.9)
        nodes = build_nodes(config, [16], 8)
        nodes.codes[0].data *= torch.linspace(0.1, 3, 16).unsqueeze(1)  # some begin far from all
        for _ in range(100):
            nodes.learn(items, 0.5, same)
        return float(np.bincount(nodes.assign(items)[:, 0].numpy(), minlength=16).max())

    assert largest(0.5) < largest(0.0)


def test_one_code_holds_everything() -> None:
    items, _ = grouped(groups=1, each=1)
    nodes = build_nodes(IndexConfig(method="kmeans"), [1, 1], 16)
    nodes.refit(items)
    assert nodes.assign(items).tolist() == [[0, 0]]


@pytest.mark.parametrize("method", ["lti", "streaming"])
def test_codes_without_items_begin_anew_where_many_are(method: str) -> None:
    items, _ = grouped()
    nodes = build_nodes(IndexConfig(method=method), [6, 2], 16)
    with torch.no_grad():
        nodes.codes[0].copy_(torch.full((6, 16), 50.0))
        nodes.codes[0][3] = items.mean(dim=0)
    assert set(nodes.assign(items)[:, 0].tolist()) == {3}
    nodes.restart(items)
    found = np.bincount(nodes.assign(items)[:, 0].numpy(), minlength=6)
    assert (found > 0).all()
    assert torch.equal(nodes.codes[0][3].detach(), items.mean(dim=0))
    kept = nodes.codes[0].detach().clone()
    nodes.restart(items)
    assert torch.equal(nodes.codes[0].detach(), kept)


def test_there_may_be_fewer_items_than_codes() -> None:
    items, _ = grouped(groups=1, each=3)
    nodes = build_nodes(IndexConfig(), [8], 16)
    nodes.restart(items)
    assert torch.isfinite(nodes.codes[0]).all()

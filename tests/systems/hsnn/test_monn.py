"""The networks of the levels and their ensemble."""

from __future__ import annotations

import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.systems.hsnn.monn import ItemMonn, LevelEnsemble, MonnConfig, NodeMonn
from recsys.systems.hsnn.net import RecentSummaries
from recsys.systems.hsnn.sizes import HsnnNetConfig, LevelConfig

SIZES = {
    "XS": MonnConfig(1, 1, 0, 8, [16], 0),
    "S": MonnConfig(3, 2, 1, 8, [16], 2, 4),
}


def test_a_level_starts_as_itself_and_adds_those_above() -> None:
    ensemble = LevelEnsemble(3, 2)
    scores = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 6.0]])]
    assert ensemble(scores[:2]).tolist() == [[3.0, 4.0]]
    with torch.no_grad():
        ensemble.weight[2, 0] = torch.tensor([10.0, 0.0])
        ensemble.weight[2, 1] = torch.tensor([0.0, 1.0])
        ensemble.bias[2] = torch.tensor([0.5, 0.0])
    assert ensemble(scores).tolist() == [[5 + 10 * 1 + 0.5, 6 + 4]]
    assert ensemble(scores[:1]).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("size", SIZES)
def test_items_have_embeddings_of_length_one(size: str) -> None:
    config = SIZES[size]
    monn = ItemMonn(config, 4, 3, 2, 8, 2)
    embedding = monn.embed(torch.randn(5, 3, 8))
    assert embedding.shape == (5, config.item_width)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(5), atol=1e-2, rtol=0)
    user = monn.users(torch.randn(5, 4, 8))
    score, interaction = monn(user, embedding, torch.randn(5, 2, 8))
    assert score.shape == (5, 2)
    assert interaction.shape == (5, config.interaction_vectors * config.width)


def test_two_towers_do_not_look_at_pairs() -> None:
    monn = ItemMonn(SIZES["XS"], 4, 3, 2, 8, 1)
    user, item = monn.users(torch.randn(5, 4, 8)), monn.embed(torch.randn(5, 3, 8))
    one, other = (monn(user, item, torch.randn(5, 2, 8))[0] for _ in range(2))
    assert torch.equal(one, other)
    product = (user[:, 0] * item).sum(dim=1) * 8**0.5 / 8
    torch.testing.assert_close(one[:, 0], product)


@pytest.mark.parametrize(("size", "of_item"), [("S", "S"), ("S", "XS"), ("XS", "S")])
def test_a_node_imitates_interactions_where_both_have_any(size: str, of_item: str) -> None:
    monn = NodeMonn(SIZES[size], 4, 8, SIZES[of_item], 3)
    nodes = torch.randn(5, SIZES[of_item].item_width)
    score, imitation = monn(monn.users(torch.randn(5, 4, 8)), nodes)
    assert score.shape == (5, 3)
    has_one = size == of_item == "S"
    assert imitation.shape == (5, 8 if has_one else 0)


def test_summaries_of_nothing_are_zeros() -> None:
    torch.manual_seed(0)
    recent = RecentSummaries(4, 2, 2)
    events, age = torch.randn(2, 3, 4), torch.rand(2, 3)
    action = torch.tensor([[0, 1, 2], [0, 0, 0]])
    found = recent(events, action, age)
    assert torch.equal(found[1], torch.zeros(2, 4))
    scores = recent.score(torch.cat([events, age.unsqueeze(2)], dim=2)) + recent.of_action(action)
    torch.testing.assert_close(found[0], scores[0, 1:].softmax(dim=0).t() @ events[0, 1:])


def test_what_cannot_be_a_size_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"over_layers=0 with interaction_vectors=1: a dot"):
        MonnConfig(over_layers=0)
    with pytest.raises(ConfigError, match=r"levels\[0\].size is Q, which is no size; .* has XS, S"):
        HsnnNetConfig(sizes=SIZES, levels=[LevelConfig(4, "Q")])

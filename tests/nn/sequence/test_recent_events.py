"""Recent events of two timelines: which they are, and what is made of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import ACTION_TYPES
from recsys.nn.sequence.recent_events import (
    PositionWeightedPooling,
    RecentEvents,
    RecentEventsConfig,
)
from recsys.nn.tables.collection import DEFAULT_SPREAD
from tests.systems.dv365.towers import ROWS, timelines

WIDTH = 8
KINDS = {"position_weighted": 2, "hstu": 1}


def recent(kind: str = "hstu", events: int = 30, **sizes: int) -> RecentEvents:
    torch.manual_seed(0)
    config = RecentEventsConfig(kind, events=events, dropout=0.0, **sizes)
    module = RecentEvents(config, ROWS, WIDTH, DEFAULT_SPREAD, ACTION_TYPES).eval()
    for name, weight in module.named_parameters():
        if "embedding_bags" in name or name.endswith("weight"):
            torch.nn.init.normal_(weight)
    return module


def test_the_newest_of_both_timelines_in_order_of_time() -> None:
    """User 0 has likes at 10 and 40 and impressions at 5, 40 and 50; user 1 one impression."""
    explicit = {
        "lengths": torch.tensor([2, 0]),
        "timestamp": torch.tensor([10, 40]),
        "item": torch.tensor([1, 2]),
        "author": torch.tensor([1, 2]),
        "topic": torch.tensor([1, 2]),
        "action_type": torch.tensor([6, len(ACTION_TYPES)], dtype=torch.int8),
    }
    implicit = {
        "lengths": torch.tensor([3, 1]),
        "timestamp": torch.tensor([5, 40, 50, 7]),
        "item": torch.tensor([3, 4, 5, 300 + 6]),
        "author": torch.tensor([3, 4, 5, 6]),
        "topic": torch.tensor([3, 4, 5, 6]),
        "dwell_time": torch.tensor([1.0, float("nan"), -2.0, torch.e - 1]),
    }
    asked, events = recent(events=4).lookups(explicit, implicit)
    assert events["recent_lengths"].tolist() == [4, 1]
    assert events["recent_time"].tolist() == [10, 40, 40, 50, 7]  # 5 is the fifth newest
    # an impression comes before what was done at the same moment; an action that came to the log
    # after the training is that of no name
    assert events["recent_action"].tolist() == [7, 0, 0, 0, 0]
    assert events["recent_dwell"].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    ids = asked.values().view(3, -1).t().tolist()  # one more row: nothing
    assert ids == [[1, 1, 1], [4, 4, 4], [2, 2, 2], [5, 5, 5], [6, 6, 6], [0, 0, 0]]


def test_position_weights_are_those_of_a_sum_by_hand() -> None:
    pooling = PositionWeightedPooling(3)
    with torch.no_grad():
        pooling.weight.copy_(torch.tensor([3.0, 1.0, 5.0]).log())
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    chosen = torch.tensor([True, True, False, True])
    pooled = pooling(tokens, torch.tensor([3, 0, 1]), chosen)
    # user 0: the newest is not chosen, the two before it have positions 1 and 2
    torch.testing.assert_close(pooled, torch.tensor([[5 / 6, 1 / 6], [0.0, 0.0], [4.0, 4.0]]))


def tokens_of(module: RecentEvents, asked: Tensor, events: dict[str, Tensor]) -> Tensor:
    """What an event is, event by event."""
    rows = [module.tables.embedding_bags[f"recent_{name}"].weight for name in module.ids]
    tokens = []
    for number in range(asked.shape[1] - 1):
        token = sum(table[index] for table, index in zip(rows, asked[:, number], strict=True))
        token = token + module.actions.weight[events["recent_action"][number]]
        tokens.append(token + events["recent_dwell"][number] * module.dwell)
    return torch.stack(tokens)


def test_both_kinds_are_their_reference_user_by_user() -> None:
    explicit, implicit, _ = timelines([0, 3, 25, 1])
    for kind, number in KINDS.items():
        module = recent(kind)
        vectors = module(explicit, implicit)
        assert vectors.shape == (4, number, WIDTH)
        assert (vectors[0] == 0).all()
        asked, events = module.lookups(explicit, implicit)
        tokens = tokens_of(module, asked.values().view(3, -1), events)
        lengths = events["recent_lengths"]
        assert lengths.tolist() == [0, 6, 30, 2]
        start = 0
        for user, length in enumerate(lengths.tolist()):
            own, part = tokens[start : start + length], slice(start, start + length)
            start += length
            if not length:
                continue
            if kind == "hstu":
                times = events["recent_time"][part]
                states = module.states.encoder(own, lengths[user : user + 1], times)
                torch.testing.assert_close(vectors[user, 0], states[-1])
                continue
            is_explicit = events["recent_action"][part] > 0
            sides = ((module.of_explicit, is_explicit), (module.of_implicit, ~is_explicit))
            for place, (pooling, chosen) in enumerate(sides):
                weight = pooling.weight[:length].flip(0).exp() * chosen
                expected = (weight.unsqueeze(1) * own).sum(dim=0) / weight.sum().clamp(min=1e-9)
                torch.testing.assert_close(vectors[user, place], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_has_the_same_bits_alone_and_among_others(kind: str) -> None:
    module = recent(kind)
    lengths = [7, 0, 19, 40, 3, 11]
    together = timelines(lengths)
    vectors = module(*together[:2])
    ends = torch.tensor(lengths).cumsum(0).tolist()
    for user, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        alone = [
            {
                name: torch.tensor([length]) if name == "lengths" else column[end - length : end]
                for name, column in one.items()
            }
            for one in together[:2]
        ]
        assert torch.equal(module(*alone)[0], vectors[user])


def test_users_together_in_training_are_as_one_by_one() -> None:
    module = recent("hstu")
    explicit, implicit, _ = timelines([7, 0, 19, 40, 3, 11])
    alone = module(explicit, implicit)
    torch.testing.assert_close(module.train()(explicit, implicit), alone)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_learns(kind: str) -> None:
    module = recent(kind).train()
    explicit, implicit, _ = timelines([7, 0, 19])
    module(explicit, implicit).square().sum().backward()
    without = [
        name for name, one in module.named_parameters() if one.grad is None or not one.grad.any()
    ]
    assert not without


def test_nobody_has_events() -> None:
    explicit, implicit, _ = timelines([0, 0])
    for kind, number in KINDS.items():
        assert recent(kind)(explicit, implicit).tolist() == [[[0.0] * WIDTH] * number] * 2


def test_heads_that_do_not_divide_the_width_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="heads=3 does not divide the width 8"):
        recent("hstu", heads=3)

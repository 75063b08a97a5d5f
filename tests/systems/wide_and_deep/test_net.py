"""The wide-and-deep baseline against a loop over users and items."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import recsys.systems.wide_and_deep.net as wide_and_deep
from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide
from recsys.systems.wide_and_deep.net import CrossedFeatures, WideAndDeep, WideAndDeepConfig
from tests.manifests import EMPTY

NUM_ITEMS = 9
FEATURES = (
    Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, 50),
    Feature("language", FeatureSide.USER, FeatureKind.CATEGORICAL, 4),
    Feature("country", FeatureSide.USER, FeatureKind.CATEGORICAL, 3),
    Feature("register_days", FeatureSide.USER, FeatureKind.DENSE),
)


def manifest(features: tuple[Feature, ...] = FEATURES) -> DatasetManifest:
    return replace(
        EMPTY,
        features=features,
        surfaces=("unknown",),
    )


def build(features: tuple[Feature, ...] = FEATURES, buckets: int = 1000) -> WideAndDeep:
    torch.manual_seed(0)
    config = WideAndDeepConfig(width=8, hidden_sizes=[7], cross_buckets=buckets)
    model = WideAndDeep(config, NUM_ITEMS, manifest(features)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def arguments() -> tuple[Tensor, ...]:
    """Three users, one without history, one with an item and a language never seen."""
    return (
        torch.tensor([3, 1, 4, 20]),
        torch.tensor([3, 0, 1]),
        torch.tensor([[7, 1, 2], [8, 3, 0], [9, 6, 1]]),
        torch.tensor([[0.5], [-1.0], [2.0]]),
        torch.tensor([4, 8, 15, 0, 1]),
    )


def known(item: int) -> int:
    return item if item < NUM_ITEMS else 0


def test_scores_agree_with_the_loop_over_users_and_items() -> None:
    model = build()
    item, lengths, categorical, dense, items = arguments()
    scores = model(item, lengths, categorical, dense, items)
    for user, history in enumerate(item.split(lengths.tolist())):
        rows = [model.posts.weight[known(int(item))] for item in history]
        mean = torch.stack(rows).mean(dim=0) if rows else torch.zeros(8)
        static = model.static(categorical[user : user + 1], dense[user : user + 1])[0]
        embedding = model.deep(torch.cat([mean, static]))
        last = known(int(history[-1])) if len(history) else 0
        _, language, country = categorical[user].tolist()
        language = language if language < 4 else 0
        # numbers of the properties: last items, and below 0 4 languages, 3 countries
        properties = torch.tensor([last, -1 - language, -5 - country])
        for place, scored in enumerate(items.tolist()):
            crosses = model.wide._bucket(properties, torch.tensor(known(scored)))
            expected = (
                embedding @ model.posts.weight[known(scored)]
                + model.bias[known(scored)]
                + model.wide.crosses[crosses].sum()
            )
            torch.testing.assert_close(scores[user, place], expected)


def test_scores_do_not_depend_on_how_items_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    expected = model(*arguments())
    monkeypatch.setattr(wide_and_deep, "_ITEMS_AT_A_TIME", 2)
    torch.testing.assert_close(model(*arguments()), expected)


def test_the_users_id_is_not_looked_at() -> None:
    model = build()
    item, lengths, categorical, dense, items = arguments()
    renamed = categorical.clone()
    renamed[:, 0] = 1
    expected = model(item, lengths, categorical, dense, items)
    assert torch.equal(model(item, lengths, renamed, dense, items), expected)


def test_a_log_without_user_features_has_the_last_item_alone_to_cross() -> None:
    model = build(features=())
    item, lengths, _, _, items = arguments()
    categorical, dense = torch.empty(3, 0, dtype=torch.int64), torch.empty(3, 0)
    scores = model(item, lengths, categorical, dense, items)
    assert scores.shape == (3, 5) and torch.isfinite(scores).all()
    assert model.wide.properties(torch.tensor([4, 0, 0]), categorical).tolist() == [[4], [0], [0]]


def test_hashed_crosses_spread_evenly_over_the_buckets() -> None:
    """200 properties × 500 items in 1,000 buckets: 100 each, with the scatter of a random hash."""
    crosses = CrossedFeatures((), buckets=1000)
    buckets = crosses._bucket(torch.arange(200).unsqueeze(1), torch.arange(500))
    counts = torch.bincount(buckets.flatten(), minlength=1000).double()
    assert counts.sum() == 100_000 and len(counts) == 1000
    chi_squared = float((counts - 100).square().sum() / 100)
    assert 800 < chi_squared < 1200  # 999 ± 45 for a random hash


def test_the_wide_part_starts_at_zero_and_learns_a_cross() -> None:
    torch.manual_seed(0)
    crosses = CrossedFeatures((), buckets=1000)
    properties, items = torch.tensor([[1], [2]]), torch.tensor([5, 6])
    assert torch.equal(crosses(properties, items), torch.zeros(2, 2))
    optimizer = torch.optim.SGD(crosses.parameters(), lr=5.0)
    for _ in range(20):  # the user with property 1 takes item 5, the other one item 6
        optimizer.zero_grad()
        scores = crosses(properties, items)
        torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1])).backward()
        optimizer.step()
    assert scores[0, 0] > scores[0, 1] + 2 and scores[1, 1] > scores[1, 0] + 2


def test_ids_are_dropped_in_training_only_and_gradients_reach_every_weight() -> None:
    model = build(buckets=50)
    assert torch.equal(model(*arguments()), model(*arguments()))
    model.train()
    model.id_dropout = 0.5
    torch.manual_seed(0)
    first = model(*arguments())
    assert not torch.equal(first, model(*arguments()))
    (first * torch.randn_like(first)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"hidden_sizes": [8, 0]}, {"cross_buckets": 0}, {"id_dropout": 1.0}]
)
def test_sizes_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="it must be "):
        WideAndDeepConfig(**wrong)

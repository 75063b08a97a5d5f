"""The wide-and-deep baseline against a loop over users and posts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import recsys.systems.wide_and_deep.net as wide_and_deep
from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide
from recsys.systems.wide_and_deep.net import CrossedFeatures, WideAndDeep, WideAndDeepConfig

NUM_POSTS = 9
FEATURES = (
    Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, 50),
    Feature("language", FeatureSide.USER, FeatureKind.CATEGORICAL, 4),
    Feature("country", FeatureSide.USER, FeatureKind.CATEGORICAL, 3),
    Feature("register_days", FeatureSide.USER, FeatureKind.DENSE),
)


def manifest(features: tuple[Feature, ...] = FEATURES) -> DatasetManifest:
    return DatasetManifest(
        name="tiny",
        source="test",
        tasks=(),
        features=features,
        vocabulary_sizes={},
        surfaces=("unknown",),
        media_types=(),
        split_bounds={},
        counts={},
        rejected={},
        fingerprint="",
    )


def build(features: tuple[Feature, ...] = FEATURES, buckets: int = 1000) -> WideAndDeep:
    torch.manual_seed(0)
    config = WideAndDeepConfig(width=8, hidden_sizes=[7], cross_buckets=buckets)
    model = WideAndDeep(config, NUM_POSTS, manifest(features)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def arguments() -> tuple[Tensor, ...]:
    """Three users, one without history, one with a post and a language never seen."""
    return (
        torch.tensor([3, 1, 4, 20]),
        torch.tensor([3, 0, 1]),
        torch.tensor([[7, 1, 2], [8, 3, 0], [9, 6, 1]]),
        torch.tensor([[0.5], [-1.0], [2.0]]),
        torch.tensor([4, 8, 15, 0, 1]),
    )


def known(post: int) -> int:
    return post if post < NUM_POSTS else 0


def test_scores_agree_with_the_loop_over_users_and_posts() -> None:
    model = build()
    item, lengths, categorical, dense, posts = arguments()
    scores = model(item, lengths, categorical, dense, posts)
    for user, history in enumerate(item.split(lengths.tolist())):
        rows = [model.posts.weight[known(int(post))] for post in history]
        mean = torch.stack(rows).mean(dim=0) if rows else torch.zeros(8)
        static = model.static(categorical[user : user + 1], dense[user : user + 1])[0]
        embedding = model.deep(torch.cat([mean, static]))
        last = known(int(history[-1])) if len(history) else 0
        _, language, country = categorical[user].tolist()
        language = language if language < 4 else 0
        # numbers of the properties: 9 last posts, 4 languages, 3 countries
        properties = torch.tensor([last, 9 + language, 13 + country])
        for place, post in enumerate(posts.tolist()):
            crosses = model.wide._bucket(properties, torch.tensor(known(post)))
            expected = (
                embedding @ model.posts.weight[known(post)]
                + model.bias[known(post)]
                + model.wide.weight[crosses].sum()
            )
            torch.testing.assert_close(scores[user, place], expected)


def test_scores_do_not_depend_on_how_posts_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    expected = model(*arguments())
    monkeypatch.setattr(wide_and_deep, "_POSTS_AT_A_TIME", 2)
    torch.testing.assert_close(model(*arguments()), expected)


def test_the_users_id_is_not_looked_at() -> None:
    model = build()
    item, lengths, categorical, dense, posts = arguments()
    renamed = categorical.clone()
    renamed[:, 0] = 1
    expected = model(item, lengths, categorical, dense, posts)
    assert torch.equal(model(item, lengths, renamed, dense, posts), expected)


def test_a_log_without_user_features_has_the_last_post_alone_to_cross() -> None:
    model = build(features=())
    item, lengths, _, _, posts = arguments()
    categorical, dense = torch.empty(3, 0, dtype=torch.int64), torch.empty(3, 0)
    scores = model(item, lengths, categorical, dense, posts)
    assert scores.shape == (3, 5) and torch.isfinite(scores).all()
    assert model.wide.properties(torch.tensor([4, 0, 0]), categorical).tolist() == [[4], [0], [0]]


def test_hashed_crosses_spread_evenly_over_the_buckets() -> None:
    """200 properties × 500 posts in 1,000 buckets: 100 each, with the scatter of a random hash."""
    crosses = CrossedFeatures((), 10, buckets=1000)
    buckets = crosses._bucket(torch.arange(200).unsqueeze(1), torch.arange(500))
    counts = torch.bincount(buckets.flatten(), minlength=1000).double()
    assert counts.sum() == 100_000 and len(counts) == 1000
    chi_squared = float((counts - 100).square().sum() / 100)
    assert 800 < chi_squared < 1200  # 999 ± 45 for a random hash


def test_the_wide_part_starts_at_zero_and_learns_a_cross() -> None:
    torch.manual_seed(0)
    crosses = CrossedFeatures((), NUM_POSTS, buckets=1000)
    properties, posts = torch.tensor([[1], [2]]), torch.tensor([5, 6])
    assert torch.equal(crosses(properties, posts), torch.zeros(2, 2))
    optimizer = torch.optim.SGD(crosses.parameters(), lr=5.0)
    for _ in range(20):  # the user with property 1 takes post 5, the other one post 6
        optimizer.zero_grad()
        scores = crosses(properties, posts)
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
    with pytest.raises(ConfigError, match="wide-and-deep"):
        WideAndDeepConfig(**wrong)

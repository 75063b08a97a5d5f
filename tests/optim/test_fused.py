from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType

from recsys.core.errors import ConfigError
from recsys.optim.fused import FusedOptimizerConfig, fuse_tables

ROWS, WIDTH, REQUESTS = 40, 8, 5


class Tables(nn.Module):
    """One table of two features and one of a single feature, which FBGEMM treats differently."""

    def __init__(self, weighted: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tables = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=name,
                    embedding_dim=WIDTH,
                    num_embeddings=ROWS,
                    feature_names=features,
                    pooling=PoolingType.SUM,
                )
                for name, features in (("shared", ["a", "b"]), ("single", ["c"]))
            ],
            is_weighted=weighted,
        )

    def forward(self, features: KeyedJaggedTensor) -> torch.Tensor:
        return self.tables(features).values()


def features(seed: int, weighted: bool = False, events: int = 60) -> KeyedJaggedTensor:
    generator = torch.Generator().manual_seed(seed)
    bags = 3 * REQUESTS
    bag = torch.randint(bags, (events,), generator=generator).sort()[0]
    return KeyedJaggedTensor(
        keys=["a", "b", "c"],
        values=torch.randint(ROWS, (events,), generator=generator, dtype=torch.int32),
        lengths=torch.bincount(bag, minlength=bags).to(torch.int32),
        weights=torch.rand(events, generator=generator) if weighted else None,
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
def test_update_equals_the_formula(optimizer: str, weighted: bool):
    plain, fused = Tables(weighted), Tables(weighted)
    config = FusedOptimizerConfig(optimizer, learning_rate=0.1, epsilon=1e-6)
    fuse_tables(fused, config)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    states = {name: torch.zeros(()) for name in plain.state_dict()}
    for step in range(3):
        batch = features(step, weighted)
        gradient = torch.randn(REQUESTS, 3 * WIDTH)
        plain.zero_grad()
        pooled, expected = fused(batch), plain(batch)
        torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
        pooled.backward(gradient)
        expected.backward(gradient)
        with torch.no_grad():
            for name, weight in plain.named_parameters():
                square = weight.grad**2
                if optimizer == "rowwise_adagrad":
                    square = square.mean(dim=1, keepdim=True)
                states[name] = states[name] + square
                scale = 1 if optimizer == "sgd" else 1 / (states[name].sqrt() + config.epsilon)
                weight -= config.learning_rate * weight.grad * scale
    for name, weight in fused.state_dict().items():
        torch.testing.assert_close(weight, plain.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_same_input_twice_gives_the_same_bits():
    """With two threads and many collisions per row: the sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        weights = []
        for _ in range(2):
            module = Tables(weighted=True)
            fuse_tables(module, FusedOptimizerConfig())
            for step in range(3):
                generator = torch.Generator().manual_seed(step)
                gradient = torch.randn(REQUESTS, 3 * WIDTH, generator=generator)
                module(features(step, weighted=True, events=20_000)).backward(gradient)
            weights.append(module.state_dict())
    finally:
        torch.set_num_threads(threads)
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])


def test_state_dict_resumes_exactly():
    gradient = torch.randn(REQUESTS, 3 * WIDTH)
    module = Tables()
    tables = fuse_tables(module, FusedOptimizerConfig(learning_rate=0.1))
    module(features(0)).backward(gradient)
    saved = copy.deepcopy((module.state_dict(), tables.state_dict()))
    module(features(1)).backward(gradient)

    resumed = Tables()
    resumed_tables = fuse_tables(resumed, FusedOptimizerConfig(learning_rate=0.1))
    resumed.load_state_dict(saved[0])
    resumed_tables.load_state_dict(saved[1])
    resumed(features(1)).backward(gradient)
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name])


def test_state_of_other_tables_is_refused():
    tables = fuse_tables(Tables(), FusedOptimizerConfig())
    with pytest.raises(ConfigError, match="optimiser state"):
        tables.load_state_dict({"other": {}})


def test_learning_rate_can_be_set():
    gradient = torch.ones(REQUESTS, 3 * WIDTH)
    changes = []
    for rate in (0.1, 0.2):
        module = Tables()
        tables = fuse_tables(module, FusedOptimizerConfig("sgd", learning_rate=1.0))
        tables.set_learning_rate(rate)
        before = copy.deepcopy(module.state_dict())
        module(features(0)).backward(gradient)
        changes.append({k: v - before[k] for k, v in module.state_dict().items()})
    for name, change in changes[0].items():
        torch.testing.assert_close(change * 2, changes[1][name], atol=1e-5, rtol=1e-5)


def test_weights_are_listed_and_kept():
    module = Tables()
    before = copy.deepcopy(module.state_dict())
    tables = fuse_tables(module, FusedOptimizerConfig())
    assert len(tables.parameters()) == 2
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, before[name])


def test_features_in_another_order_are_refused():
    module = Tables()
    fuse_tables(module, FusedOptimizerConfig())
    batch = features(0)
    with pytest.raises(ValueError, match="order"):
        module(batch.permute([1, 0, 2]))


@pytest.mark.parametrize(
    "wrong",
    [{"optimizer": "adamw"}, {"learning_rate": 0}, {"epsilon": -1}],
    ids=lambda one: next(iter(one)),
)
def test_unusable_configuration_is_one_sentence(wrong: dict):
    with pytest.raises(ConfigError):
        fuse_tables(Tables(), FusedOptimizerConfig(**wrong))

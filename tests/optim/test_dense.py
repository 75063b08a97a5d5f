"""The learning-rate curve by hand, and which parameters are decayed."""

from __future__ import annotations

import math

import pytest
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

from recsys.core.errors import ConfigError
from recsys.optim.dense import (
    DenseOptimizerConfig,
    ScheduleConfig,
    build_dense_optimizer,
    dense_parameters,
    learning_rate_fraction,
)
from recsys.optim.shampoo.run_config import ShampooConfig

SCHEDULE = ScheduleConfig(warmup_steps=10, final_fraction=0.2)


@pytest.mark.parametrize(
    ("step", "fraction"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 0.6), (110, 0.2), (500, 0.2)],
)
def test_warm_up_then_cosine(step: int, fraction: float) -> None:
    assert learning_rate_fraction(step, 110, SCHEDULE) == pytest.approx(fraction)


def test_a_run_without_end_does_not_decay() -> None:
    assert learning_rate_fraction(10**6, math.inf, SCHEDULE) == 1.0


def test_a_run_shorter_than_its_warm_up() -> None:
    assert learning_rate_fraction(5, 5, SCHEDULE) == pytest.approx(0.6)
    assert learning_rate_fraction(0, 5, ScheduleConfig(warmup_steps=0)) == 1.0


def test_matrices_are_decayed_and_tables_are_left_out() -> None:
    tables = EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(name="t", embedding_dim=4, num_embeddings=3, feature_names=["f"])
        ]
    )
    module = nn.ModuleDict({"tables": tables, "linear": nn.Linear(4, 2), "norm": nn.LayerNorm(2)})
    linear, norm = module["linear"], module["norm"]
    assert {id(p) for p in dense_parameters(module)} == {
        id(p) for p in (linear.weight, linear.bias, norm.weight, norm.bias)
    }
    optimizer = build_dense_optimizer(module, DenseOptimizerConfig(weight_decay=0.3))
    decayed = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decayed == {
        id(linear.weight): 0.3,
        id(linear.bias): 0.0,
        id(norm.weight): 0.0,
        id(norm.bias): 0.0,
    }


def test_betas_are_a_pair() -> None:
    with pytest.raises(ConfigError, match=r"betas is \[0\.9\], it must be a list of 2"):
        DenseOptimizerConfig(betas=(0.9,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("communication_dtype", "float64"),
        ("preconditioner_dtype", "bfloat16"),
        ("ranks_per_group", 0),
    ],
)
def test_what_ranks_would_refuse_one_process_refuses_too(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}, it must be"):
        ShampooConfig(**{name: value})  # type: ignore[arg-type]

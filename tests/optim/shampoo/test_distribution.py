"""Shampoo on 2 and 3 gloo ranks is Shampoo on one, and checkpoints go from any to any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.optim import SGDGrafting
from tests.distributed.ranks import run_side_by_side
from tests.optim.shampoo import ranks_process
from tests.optim.shampoo.ranks_process import (
    alternating,
    load,
    model_of,
    resumed,
    save,
    shampoo,
    train,
)

#: Largest difference over largest weight, after six steps: some roundings of the type.
PRECISION = {"float32": 1e-6, "bfloat16": 2e-3, "float16": 2e-4}


def run_ranks(count: int, folder: Path, checkpoint: Path) -> list[dict[str, Any]]:
    """What every rank saved; they go on with ``checkpoint`` too."""
    folder.mkdir()
    script = Path(ranks_process.__file__)
    run_side_by_side(script, [([rank, count, folder, checkpoint], {}) for rank in range(count)])
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """Two ranks, that go on with the checkpoint of one."""
    save(folder / "checkpoint", None)
    return run_ranks(2, folder / "2", folder / "checkpoint")


@pytest.fixture(scope="module")
def three(folder: Path, two: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Three ranks, that go on with the checkpoint of two."""
    return run_ranks(3, folder / "3", folder / "2" / "checkpoint")


@pytest.fixture(params=[2, pytest.param(3, marks=pytest.mark.slow)])
def ranks(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    yield request.getfixturevalue({2: "two", 3: "three"}[request.param])


@pytest.fixture(scope="module")
def alone() -> list[Tensor]:
    model = model_of()
    return train(model, shampoo(model))


def difference(weights: list[Tensor], expected: list[Tensor]) -> float:
    return max(
        float((one - two).abs().max() / two.abs().max())
        for one, two in zip(weights, expected, strict=True)
    )


def equal_on_all(ranks: list[dict[str, Any]], name: str) -> bool:
    return all(difference(rank[name], ranks[0][name]) == 0 for rank in ranks)


@pytest.mark.parametrize("dtype", PRECISION)
def test_many_ranks_are_one(ranks: list[dict[str, Any]], alone: list[Tensor], dtype: str) -> None:
    """Also where a parameter has no gradient in some steps."""
    assert difference(ranks[0][dtype], alone) < PRECISION[dtype]
    assert equal_on_all(ranks, dtype)


@pytest.mark.parametrize("dtype", PRECISION)
def test_small_directions_are_not_lost(ranks: list[dict[str, Any]], dtype: str) -> None:
    """Of 1e-9, which float16 does not have."""
    model = model_of()
    before = [one.detach().clone() for one in model.parameters()]
    optimizer = shampoo(model, grafting=SGDGrafting(), weight_decay=0.0, lr=1e6)
    expected = train(model, optimizer, scale=1e-9)
    moved = [one - two for one, two in zip(expected, before, strict=True)]
    error = [
        one - two - three
        for one, two, three in zip(ranks[0][f"small {dtype}"], before, moved, strict=True)
    ]
    largest = max(
        float(one.abs().max() / two.abs().max()) for one, two in zip(error, moved, strict=True)
    )
    assert largest < 5 * PRECISION[dtype]


def test_each_rank_holds_its_blocks_alone(ranks: list[dict[str, Any]]) -> None:
    states = [rank["state"] for rank in ranks]
    blocks = [block for state in states for block in state["blocks"]]
    every = ranks[0]["alone state"]
    assert sorted(blocks) == every["blocks"] and len(set(blocks)) == len(blocks) == 9
    assert sum(state["numbers"] for state in states) == every["numbers"]
    assert max(state["numbers"] for state in states) < 1.3 * every["numbers"] / len(ranks)
    assert all(state["all DTensor"] and state["copies"] == [1] for state in states)


def test_groups_of_one_rank_hold_everything(
    ranks: list[dict[str, Any]], alone: list[Tensor]
) -> None:
    assert difference(ranks[-1]["alone"], alone) < PRECISION["float32"]
    assert ranks[-1]["alone state"]["copies"] == [len(ranks)]


@pytest.mark.slow
def test_groups_of_two_ranks(folder: Path, two: Any, alone: list[Tensor]) -> None:
    ranks = run_ranks(4, folder / "4", folder / "2" / "checkpoint")
    for rank in ranks:
        assert difference(rank["pairs"], alone) < PRECISION["float32"]
        assert rank["pairs state"]["copies"] == [2]
    blocks = [rank["pairs state"]["blocks"] for rank in ranks]
    assert blocks[:2] == blocks[2:] and blocks[0] != blocks[1]


def test_more_ranks_than_blocks(ranks: list[dict[str, Any]]) -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    expected = train(layer, ranks_process.DistributedShampoo(layer.parameters()))
    assert difference(ranks[-1]["one block"], expected) < PRECISION["float32"]
    assert equal_on_all(ranks, "one block")


def test_a_failure_of_one_rank_ends_all(ranks: list[dict[str, Any]]) -> None:
    assert "is not finite: gradients were too large" in ranks[0]["failing"]
    assert all("failed on rank 0" in rank["failing"] for rank in ranks[1:])


def test_gradients_only_between_the_steps_with_roots(ranks: list[dict[str, Any]]) -> None:
    """Roots come with the next gradient, on each rank as on one; also after a resume."""
    one = alternating(None)
    assert one["computed"] and sum(rank["alternating"]["roots"] for rank in ranks) == one["roots"]
    for rank in ranks:
        assert rank["alternating"]["computed"]
        assert difference(rank["alternating"]["weights"], one["weights"]) < PRECISION["float32"]


@pytest.mark.parametrize("name", ["fsdp", "fsdp shared"])
def test_fully_sharded_weights(ranks: list[dict[str, Any]], alone: list[Tensor], name: str) -> None:
    assert difference(ranks[0][name], alone) < PRECISION["float32"]
    assert equal_on_all(ranks, name)


@pytest.mark.parametrize("name", ["resumed", "same ranks"])
def test_going_on_is_bitwise_equal(ranks: list[dict[str, Any]], name: str) -> None:
    for rank in ranks:
        assert difference(rank[name], rank["float32"]) == 0


def test_going_on_in_one_process_is_bitwise_equal(alone: list[Tensor]) -> None:
    assert difference(resumed(None), alone) == 0


def test_a_checkpoint_of_fewer_ranks(ranks: list[dict[str, Any]], alone: list[Tensor]) -> None:
    """1 → 2 and 2 → 3."""
    assert difference(ranks[0]["other ranks"], alone) < PRECISION["float32"]
    assert equal_on_all(ranks, "other ranks")


def test_a_checkpoint_of_more_ranks(
    folder: Path, ranks: list[dict[str, Any]], alone: list[Tensor]
) -> None:
    """2 → 1 and 3 → 1."""
    weights = load(folder / str(len(ranks)) / "checkpoint", None)
    assert difference(weights, alone) < PRECISION["float32"]


def test_a_gathered_state_is_that_of_one_process(
    ranks: list[dict[str, Any]], alone: list[Tensor]
) -> None:
    model = model_of()
    model.load_state_dict(ranks[0]["consolidated"]["weights"])
    optimizer = shampoo(model)
    optimizer.load_state_dict(ranks[0]["consolidated"]["optim"])
    assert difference(train(model, optimizer, range(3, 6)), alone) < PRECISION["float32"]

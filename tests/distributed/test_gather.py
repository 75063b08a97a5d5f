"""Two gloo ranks have the loss and the gradients of one process with both batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.distributed.gather import pool_softmax_loss_over_ranks, unite_pools

from .ranks import module_of, run_side_by_side

PROCESS = Path(__file__).with_name("gather_process.py")

gather_process = module_of(PROCESS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two ranks saved."""
    folder = tmp_path_factory.mktemp("ranks")
    run_side_by_side(PROCESS, [([rank, 2, folder], {}) for rank in range(2)])
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("both", gather_process.RANKS[1]),
        ("one is empty", gather_process.EMPTY),
        ("sampled", gather_process.RANKS[1]),  # a sample of everything
    ],
)
def test_the_mean_over_ranks_is_the_loss_of_one_process(
    ranks: list[dict[str, Any]], name: str, second: dict[str, Any]
) -> None:
    expected = gather_process.loss_of([(0, gather_process.RANKS[0]), (1, second)])
    for part, (first_rank, second_rank) in zip(
        expected, zip(ranks[0][name], ranks[1][name], strict=True), strict=True
    ):
        torch.testing.assert_close((first_rank + second_rank) / 2, part, rtol=1e-10, atol=1e-12)


def test_ranks_without_any_query_have_a_loss_of_0(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert all(not part.any() for part in rank["nobody"])


def test_gathered_rows_and_their_gradients(ranks: list[dict[str, Any]]) -> None:
    """Rank 0 has the row 0, rank 1 the rows 0 and 1; their losses weigh 1 and 2."""
    for rank in ranks:
        assert rank["rows"][0].tolist() == [[0], [0], [1]]
    assert ranks[0]["rows"][1].tolist() == [[3]]
    assert ranks[1]["rows"][1].tolist() == [[30], [300]]


def test_one_process_by_itself() -> None:
    pool, empty = unite_pools(torch.tensor([2, 5, 7]), torch.arange(0))
    assert pool.items.tolist() == pool.own.tolist() == [2, 5, 7]
    assert pool.rows(torch.arange(6.0).reshape(3, 2)).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert empty.items.tolist() == []


def test_two_pools_are_united_at_once(ranks: list[dict[str, Any]]) -> None:
    """Rank 0 has the items 2, 5, 7 and none, rank 1 the items 1, 5 and 3."""
    for rank in ranks:
        first, second = rank["united"]
        assert first == ([1, 2, 5, 7], [3, 2], [3, 0, 1, 2])
        assert second == ([3], [0, 1], [0])


@pytest.mark.parametrize("items", [[4, 2], [2, 2]])
def test_a_pool_that_is_not_in_order(items: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct and in ascending order"):
        unite_pools(torch.tensor(items))


def test_a_label_that_is_in_no_pool() -> None:
    (united,) = unite_pools(torch.tensor([4, 6]))
    arguments = (torch.randn(2, 3), torch.tensor([4, 9]), torch.randn(2, 3), united)
    with pytest.raises(ValueError, match=r"1 labels .* the first of them 9"):
        pool_softmax_loss_over_ranks(*arguments)
    weights = torch.tensor([1.0, 0.0])
    assert torch.isfinite(pool_softmax_loss_over_ranks(*arguments, weights=weights))

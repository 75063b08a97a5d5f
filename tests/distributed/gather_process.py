"""One rank of test_gather.py: computes its loss and gradients and saves them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.distributed.gather import gather_rows, pool_softmax_loss_over_ranks, unite_pools
from recsys.nn.softmax.exclusions import Owned

WIDTH = 4
NUM_ITEMS = 12

#: Per rank: labels, whose they are, weights, items of the pool (the labels and others).
RANKS: list[dict[str, list[Any]]] = [
    {
        "labels": [3, 5, 5, 8, 1],
        "owner": [0, 0, 1, 1, 2],
        "weights": [1.0, 2.0, 0.5, 1.0, 1.0],
        "items": [3, 5, 8, 1, 5, 9],
        "owned": [(0, 3), (0, 5), (1, 5), (1, 8), (2, 1), (2, 7), (0, 11)],
    },
    {"labels": [5, 7], "owner": [0, 1], "weights": [1.0, 3.0], "items": [7, 5],
     "owned": [(0, 5), (1, 7), (1, 9)]},
]  # fmt: skip

EMPTY: dict[str, list[Any]] = {
    "labels": [], "owner": [], "weights": [], "items": [], "owned": []
}  # fmt: skip


def weights_of_a_model() -> tuple[Tensor, Tensor]:
    """What every rank holds alike: embeddings of items, and a matrix that makes the queries."""
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(NUM_ITEMS, WIDTH, generator=generator, dtype=torch.float64)
    matrix = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    return items.requires_grad_(), matrix.requires_grad_()


def inputs_of(rank: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(10 + rank)
    return torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)


def loss_of(parts: list[tuple[int, dict[str, list[Any]]]], **options: Any) -> tuple[Tensor, ...]:
    """Loss and gradients of the batches of some ranks, as one batch."""
    items, matrix = weights_of_a_model()

    def joined(key: str) -> list[Any]:
        return [value for _, part in parts for value in part[key]]

    # owners are numbered by each rank from 0; one process needs them distinct
    owner = [10 * rank + user for rank, part in parts for user in part["owner"]]
    owned = [(10 * rank + user, item) for rank, part in parts for user, item in part["owned"]]
    pool_items = torch.tensor(joined("items"), dtype=torch.int64).unique()
    (united,) = unite_pools(pool_items)
    inputs = torch.cat([inputs_of(rank, len(part["labels"])) for rank, part in parts])
    log_q = torch.linspace(-3, 0, NUM_ITEMS, dtype=torch.float64)
    loss = pool_softmax_loss_over_ranks(
        inputs @ matrix,
        torch.tensor(joined("labels"), dtype=torch.int64),
        items[pool_items],
        united,
        scale=2.0,
        owner=torch.tensor(owner, dtype=torch.int64),
        owned=Owned.from_pairs(*torch.tensor(owned, dtype=torch.int64).reshape(-1, 2).T, 20),
        log_q=log_q[pool_items],
        weights=torch.tensor(joined("weights"), dtype=torch.float64),
        **options,
    )
    return (loss.detach(), *torch.autograd.grad(loss, [items, matrix]))


def main(rank: int, world_size: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world_size
    )
    second = {"both": RANKS[1], "one is empty": EMPTY}
    results: dict[str, Any] = {
        name: loss_of([(rank, RANKS[0] if rank == 0 else part)]) for name, part in second.items()
    }
    results["nobody"] = loss_of([(rank, EMPTY)])
    results["sampled"] = loss_of([(rank, RANKS[rank])], num_negatives=99)
    pools = [[2, 5, 7], []] if rank == 0 else [[1, 5], [3]]
    results["united"] = [
        (one.items.tolist(), one.sizes, one.row.tolist())
        for one in unite_pools(*(torch.tensor(pool, dtype=torch.int64) for pool in pools))
        if one.row is not None
    ]
    rows = torch.arange(float(rank + 1)).reshape(-1, 1).requires_grad_()
    gathered = gather_rows(rows)
    (gathered.squeeze(1) * torch.tensor([1.0, 10, 100]) * (rank + 1)).sum().backward()
    results["rows"] = (gathered.detach(), rows.grad)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

"""One rank of test_grid.py: DV365 with its tables in grids, over two nodes of two ranks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torchrec.distributed.types import ShardingType

from recsys.data.batches.requests import RequestBatch
from recsys.distributed.config import StrategyConfig, TableConstraint
from recsys.distributed.sharded_collection import CollectionSharder
from recsys.distributed.strategy import TorchRecStrategy

sys.path.insert(0, str(Path(__file__).parent))
from ranks import module_of

dv365 = module_of(Path(__file__).with_name("dv365_process.py"))

NODES, STEPS = 2, 3
#: Small tables whole; of the others rows over the ranks of a node and columns over the nodes.
TABLES = [
    TableConstraint("*item*", sharding_types=["grid_shard"], min_columns=4),
    TableConstraint(),
]


def parts(step: int) -> list[RequestBatch]:
    """What each of four ranks gets of a step.

    Batches of one size: of others TorchRec gathers gradients in tensors of several sizes, which
    NCCL does and gloo does not.
    """
    make = dv365.samples.make_batch
    return [make(2 * NODES * step + rank, requests=4, rows=3) for rank in range(2 * NODES)]


def in_grids(rank: int, folder: Path) -> dict[str, Any]:
    """The training on this rank's parts.

    TorchRec offers grids on GPUs alone; its code of them is the same on CPUs.
    """
    offered = CollectionSharder.sharding_types
    CollectionSharder.sharding_types = lambda self, device: [
        *offered(self, device),
        ShardingType.GRID_SHARD.value,
    ]
    plans: list[Any] = []
    strategy = TorchRecStrategy(StrategyConfig("torchrec", tables=TABLES), on_plan=plans.append)
    batches = [parts(step)[rank] for step in range(STEPS)]
    model = dv365.make_model("sgd")
    result = dv365.train(folder, model, batches, devices=2, num_nodes=NODES, strategy=strategy)
    return result | {"plan": plans}


def in_one_process(folder: Path) -> dict[str, Any]:
    """The same on all parts."""
    batches = [dv365.joined(parts(step)) for step in range(STEPS)]
    return dv365.train(folder, dv365.make_model("sgd"), batches, devices=1)


def main(folder: Path) -> None:
    """Train on this rank."""
    rank = int(os.environ["RANK"])
    torch.save(in_grids(rank, folder), folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

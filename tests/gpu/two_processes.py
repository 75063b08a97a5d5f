"""Two ranks of DV365 on one GPU, over gloo, against one process on the CPU.

``python -m tests.gpu.two_processes cuda`` (or ``cpu``) prints the losses of both. NCCL refuses two
ranks on one GPU; gloo copies by way of the host, so that sharded tables, their exchanges and the
streams of the overlap can be tried where there is one GPU.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from recsys.distributed.config import StrategyConfig, TableConstraint
from recsys.distributed.gpus import BoundGpus
from recsys.distributed.processes import on_processes, process_group
from recsys.distributed.strategy import TorchRecStrategy
from tests.distributed.ranks import module_of

dv365 = module_of(Path(__file__).parents[1] / "distributed" / "dv365_process.py")

TABLES = [TableConstraint(sharding_types=["table_wise"])]


def losses_of_a_rank(device: str, folder: str) -> list[float]:
    """What a rank of two logs, which is the mean of both."""
    if device == "cuda":
        torch.cuda.set_device(0)
    with process_group(2, "gloo", timeout_minutes=2):
        batches = [dv365.parts(step)[dist.get_rank()] for step in range(dv365.STEPS)]
        trained = dv365.train(
            Path(folder) / "two",
            dv365.make_model("rowwise_adagrad"),
            batches,
            accelerator=BoundGpus() if device == "cuda" else "cpu",
            devices=2,
            strategy=TorchRecStrategy(
                StrategyConfig(name="torchrec", tables=TABLES), process_group_backend="gloo"
            ),
        )
    losses: list[float] = trained["losses"]
    return losses


def check(device: str) -> tuple[list[float], list[float]]:
    """Losses of the two ranks and of one process on the CPU; they must agree."""
    with tempfile.TemporaryDirectory() as folder:
        two = on_processes(2, losses_of_a_rank, device, folder)
        batches = [dv365.joined(dv365.parts(step)) for step in range(dv365.STEPS)]
        alone = dv365.train(Path(folder) / "one", dv365.make_model("rowwise_adagrad"), batches)
    assert two == pytest.approx(alone["losses"], rel=1e-3)
    return two, alone["losses"]


if __name__ == "__main__":
    together, expected = check(sys.argv[1])
    for step, (ours, theirs) in enumerate(zip(together, expected, strict=True), 1):
        print(f"step {step}: {ours:.6f} by two ranks on {sys.argv[1]}, {theirs:.6f} by one process")

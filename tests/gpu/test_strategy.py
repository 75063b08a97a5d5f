"""DV365 under the TorchRec strategy on one GPU: the kernels that a CPU does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.config import StrategyConfig, TableConstraint
from recsys.distributed.processes import process_group
from recsys.distributed.strategy import TorchRecStrategy

from ..distributed.ranks import module_of

pytestmark = pytest.mark.gpu

dv365 = module_of(Path(__file__).parents[1] / "distributed" / "dv365_process.py")


@pytest.mark.parametrize(
    "constraint",
    [
        TableConstraint(sharding_types=["table_wise"], compute_kernels=["fused"]),
        TableConstraint(sharding_types=["row_wise"], compute_kernels=["fused"]),
        TableConstraint(sharding_types=["table_wise"], compute_kernels=["fused_uvm"]),
        TableConstraint(
            sharding_types=["table_wise"],
            compute_kernels=["fused_uvm_caching"],
            cache_fraction=0.2,
        ),
        TableConstraint(sharding_types=["data_parallel"]),
    ],
    ids=["fused", "row_wise", "fused_uvm", "fused_uvm_caching", "data_parallel"],
)
def test_losses_are_those_of_one_process_on_the_cpu(
    constraint: TableConstraint, tmp_path: Path
) -> None:
    batches = [dv365.joined(dv365.parts(step)) for step in range(dv365.STEPS)]
    expected = dv365.train(tmp_path / "cpu", dv365.make_model("rowwise_adagrad"), batches)
    config = StrategyConfig(name="torchrec", tables=[constraint])
    with process_group(1, "nccl", timeout_minutes=2):
        model = dv365.make_model("rowwise_adagrad")
        on_gpu = dv365.train(
            tmp_path / "gpu",
            model,
            batches,
            accelerator="gpu",
            devices=1,
            strategy=TorchRecStrategy(config),
        )
    assert not dist.is_initialized()
    assert on_gpu["losses"] == pytest.approx(expected["losses"], rel=1e-3)
    state = open_checkpoint(on_gpu["path"]).weights()
    for name, value in open_checkpoint(expected["path"]).weights().items():
        torch.testing.assert_close(state[name], value, rtol=1e-2, atol=1e-3, msg=name)

"""``configure_model`` as Lightning calls it on a GPU: with the device as torch's default device.

The device is ``meta`` here, which takes no numbers: what is drawn or kept on the host by mistake
lies there, or fails, as it would with ``cuda``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from recsys.distributed.config import StrategyConfig, TableConstraint
from recsys.distributed.placement import Sharded
from recsys.distributed.processes import start_group_of_one
from recsys.nn.tables.collection import tables_without_memory
from recsys.optim.fused import FusedCollection
from recsys.systems.dv365.module import DV365
from tests.cuda_without_gpu.pretended_gpu import tensors_in
from tests.distributed.ranks import module_of

dv365 = module_of(Path(__file__).parents[1] / "distributed" / "dv365_process.py")

DEVICE = torch.device("meta")


@pytest.fixture
def group_of_one() -> Iterator[None]:
    start_group_of_one("gloo")
    yield
    dist.destroy_process_group()


def test_one_process_fuses_its_tables_for_the_device() -> None:
    """``Module.to`` would move the weights, and leave what FBGEMM keeps beside them."""
    model: DV365 = dv365.make_model("rowwise_adagrad")
    with DEVICE:
        model.configure_model()
    tables = [module for module in model.modules() if isinstance(module, FusedCollection)]
    assert tables
    for collection in tables:
        assert collection._emb_modules[0]._emb_module.current_device == DEVICE
        states = list(collection.fused_optimizer().state_dict()["state"].values())
        kept = tensors_in([states, collection._weight_gradients, list(collection.parameters())])
        assert {tensor.device for tensor in kept} == {DEVICE}


@pytest.mark.parametrize("kind", ["table_wise", "column_wise", "data_parallel"])
@pytest.mark.usefixtures("group_of_one")
def test_sharded_tables_start_with_the_same_rows(kind: str) -> None:
    """First rows are drawn on the host whatever the default device is."""
    constraint = TableConstraint(sharding_types=[kind], min_columns=4)
    config = StrategyConfig(name="torchrec", tables=[constraint])
    rows: list[dict[str, Tensor]] = []
    for default in (torch.device("cpu"), DEVICE):
        with tables_without_memory():
            model: DV365 = dv365.make_model("rowwise_adagrad")
        model.placement = Sharded(config, torch.device("cpu"), 1)
        with default:
            model.configure_model()
        rows.append(held(model))
    assert rows[0]
    assert rows[0].keys() == rows[1].keys()
    for name, value in rows[0].items():
        assert torch.equal(value, rows[1][name])


def held(model: DV365) -> dict[str, Tensor]:
    """The rows of the tables that lie in this process, by name and shard."""
    found: dict[str, Tensor] = {}
    for child, tables in model.tables.items():
        for name, collection in tables.collections.items():
            for key, weight in collection.state_dict().items():
                shards = getattr(weight, "local_shards", None)
                parts = [weight] if shards is None else [shard.tensor for shard in shards()]
                for number, part in enumerate(parts):
                    found[f"{child} {name} {key} {number}"] = part.detach()
    return found

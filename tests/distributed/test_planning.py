"""Plans: what constraints allow, what they cost, and what cannot be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

from recsys.core.errors import ConfigError
from recsys.distributed.config import StrategyConfig, TableConstraint, TopologyConfig
from recsys.distributed.plan_costs import imbalance, lookups_per_rank
from recsys.distributed.planning import (
    DENSE_COPIES,
    ModelPlan,
    PlanDoesNotFitError,
    make_plan,
    mark_optimizers,
)
from recsys.distributed.table_options import Machine, table_constraints
from recsys.nn.tables.collection import bag_collection, tables_without_memory, uniform_rows
from recsys.optim.fused import FusedOptimizerConfig

WIDTH = 256
ROWS = {"goods": 50_000_000, "authors": 1_000_000, "days": 10}
GPUS = Machine(world_size=16, per_node=8, device="cuda", device_bytes=80 * 10**9, host_bytes=2**37)


def collection_of(rows: dict[str, int], width: int = WIDTH) -> EmbeddingBagCollection:
    """Tables by name."""
    return bag_collection(
        [
            EmbeddingBagConfig(
                name=name,
                embedding_dim=width,
                num_embeddings=count,
                feature_names=[name],
                init_fn=uniform_rows(name, 0.1),
            )
            for name, count in rows.items()
        ]
    )


class Model(nn.Module):
    """Three tables without memory and a dense layer of 12 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Module()
        with tables_without_memory():
            self.part.tables = collection_of(ROWS)
        self.dense = nn.Linear(3, 3)


def plan_of(
    machine: Machine, *constraints: TableConstraint, optimizer: str = "rowwise_adagrad"
) -> ModelPlan:
    model = Model()
    mark_optimizers(model, {"part": FusedOptimizerConfig(optimizer)})
    config = StrategyConfig("torchrec", tables=list(constraints))
    return make_plan(model, config, machine)[0]


def test_tables_have_no_memory_and_come_largest_first() -> None:
    assert all(weight.is_meta for weight in Model().part.tables.parameters())
    plan = plan_of(GPUS)
    assert [(table.name, table.rows) for table in plan.tables] == [
        (f"part.tables.{name}", ROWS[name]) for name in ("goods", "authors", "days")
    ]
    assert plan.dense_bytes == DENSE_COPIES * 12 * 4


def test_the_memory_of_a_whole_table_is_that_of_its_rows_and_their_optimiser() -> None:
    """One number per row of 256 for row-wise Adagrad; inputs and outputs are small beside it."""
    on_one = TableConstraint("*", ["table_wise"])
    plan = plan_of(GPUS, on_one)
    [shard] = plan.tables[0].shards
    assert (shard.rows, shard.columns) == (ROWS["goods"], WIDTH)
    assert shard.device_bytes == pytest.approx(ROWS["goods"] * 257 * 4, rel=1e-3)
    assert max(plan.bytes_per_rank()) >= shard.device_bytes + plan.dense_bytes
    on_one_gpu = TableConstraint("*", ["table_wise"], ["fused"])
    with pytest.raises(PlanDoesNotFitError):  # twice that
        plan_of(GPUS, on_one_gpu, optimizer="adagrad")


def test_the_first_constraint_that_fits_a_name_holds() -> None:
    plan = plan_of(
        GPUS,
        TableConstraint("good*", ["row_wise"]),
        TableConstraint("?oods", ["table_wise"]),
        TableConstraint("authors", ["column_wise"], min_columns=64),
        TableConstraint("*", ["data_parallel"]),
    )
    items, authors, days = plan.tables
    assert (items.sharding_type, items.compute_kernel) == ("row_wise", "fused")
    assert len({shard.rank for shard in items.shards}) == 16
    assert sum(shard.rows for shard in items.shards) == ROWS["goods"]
    assert authors.sharding_type == "column_wise"
    assert sum(shard.columns for shard in authors.shards) == WIDTH
    assert (days.sharding_type, days.compute_kernel) == ("data_parallel", "dense")
    assert {shard.rank for shard in days.shards} == set(range(16))


def test_a_cached_table_lies_in_host_memory() -> None:
    cached = TableConstraint("goods", ["table_wise"], ["fused_uvm_caching"], cache_fraction=0.1)
    [shard] = plan_of(GPUS, cached).tables[0].shards
    assert shard.host_bytes == pytest.approx(ROWS["goods"] * 257 * 4, rel=0.01)
    # a tenth of the rows, 4 bytes per row that say where it is, 8 per row that is kept
    cached_bytes = ROWS["goods"] * (0.1 * 257 * 4 + 4 + 0.1 * 8)
    assert shard.device_bytes == pytest.approx(cached_bytes, rel=0.01)


def test_what_does_not_fit_is_a_sentence() -> None:
    small = Machine(2, 2, "cuda", device_bytes=10**9, host_bytes=2**30)
    with pytest.raises(PlanDoesNotFitError, match=r"2 process\(es\) with 0\.9 GiB per GPU"):
        plan_of(small, TableConstraint("*", compute_kernels=["fused", "dense"]))


def test_what_the_device_cannot_do_is_a_sentence() -> None:
    cpus = Machine(2, 2, "cpu", device_bytes=0, host_bytes=2**40)
    with pytest.raises(ConfigError, match=r"strategy\.tables leaves no plan.* On cpu there are"):
        plan_of(cpus, TableConstraint("*", ["row_wise"]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TableConstraint(sharding_types=["by_row"]),
        lambda: TableConstraint(compute_kernels=["quant"]),
        lambda: TableConstraint(min_columns=6),
        lambda: TableConstraint(cache_fraction=0.0),
        lambda: TableConstraint(lookups=0),
        lambda: TopologyConfig(reserve=1.0),
        lambda: TopologyConfig(device_memory_gib=0),
        lambda: TopologyConfig(cross_node_gib_s=0),
        lambda: StrategyConfig(name="ddp"),
        lambda: StrategyConfig(batch_size=0),
        lambda: StrategyConfig(timeout_minutes=0),
    ],
)
def test_unusable_configuration_is_a_sentence(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="it must be "):
        make()


def test_small_tables_are_whole_and_large_ones_on_every_node() -> None:
    """Two nodes of eight GPUs: no shard without rows, and no rank without its share."""
    plan = plan_of(GPUS)
    goods, _, days = plan.tables
    assert days.sharding_type == "data_parallel"
    assert all(shard.rows > 0 for table in plan.tables for shard in table.shards)
    assert {shard.rank for shard in goods.shards} == set(range(16))
    assert imbalance(plan.bytes_per_rank()) < 1.1
    assert imbalance(lookups_per_rank(plan)) < 1.1


def test_a_table_is_cut_by_rows_only_where_every_shard_has_some() -> None:
    """Sixteen rows for each of sixteen ranks, and what the user says goes before."""
    kinds = {
        rows: table_constraints([collection_of({"goods": rows})], StrategyConfig(), GPUS)["goods"]
        for rows in (255, 256)
    }
    assert not set(kinds[255].sharding_types or []) & {"row_wise", "table_row_wise", "grid_shard"}
    assert {"row_wise", "table_row_wise", "grid_shard"} <= set(kinds[256].sharding_types or [])
    assert kinds[256].min_partition == 128  # half of the 256 columns for either node
    one_node = replace(GPUS, world_size=8)
    [one] = table_constraints([collection_of({"goods": 256})], StrategyConfig(), one_node).values()
    assert one.min_partition is None
    assert "grid_shard" not in (one.sharding_types or [])
    given = StrategyConfig("torchrec", [TableConstraint("goods", ["row_wise"], min_columns=8)])
    [one] = table_constraints([collection_of({"goods": 2})], given, GPUS).values()
    assert (one.sharding_types, one.min_partition) == (["row_wise"], 8)


def test_the_largest_tables_of_a_node_are_cut_so_that_they_come_out_even() -> None:
    """Six by half of TorchRec's columns, for eight GPUs; not where that is no more even."""
    node = replace(GPUS, world_size=8)

    def least(
        number: int, rows: int, width: int = WIDTH, machine: Machine = node
    ) -> set[int | None]:
        names = [f"goods{place}" for place in range(number)]
        with tables_without_memory():
            collection = collection_of(dict.fromkeys(names, rows) | {"days": 10}, width)
        constraints = table_constraints([collection], StrategyConfig(), machine)
        assert constraints["days"].min_partition is None
        return {constraints[name].min_partition for name in names}

    assert least(6, ROWS["goods"]) == {64}
    assert least(4, ROWS["goods"]) == least(3, ROWS["goods"]) == {None}  # even, and uneven anyhow
    assert least(4, ROWS["goods"], 128) == {64}
    assert least(6, 10_000) == {None}  # too small to matter
    assert least(6, ROWS["goods"], machine=replace(node, device="cpu")) == {None}

    model = nn.Module()
    model.part = nn.Module()
    names = [f"goods{place}" for place in range(6)]
    with tables_without_memory():
        model.part.tables = collection_of(dict.fromkeys(names, ROWS["goods"]) | {"days": 10})
    mark_optimizers(model, {"part": FusedOptimizerConfig("rowwise_adagrad")})
    plan, _ = make_plan(model, StrategyConfig("torchrec"), node)
    assert imbalance(plan.bytes_per_rank()) < 1.05


@pytest.mark.parametrize(
    ("pattern", "nearest"), [("gods", "goods"), ("*autors*", "authors"), ("xyz", "authors, days")]
)
def test_a_constraint_that_fits_no_table_is_a_sentence(pattern: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"'{re.escape(pattern)}'.* nearest are {nearest}"):
        plan_of(GPUS, TableConstraint(pattern, ["table_wise"]))

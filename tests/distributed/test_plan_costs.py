"""The bytes of a step, by hand, on plans of few ranks."""

from __future__ import annotations

import pytest

from recsys.distributed.plan_costs import (
    imbalance,
    lookups_per_rank,
    numbers_per_rank,
    step_exchange,
)
from recsys.distributed.planning import DENSE_COPIES, ModelPlan, ShardPlan, TablePlan

#: Examples per rank; 100 rows of 8 numbers, 2 features, 6 ids an example.
BATCH, ROWS, WIDTH, FEATURES, LOOKUPS = 10, 100, 8, 2, 6.0
#: What a rank sends to a rank that holds all rows: ids of 8 bytes, lengths of 4.
ASKED = BATCH * LOOKUPS * 8 + BATCH * FEATURES * 4
#: Pooled rows of a rank's examples.
POOLED = BATCH * FEATURES * WIDTH * 4


def table(
    sharding_type: str, shards: list[tuple[int, int, int]], is_weighted: bool = False
) -> TablePlan:
    """A table whose shards are given as rank, rows and columns."""
    parts = tuple(ShardPlan(rank, rows, columns, 0, 0) for rank, rows, columns in shards)
    kernel = "dense" if sharding_type == "data_parallel" else "fused"
    return TablePlan("t", ROWS, WIDTH, sharding_type, kernel, FEATURES, LOOKUPS, is_weighted, parts)


def plan(*tables: TablePlan, dense_bytes: int = 0) -> ModelPlan:
    """On two nodes of two ranks."""
    return ModelPlan(4, 2, "cuda", BATCH, dense_bytes, tables)


def test_a_whole_table_is_asked_by_every_other_rank() -> None:
    exchange = step_exchange(plan(table("table_wise", [(1, ROWS, WIDTH)])))
    assert (exchange.inputs[1].in_node, exchange.inputs[1].across) == (ASKED, 2 * ASKED)
    assert (exchange.outputs[1].in_node, exchange.outputs[1].across) == (POOLED, 2 * POOLED)
    assert all(exchange.inputs[rank].total == 0 for rank in (0, 2, 3))


def test_weights_travel_with_the_ids() -> None:
    exchange = step_exchange(plan(table("table_wise", [(1, ROWS, WIDTH)], is_weighted=True)))
    assert exchange.inputs[1].total == 3 * (ASKED + BATCH * LOOKUPS * 4)


def test_parts_of_columns_get_all_ids_and_send_their_columns() -> None:
    exchange = step_exchange(plan(table("column_wise", [(0, ROWS, 4), (3, ROWS, 4)])))
    for rank in (0, 3):
        assert exchange.inputs[rank].total == 3 * ASKED
        assert exchange.outputs[rank].total == 3 * POOLED / 2


def test_parts_of_rows_get_their_ids_and_send_sums_of_all_columns() -> None:
    shards = [(rank, 25, WIDTH) for rank in range(4)]
    exchange = step_exchange(plan(table("row_wise", shards)))
    for rank in range(4):
        assert exchange.inputs[rank].total == 3 * (BATCH * LOOKUPS / 4 * 8 + BATCH * FEATURES * 4)
        assert exchange.outputs[rank].total == 3 * POOLED


def test_sums_of_a_node_are_made_before_they_leave_it() -> None:
    """Each of two ranks sums half of the examples of four ranks, and sends half a node's on."""
    exchange = step_exchange(plan(table("table_row_wise", [(2, 50, WIDTH), (3, 50, WIDTH)])))
    for rank in (2, 3):
        assert exchange.outputs[rank].in_node == 2 * POOLED
        assert exchange.outputs[rank].across == POOLED


def test_replicated_tables_and_the_dense_part_are_averaged() -> None:
    shards = [(rank, ROWS, WIDTH) for rank in range(4)]
    one = plan(table("data_parallel", shards), dense_bytes=1000 * DENSE_COPIES)
    exchange = step_exchange(one)
    assert exchange.replicated.across == 2 * ROWS * WIDTH * 4 * 3 / 4
    assert exchange.dense.across == 2 * 1000 * 3 / 4
    assert exchange.inputs[0].total == exchange.outputs[0].total == 0
    assert lookups_per_rank(one) == [BATCH * LOOKUPS] * 4
    assert numbers_per_rank(one) == [ROWS * WIDTH] * 4


def test_seconds_of_a_rank_are_its_exchanges_one_after_the_other() -> None:
    exchange = step_exchange(plan(table("table_wise", [(1, ROWS, WIDTH)])))
    expected = (ASKED + 2 * POOLED) / 100 + 2 * (ASKED + 2 * POOLED) / 10
    assert exchange.seconds(1, 100, 10) == pytest.approx(expected)
    assert exchange.seconds(0, 100, 10) == 0


def test_balance_is_the_most_over_the_mean() -> None:
    one = plan(table("row_wise", [(0, 70, WIDTH), (1, 10, WIDTH), (2, 10, WIDTH), (3, 10, WIDTH)]))
    assert lookups_per_rank(one) == pytest.approx(
        [4 * BATCH * LOOKUPS * n for n in (0.7, 0.1, 0.1, 0.1)]
    )
    assert imbalance(lookups_per_rank(one)) == pytest.approx(0.7 * 4)
    assert imbalance([0, 0]) == 1

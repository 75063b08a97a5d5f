"""What a step and a start cost under a plan: bytes, balance, rows to draw.

All follows from the plan's own estimates: its examples per rank, and the ids that an example looks
up in a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchrec.distributed.types import ShardingType

from recsys.distributed.planning import DENSE_COPIES, ModelPlan, ShardPlan, TablePlan

_ID_BYTES, _LENGTH_BYTES, _FLOAT_BYTES = 8, 4, 4

_REDUCED_IN_NODE = (ShardingType.TABLE_ROW_WISE.value, ShardingType.GRID_SHARD.value)


@dataclass
class Sent:
    """Bytes that a rank exchanges with others in one direction of one exchange.

    Attributes:
        in_node: with ranks of its node.
        across: with those of other nodes.
    """

    in_node: float = 0.0
    across: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.in_node + self.across

    def seconds(self, in_node_per_second: float, across_per_second: float) -> float:
        """One after the other, at these bandwidths."""
        return self.in_node / in_node_per_second + self.across / across_per_second

    def add(self, in_node: float, across: float) -> None:
        """Count these bytes too."""
        self.in_node += in_node
        self.across += across


@dataclass(frozen=True)
class StepExchange:
    """What a rank exchanges in a step; each list has an entry per rank.

    Attributes:
        inputs: ids, their weights and counts that come to the rank's shards.
        outputs: pooled rows that its shards send; their gradients come back, as many.
        replicated: sent in averaging the gradients of ``data_parallel`` tables, by any rank.
        dense: sent in averaging those of the dense part, by any rank.
    """

    inputs: list[Sent]
    outputs: list[Sent]
    replicated: Sent
    dense: Sent

    def of_rank(self, rank: int) -> list[Sent]:
        """In the order of the step: inputs, outputs, gradients, averages."""
        outputs = self.outputs[rank]
        return [self.inputs[rank], outputs, outputs, self.replicated, self.dense]

    def seconds(self, rank: int, in_node_per_second: float, across_per_second: float) -> float:
        """Of all exchanges one after the other, at these bandwidths in bytes."""
        return sum(one.seconds(in_node_per_second, across_per_second) for one in self.of_rank(rank))


def step_exchange(plan: ModelPlan) -> StepExchange:
    """The bytes of a step."""
    exchange = StepExchange(
        [Sent() for _ in range(plan.world_size)],
        [Sent() for _ in range(plan.world_size)],
        Sent(),
        _averaged(plan, plan.dense_bytes / DENSE_COPIES),
    )
    for table in plan.tables:
        if is_replicated(table):
            averaged = _averaged(plan, table.rows * table.width * _FLOAT_BYTES)
            exchange.replicated.add(averaged.in_node, averaged.across)
            continue
        for shard in table.shards:
            _add_shard(plan, table, shard, exchange)
    return exchange


def _add_shard(plan: ModelPlan, table: TablePlan, shard: ShardPlan, exchange: StepExchange) -> None:
    near, far = plan.per_node - 1, plan.world_size - plan.per_node
    ids = plan.batch_size * table.lookups * shard.rows / table.rows
    each = ids * (_ID_BYTES + _FLOAT_BYTES * table.is_weighted)
    each += plan.batch_size * table.features * _LENGTH_BYTES
    exchange.inputs[shard.rank].add(near * each, far * each)
    pooled = plan.batch_size * table.features * shard.columns * _FLOAT_BYTES
    if table.sharding_type in _REDUCED_IN_NODE:
        # summed in the node first, each of its ranks for a share of the examples of all ranks
        share = pooled * plan.world_size / plan.per_node
        exchange.outputs[shard.rank].add(near * share, far / plan.per_node * pooled)
    else:
        exchange.outputs[shard.rank].add(near * pooled, far * pooled)


def _averaged(plan: ModelPlan, size: float) -> Sent:
    """What a rank sends in averaging so many bytes over all ranks in a ring."""
    sent = 2 * size * (plan.world_size - 1) / plan.world_size
    return Sent(sent, 0.0) if plan.world_size == plan.per_node else Sent(0.0, sent)


def is_replicated(table: TablePlan) -> bool:
    """Whether every rank has the whole table."""
    return table.sharding_type == ShardingType.DATA_PARALLEL.value


def lookups_per_rank(plan: ModelPlan) -> list[float]:
    """Rows that each rank looks up in a step, in all its shards."""
    found = [0.0] * plan.world_size
    for table in plan.tables:
        ids = plan.batch_size * table.lookups
        for shard in table.shards:
            asked_by = 1 if is_replicated(table) else plan.world_size
            found[shard.rank] += asked_by * ids * shard.rows / table.rows
    return found


def numbers_per_rank(plan: ModelPlan) -> list[int]:
    """First numbers of tables that each rank draws when a training starts."""
    drawn = [0] * plan.world_size
    for table in plan.tables:
        for shard in table.shards:
            drawn[shard.rank] += shard.rows * shard.columns
    return drawn


def imbalance(values: list[float] | list[int]) -> float:
    """The most over the mean; 1 where all are equal, or nothing."""
    mean = sum(values) / len(values)
    return max(values) / mean if mean else 1.0

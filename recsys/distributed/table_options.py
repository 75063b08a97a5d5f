"""What the planner may choose among for each table, and by what it chooses a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.types import PerfModel, ShardingOption
from torchrec.distributed.types import CacheParams, ShardingType

from recsys.core.errors import ConfigError
from recsys.distributed.config import StrategyConfig, TableConstraint

#: Rows of a shard, at least, where a table is cut by rows: the planner prices a shard without rows
#: like any other.
LEAST_ROWS = 16
#: Columns of a shard, at least, of a table that is spread over nodes: 128 bytes, a line of memory.
LEAST_COLUMNS = 32
#: TorchRec's own bound on columns.
_TORCHREC_COLUMNS = 128
#: Half of them, for the largest tables of a single node: narrower rows cost FBGEMM more.
_HALF_COLUMNS = 64
#: Share of a GPU's memory from which on it matters how evenly tables of a size are spread.
_LARGE = 0.01
#: Names that a message lists.
_LISTED = 5
_FLOAT_BYTES = 4

_WHOLE_ROWS = [
    ShardingType.DATA_PARALLEL.value,
    ShardingType.TABLE_WISE.value,
    ShardingType.COLUMN_WISE.value,
    ShardingType.TABLE_COLUMN_WISE.value,
]
_CUT_BY_ROWS = [ShardingType.ROW_WISE.value, ShardingType.TABLE_ROW_WISE.value]


@dataclass(frozen=True)
class Machine:
    """The processes a plan is for.

    Attributes:
        world_size: number of processes.
        per_node: processes of a node.
        device: ``cpu`` or ``cuda``.
        device_bytes: memory of a GPU, 0 without one.
        host_bytes: memory of the host, per process.
    """

    world_size: int
    per_node: int
    device: str
    device_bytes: int
    host_bytes: int

    @property
    def num_nodes(self) -> int:
        """Number of nodes, the last one perhaps not full."""
        return -(-self.world_size // self.per_node)


class TimeAndMemory(PerfModel):
    """Rates a plan by the estimated time of the busiest rank and the mean of all.

    TorchRec goes by the busiest alone. Where one table decides that, whatever else goes elsewhere
    is free to it, and it sent the lookups of tables of four rows over the network. The time counts
    more by the share of a device's memory that the fullest rank needs above the mean: of plans that
    take about the same time the even one leaves room for larger batches.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def rate(self, plan: list[ShardingOption]) -> float:
        """Milliseconds; the least is the best."""
        ranks = self._machine.world_size
        on_gpu = self._machine.device == "cuda"
        times, sizes = [0.0] * ranks, [0] * ranks
        for option in plan:
            for shard in option.shards:
                assert shard.rank is not None and shard.perf is not None
                assert shard.storage is not None
                times[shard.rank] += shard.perf.total
                sizes[shard.rank] += shard.storage.hbm if on_gpu else shard.storage.ddr
        memory = self._machine.device_bytes if on_gpu else self._machine.host_bytes
        above = (max(sizes) - sum(sizes) / ranks) / memory
        return (max(times) + sum(times) / ranks) * (1 + above)


def table_constraints(
    collections: Iterable[EmbeddingBagCollection], config: StrategyConfig, machine: Machine
) -> dict[str, ParameterConstraints]:
    """What the planner may do with each table, by its name.

    Raises:
        ConfigError: a constraint fits no table.
    """
    tables = [
        (table, collection.is_weighted())
        for collection in collections
        for table in collection.embedding_bag_configs()
    ]
    _refuse_unmatched(config, sorted({table.name for table, _ in tables}))
    halved = _evened_by_half([table for table, _ in tables], machine)
    constraints = {}
    for table, is_weighted in tables:
        least = _least_columns(table.embedding_dim, machine)
        if table.name in halved:
            least = _HALF_COLUMNS
        given = config.constraint(table.name)
        constraints[table.name] = _constraint(table, is_weighted, given, machine, least)
    return constraints


def _constraint(
    table: EmbeddingBagConfig,
    is_weighted: bool,
    given: TableConstraint,
    machine: Machine,
    least_columns: int | None,
) -> ParameterConstraints:
    cache = None
    if given.cache_fraction is not None:
        cache = CacheParams(load_factor=given.cache_fraction)
    return ParameterConstraints(
        sharding_types=given.sharding_types or _sharding_types(table.num_embeddings, machine),
        compute_kernels=given.compute_kernels or None,
        min_partition=given.min_columns or least_columns,
        cache_params=cache,
        pooling_factors=[given.lookups] * len(table.feature_names),
        is_weighted=is_weighted,
    )


def _sharding_types(rows: int, machine: Machine) -> list[str] | None:
    """Those worth trying for a table; None for all that TorchRec tries by itself.

    Of a large table on several nodes also a grid, rows over the ranks of a node and columns over
    the nodes: else it lies on one node or, cut by rows alone, sends sums of every rank to every
    other.
    """
    if machine.device != "cuda":
        return None
    if rows < LEAST_ROWS * machine.world_size:
        return _WHOLE_ROWS
    grid = [ShardingType.GRID_SHARD.value] if machine.num_nodes > 1 else []
    return [*_WHOLE_ROWS, *_CUT_BY_ROWS, *grid]


def _least_columns(width: int, machine: Machine) -> int | None:
    """So few that a table can have a part on every node; None for TorchRec's bound.

    In a single node narrower parts of all tables help nobody: the planner's price of narrow rows
    outweighs the exchange that they even out, and it leaves tables whole.
    """
    if machine.device != "cuda" or machine.num_nodes == 1:
        return None
    share = -(-width // machine.num_nodes)
    return min(max(-(-share // 4) * 4, LEAST_COLUMNS), _TORCHREC_COLUMNS)


def _evened_by_half(tables: Sequence[EmbeddingBagConfig], machine: Machine) -> set[str]:
    """The largest tables, where only parts of half of TorchRec's columns come out even.

    In a single node of GPUs, for tables of one size. Six tables of 256 columns are twelve parts of
    128, of which four of eight ranks hold two and four one; of 64 they are 24, three for each.
    """
    if machine.device != "cuda" or machine.num_nodes > 1 or not tables:
        return set()
    sizes = {
        one.name: (one.num_embeddings * one.embedding_dim, one.embedding_dim) for one in tables
    }
    numbers, width = max(sizes.values())
    largest = {name for name, size in sizes.items() if size == (numbers, width)}
    is_large = numbers * _FLOAT_BYTES > _LARGE * machine.device_bytes
    is_even, is_even_by_half = (
        len(largest) * -(-width // columns) % machine.world_size == 0
        for columns in (_TORCHREC_COLUMNS, _HALF_COLUMNS)
    )
    return largest if is_large and is_even_by_half and not is_even else set()


def _refuse_unmatched(config: StrategyConfig, names: list[str]) -> None:
    for one in config.tables:
        if any(fnmatchcase(name, one.tables) for name in names):
            continue
        bare = one.tables.replace("*", "").replace("?", "")
        near = get_close_matches(bare, names, _LISTED, cutoff=0.4) or names[:_LISTED]
        raise ConfigError(
            f"strategy.tables has a constraint for {one.tables!r}, which fits none of the model's "
            f"{len(names)} tables; the nearest are {', '.join(near)}. Names are whole: put * where "
            "any characters may stand."
        )

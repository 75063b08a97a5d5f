"""How the tables of a run are spread over processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated

from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.types import ShardingType

from recsys.core.bounds import (
    BatchSize,
    Gibibytes,
    Number,
    OneOf,
    Positive,
    Settings,
    ShareBelowOne,
)

SINGLE = "single"
TORCHREC = "torchrec"

SHARDING_TYPES = tuple(kind.value for kind in ShardingType)
#: Those with an optimiser of ours: trained in the device's memory, in the host's, or cached.
COMPUTE_KERNELS = (
    EmbeddingComputeKernel.FUSED.value,
    EmbeddingComputeKernel.FUSED_UVM.value,
    EmbeddingComputeKernel.FUSED_UVM_CACHING.value,
    EmbeddingComputeKernel.DENSE.value,
)


@dataclass(frozen=True)
class TableConstraint(Settings):
    """What the planner may do with some tables.

    Attributes:
        tables: names, with ``*`` and ``?`` for any characters.
        sharding_types: allowed ones; empty for all that the device has and the table has rows for.
        compute_kernels: allowed ones; empty for all that the device has.
        min_columns: narrowest column shard; None for TorchRec's 128, and on GPUs for less where
            that gives every node a part, or the ranks of a single node as many.
        cache_fraction: rows of a ``fused_uvm_caching`` table that are kept on the GPU; None for
            TorchRec's choice.
        lookups: mean number of rows that an example looks up per feature of these tables.
    """

    tables: str = "*"
    sharding_types: list[Annotated[str, OneOf(SHARDING_TYPES)]] = field(default_factory=list)
    compute_kernels: list[Annotated[str, OneOf(COMPUTE_KERNELS)]] = field(default_factory=list)
    min_columns: Annotated[int, Number(at_least=4, at_most=16_384, multiple_of=4)] | None = None
    cache_fraction: Annotated[float, Number(above=0, at_most=1)] | None = None
    lookups: Positive = 1.0


@dataclass(frozen=True)
class TopologyConfig(Settings):
    """What a process has.

    Attributes:
        device_memory_gib: of a GPU; None asks the GPU.
        host_memory_gib: of the host, per process; None asks the host and divides by the processes
            of a node.
        reserve: share of that memory the planner leaves free, beside the dense part of the model.
        intra_node_gib_s: what a process can send to others of its node, in GiB per second.
        cross_node_gib_s: what it can send to those of other nodes.
        measured: ``preflight.json`` of a check of the nodes, whose bandwidths hold instead.
    """

    device_memory_gib: Gibibytes | None = None
    host_memory_gib: Gibibytes | None = None
    reserve: ShareBelowOne = 0.15
    intra_node_gib_s: Positive = 600.0
    cross_node_gib_s: Positive = 12.5
    measured: str | None = None


@dataclass(frozen=True)
class StrategyConfig(Settings):
    """How a run is spread over processes.

    Attributes:
        name: ``single`` is one process with fused tables; ``torchrec`` shards the tables over all
            processes and keeps everything else on each of them.
        tables: constraints of the plan; of a table the first whose name fits holds.
        topology: what a process has.
        batch_size: examples per process and step that the plan's estimates assume.
        timeout_minutes: how long a process waits for the others before it gives up; for what the
            first one does alone it waits up to a day.
        hang_minutes: how long a training may come no further on any rank before it is ended, with
            the name of the rank that hangs; None for as long as ``timeout_minutes`` lets it. Longer
            than the longest step, validation or checkpoint.
        overlap_inputs: whether the inputs of the tables travel to the processes that hold them
            while the batch before theirs is computed.
    """

    name: Annotated[str, OneOf((SINGLE, TORCHREC))] = SINGLE
    tables: list[TableConstraint] = field(default_factory=list)
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    batch_size: BatchSize = 512
    timeout_minutes: Annotated[float, Number(above=0, at_most=1_000_000)] = 30.0
    hang_minutes: Annotated[float, Number(above=0, at_most=1_000_000)] | None = 15.0
    overlap_inputs: bool = True

    def constraint(self, table: str) -> TableConstraint:
        """What holds for a table."""
        fitting = (one for one in self.tables if fnmatchcase(table, one.tables))
        return next(fitting, TableConstraint())

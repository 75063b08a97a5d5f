"""How the tables of a run are spread over processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.types import ShardingType

from recsys.core.errors import ConfigError

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
class TableConstraint:
    """What the planner may do with some tables.

    Attributes:
        tables: names, with ``*`` and ``?`` for any characters.
        sharding_types: allowed ones; empty for all that the device has.
        compute_kernels: allowed ones; empty for all that the device has.
        min_columns: narrowest column shard; None for TorchRec's 128.
        cache_fraction: rows of a ``fused_uvm_caching`` table that are kept on the GPU; None for
            TorchRec's choice.
        lookups: mean number of rows that an example looks up per feature of these tables.
    """

    tables: str = "*"
    sharding_types: list[str] = field(default_factory=list)
    compute_kernels: list[str] = field(default_factory=list)
    min_columns: int | None = None
    cache_fraction: float | None = None
    lookups: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what TorchRec does not know."""
        for name, known in (
            ("sharding_types", SHARDING_TYPES),
            ("compute_kernels", COMPUTE_KERNELS),
        ):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown:
                raise ConfigError(
                    f"strategy.tables: {name} of {self.tables!r} has {unknown[0]!r}; choose from "
                    f"{', '.join(known)}."
                )
        if self.min_columns is not None and (self.min_columns < 4 or self.min_columns % 4):
            raise ConfigError(
                f"strategy.tables: min_columns of {self.tables!r} is {self.min_columns}; it must "
                "be a positive multiple of 4."
            )
        if self.cache_fraction is not None and not 0 < self.cache_fraction <= 1:
            raise ConfigError(
                f"strategy.tables: cache_fraction of {self.tables!r} is {self.cache_fraction}; it "
                "must lie above 0 and not above 1."
            )
        if self.lookups <= 0:
            raise ConfigError(
                f"strategy.tables: lookups of {self.tables!r} is {self.lookups}; it must be above "
                "0."
            )


@dataclass(frozen=True)
class TopologyConfig:
    """What a process has.

    Attributes:
        device_memory_gib: of a GPU; None asks the GPU.
        host_memory_gib: of the host, per process; None asks the host and divides by the processes
            of a node.
        reserve: share of that memory the planner leaves free, beside the dense part of the model.
    """

    device_memory_gib: float | None = None
    host_memory_gib: float | None = None
    reserve: float = 0.15

    def __post_init__(self) -> None:
        """Refuse sizes that nothing has."""
        for name in ("device_memory_gib", "host_memory_gib"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"strategy.topology.{name} is {value}, it must be above 0.")
        if not 0 <= self.reserve < 1:
            raise ConfigError(
                f"strategy.topology.reserve is {self.reserve}; it must be at least 0, below 1."
            )


@dataclass(frozen=True)
class StrategyConfig:
    """How a run is spread over processes.

    Attributes:
        name: ``single`` is one process with fused tables; ``torchrec`` shards the tables over all
            processes and keeps everything else on each of them.
        tables: constraints of the plan; of a table the first whose name fits holds.
        topology: what a process has.
        batch_size: examples per process and step that the plan's estimates assume.
        timeout_minutes: how long a process waits for the others before it gives up; for what the
            first one does alone it waits up to a day.
        overlap_inputs: whether the inputs of the tables travel to the processes that hold them
            while the batch before theirs is computed.
    """

    name: str = SINGLE
    tables: list[TableConstraint] = field(default_factory=list)
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    batch_size: int = 512
    timeout_minutes: float = 30.0
    overlap_inputs: bool = True

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if self.name not in (SINGLE, TORCHREC):
            raise ConfigError(
                f"strategy.name={self.name} is unknown; choose {SINGLE} or {TORCHREC}."
            )
        if self.batch_size < 1:
            raise ConfigError(f"strategy.batch_size is {self.batch_size}, it must be at least 1.")
        if self.timeout_minutes <= 0:
            raise ConfigError(
                f"strategy.timeout_minutes is {self.timeout_minutes}, it must be above 0."
            )

    def constraint(self, table: str) -> TableConstraint:
        """What holds for a table."""
        fitting = (one for one in self.tables if fnmatchcase(table, one.tables))
        return next(fitting, TableConstraint())

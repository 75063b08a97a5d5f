"""The sharding plan: made by TorchRec's planner under our constraints, kept as plain records."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.partitioners import MemoryBalancedPartitioner
from torchrec.distributed.planner.storage_reservations import HeuristicalStorageReservation
from torchrec.distributed.planner.types import (
    PlannerError,
    PlannerErrorType,
    ShardingOption,
    Stats,
)
from torchrec.distributed.types import ShardingPlan

from recsys.core.errors import ConfigError
from recsys.distributed.config import StrategyConfig
from recsys.distributed.preflight.check import bandwidths_of
from recsys.distributed.sharded_collection import CollectionSharder
from recsys.distributed.table_options import Machine, TimeAndMemory, table_constraints
from recsys.optim.fused import OPTIMIZERS, FusedOptimizerConfig, check_optimizer, optimizer_options

#: Weights, gradients, and two states of Adam with their copies: TorchRec's rule of thumb.
DENSE_COPIES = 6

#: With any constraint the planner blames the constraints for what does not fit.
_TOO_LARGE = (
    PlannerErrorType.INSUFFICIENT_STORAGE,
    PlannerErrorType.PARTITION,
    PlannerErrorType.STRICT_CONSTRAINTS,
)


@dataclass(frozen=True)
class ShardPlan:
    """A part of a table.

    Attributes:
        rank: the process that holds it.
        rows: its height.
        columns: its width.
        device_bytes: estimated memory on the GPU: weights, optimiser, inputs and outputs.
        host_bytes: likewise on the host.
    """

    rank: int
    rows: int
    columns: int
    device_bytes: int
    host_bytes: int


@dataclass(frozen=True)
class TablePlan:
    """Where a table goes.

    Attributes:
        name: its path in the model.
        rows: its height.
        width: D.
        sharding_type: TorchRec's name of how it is cut.
        compute_kernel: TorchRec's name of how it is looked up and updated.
        features: number of features that are looked up in it.
        lookups: ids that an example looks up in it, as the estimates assume.
        is_weighted: whether each of them has a weight.
        shards: its parts.
    """

    name: str
    rows: int
    width: int
    sharding_type: str
    compute_kernel: str
    features: int
    lookups: float
    is_weighted: bool
    shards: tuple[ShardPlan, ...]


@dataclass(frozen=True)
class ModelPlan:
    """Where all tables of a model go.

    Attributes:
        world_size: number of processes.
        per_node: processes of a node.
        device: ``cpu`` or ``cuda``.
        batch_size: examples per process and step that the estimates assume.
        dense_bytes: estimated memory of the dense part, on every process.
        tables: largest first.
    """

    world_size: int
    per_node: int
    device: str
    batch_size: int
    dense_bytes: int
    tables: tuple[TablePlan, ...]

    def bytes_per_rank(self) -> list[int]:
        """Estimated memory on the device that computes, tables and dense part."""
        total = [self.dense_bytes] * self.world_size
        for table in self.tables:
            for shard in table.shards:
                on_device = shard.device_bytes if self.device == "cuda" else shard.host_bytes
                total[shard.rank] += on_device
        return total

    def host_bytes_per_rank(self) -> list[int]:
        """Estimated memory on the host, of tables that lie there."""
        total = [0] * self.world_size
        for table in self.tables:
            for shard in table.shards:
                total[shard.rank] += shard.host_bytes
        return total

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


class PlanDoesNotFitError(ConfigError):
    """No plan under the constraints fits into the memory."""


def this_machine(config: StrategyConfig, world_size: int, per_node: int, device: str) -> Machine:
    """What the processes of this run have, where the configuration does not say it."""
    given = config.topology
    device_bytes = 0
    if device == "cuda":
        device_bytes = (
            torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
            if given.device_memory_gib is None
            else _bytes(given.device_memory_gib)
        )
    host_bytes = (
        psutil.virtual_memory().total // per_node
        if given.host_memory_gib is None
        else _bytes(given.host_memory_gib)
    )
    return Machine(world_size, per_node, device, device_bytes, host_bytes)


def mark_optimizers(module: nn.Module, optimizers: Mapping[str, FusedOptimizerConfig]) -> None:
    """Note at every table's weight how it is updated, where planner and sharder read it.

    Raises:
        ConfigError: an optimiser that cannot be used.
    """
    for child, config in optimizers.items():
        check_optimizer(config)
        for collection in collections_of(module.get_submodule(child)).values():
            for weight in collection.parameters():
                weight._optimizer_classes = [OPTIMIZERS[config.optimizer]]  # type: ignore[attr-defined]
                weight._optimizer_kwargs = [optimizer_options(config)]  # type: ignore[attr-defined]


def collections_of(module: nn.Module) -> dict[str, EmbeddingBagCollection]:
    """The table collections of ``module``, by name."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, EmbeddingBagCollection)
    }


def make_plan(
    module: nn.Module, config: StrategyConfig, machine: Machine
) -> tuple[ModelPlan, ShardingPlan]:
    """Plan the tables of ``module``, whose optimisers are marked.

    Returns:
        The plan as records, and as TorchRec takes it.

    Raises:
        PlanDoesNotFitError: the tables are too large for the memory.
        ConfigError: the constraints leave a table no way to be sharded on this device.
    """
    constraints = table_constraints(collections_of(module).values(), config, machine)
    dense_bytes = DENSE_COPIES * _dense_bytes(module)
    record = _Record()
    with warnings.catch_warnings():
        # its advice concerns models whose dense part is not built; ours is, and is measured
        warnings.simplefilter("ignore", FutureWarning)
        reservation = HeuristicalStorageReservation(
            percentage=config.topology.reserve, dense_tensor_estimate=dense_bytes
        )
    in_node, across = bandwidths_of(config.topology)
    planner = EmbeddingShardingPlanner(
        topology=Topology(
            world_size=machine.world_size,
            local_world_size=min(machine.per_node, machine.world_size),
            compute_device=machine.device,
            hbm_cap=machine.device_bytes,
            ddr_cap=machine.host_bytes,
            intra_host_bw=_bytes(in_node) / 1000,  # bytes per ms
            inter_host_bw=_bytes(across) / 1000,
        ),
        batch_size=config.batch_size,
        storage_reservation=reservation,
        # of what is at most 2 % slower than the fastest, what needs the least memory of a GPU
        partitioner=MemoryBalancedPartitioner() if machine.device == "cuda" else None,
        constraints=constraints,
        performance_model=TimeAndMemory(machine),
        stats=[record],
        debug=False,
    )
    logging.disable(logging.ERROR)  # what it logs of a refusal, the error below says
    try:
        sharding = planner.plan(module, [CollectionSharder()])
    except (PlannerError, RuntimeError) as error:  # the latter where a table has no way left
        raise _explained(error, config, machine) from error
    finally:
        logging.disable(logging.NOTSET)
    tables = [_table_plan(option) for option in record.options]
    tables.sort(key=lambda table: (-table.rows * table.width, table.name))
    plan = ModelPlan(
        machine.world_size,
        min(machine.per_node, machine.world_size),
        machine.device,
        config.batch_size,
        dense_bytes,
        tuple(tables),
    )
    return plan, sharding


class _Record(Stats):
    """Keeps the sharding options that the planner chose."""

    def __init__(self) -> None:
        self.options: Sequence[ShardingOption] = ()

    def log(self, *args: Any, best_plan: list[ShardingOption], **kwargs: Any) -> None:
        self.options = best_plan


def _table_plan(option: ShardingOption) -> TablePlan:
    rows, width = option.tensor.shape
    shards = tuple(
        ShardPlan(
            rank=shard.rank,
            rows=shard.size[0],
            columns=shard.size[1],
            device_bytes=shard.storage.hbm,
            host_bytes=shard.storage.ddr,
        )
        for shard in option.shards
    )
    return TablePlan(
        name=option.fqn,
        rows=rows,
        width=width,
        sharding_type=option.sharding_type,
        compute_kernel=option.compute_kernel,
        features=len(option.input_lengths),
        lookups=sum(option.input_lengths),
        is_weighted=bool(option.is_weighted),
        shards=shards,
    )


def _dense_bytes(module: nn.Module) -> int:
    """Size of the weights and buffers that are no tables."""
    tables = {
        id(weight)
        for collection in collections_of(module).values()
        for weight in collection.parameters()
    }
    return sum(
        tensor.numel() * tensor.element_size()
        for tensor in (*module.parameters(), *module.buffers())
        if id(tensor) not in tables
    )


def _explained(error: Exception, config: StrategyConfig, machine: Machine) -> ConfigError:
    """The planner's refusal as a sentence."""
    if isinstance(error, PlannerError) and error.error_type in _TOO_LARGE:
        memory, place = (
            (machine.device_bytes, "GPU")
            if machine.device == "cuda"
            else (machine.host_bytes, "process")
        )
        return PlanDoesNotFitError(
            f"The tables do not fit as strategy.tables wants them: {machine.world_size} "
            f"process(es) with {memory / 2**30:,.1f} GiB per {place}, of which "
            f"{config.topology.reserve:.0%} stay free; use more processes, allow strategy.tables "
            "to cut tables by rows or columns or to keep them in host memory (fused_uvm, "
            "fused_uvm_caching), or make tables smaller."
        )
    reason = " ".join(str(error).partition("To debug")[0].split())[:300]
    kinds = ", ".join(CollectionSharder().sharding_types(machine.device))
    return ConfigError(
        f"strategy.tables leaves no plan: {reason} On {machine.device} there are {kinds}; "
        "data_parallel needs the kernel dense, all others a fused one."
    )


def _bytes(gib: float) -> int:
    return round(gib * 2**30)

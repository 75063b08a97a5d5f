"""A run's sharding plan for a cluster that is not there."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import torch

from recsys.core.bounds import Gibibytes, OneOf, Processes, Settings, TableSize
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.schema import ID_COLUMNS
from recsys.data.stores.dataset import PreparedDataset
from recsys.distributed.planning import (
    ModelPlan,
    PlanDoesNotFitError,
    make_plan,
    mark_optimizers,
)
from recsys.distributed.table_module import TableModule
from recsys.distributed.table_options import Machine
from recsys.nn.tables.collection import tables_without_memory
from recsys.nn.tables.first_rows import FirstRows, Normal
from recsys.runs.config import RunConfig
from recsys.runs.system import TrainableSystem

#: Memory in bytes, as the maker states it; of a CPU it is that of the host.
DEVICES = {
    "a100_40gb": 40e9,
    "a100": 80e9,
    "h100": 80e9,
    "h200": 141e9,
    "l4": 24e9,
    "l40s": 48e9,
    "cpu": 0.0,
}
#: More than any plan needs: to see what one would need.
_UNLIMITED = 2**60
#: Measurements of how fast first rows are drawn.
_TRIES = 5


@dataclass(frozen=True)
class RowsConfig(Settings):
    """Rows of the tables of an id; None for what the prepared data set has.

    Attributes:
        user: of users.
        item: of items.
        author: of authors.
        topic: of topics.
    """

    user: TableSize | None = None
    item: TableSize | None = None
    author: TableSize | None = None
    topic: TableSize | None = None


@dataclass(frozen=True)
class PlanConfig(Settings):
    """The cluster.

    Attributes:
        world_size: processes, one per device.
        per_node: processes of a node.
        device: a key of ``DEVICES``.
        host_memory_gib: of the host, per process.
        rows: sizes of tables other than the data set's.
    """

    world_size: Processes = 8
    per_node: Processes = 8
    device: Annotated[str, OneOf(tuple(DEVICES))] = "h100"
    host_memory_gib: Gibibytes = 128.0
    rows: RowsConfig = field(default_factory=RowsConfig)

    def machine(self) -> Machine:
        """The processes of the cluster."""
        return Machine(
            world_size=self.world_size,
            per_node=self.per_node,
            device="cpu" if self.device == "cpu" else "cuda",
            device_bytes=round(DEVICES[self.device]),
            host_bytes=round(self.host_memory_gib * 2**30),
        )


@dataclass(frozen=True)
class Priced:
    """A plan and whether the cluster can hold it.

    Attributes:
        plan: under the constraints; where it does not fit, the one for unlimited memory.
        machine: the processes it is for.
        problem: why it does not fit, None where it does.
        numbers_per_second: first numbers of tables that a thread of this machine draws.
    """

    plan: ModelPlan
    machine: Machine
    problem: str | None
    numbers_per_second: float


def price(config: PlanConfig, system: TrainableSystem[Any], run: RunConfig) -> Priced:
    """Plan the tables of a run for a cluster; no table is given memory.

    Raises:
        DataError: the data set is not prepared, so that sizes are not known.
        ConfigError: the system has no sharded tables, or the constraints cannot be met.
    """
    model = _model(config, system, run)
    mark_optimizers(model, model.table_optimizers())
    machine, drawn = config.machine(), _numbers_per_second()
    try:
        return Priced(make_plan(model, run.strategy, machine)[0], machine, None, drawn)
    except PlanDoesNotFitError as error:
        unlimited = replace(machine, device_bytes=_UNLIMITED, host_bytes=_UNLIMITED)
        plan, _ = make_plan(model, run.strategy, unlimited)
        return Priced(plan, machine, str(error), drawn)


def _numbers_per_second() -> float:
    """First numbers of a table that one thread draws, the best of a few short tries."""
    part = torch.empty(2048, 256, device="cpu")  # what is drawn at once
    rows = FirstRows("", Normal(1.0), seed=0)
    best = 0.0
    for _ in range(_TRIES):
        start = time.thread_time()
        rows.fill(part, (0, 0), part.shape)
        best = max(best, part.numel() / (time.thread_time() - start))
    return best


def _model(config: PlanConfig, system: TrainableSystem[Any], run: RunConfig) -> TableModule:
    if not (run.data.out_folder / DATASET_FILE).is_file():
        raise DataError(
            f"{run.data.out_folder} is no prepared data set, whose sizes the plan needs; make it "
            "by `recsys data prepare` or a short `recsys train`."
        )
    dataset = system.dataset_of(run, PreparedDataset.open(run.data.out_folder))
    run = run.on(dataset.manifest)
    with tables_without_memory():
        model = system.restore(run, dataset, _with_rows(dataset.manifest, config.rows))
    if not isinstance(model, TableModule):
        raise ConfigError(
            f"system={run.system} has no tables to shard: all of it is on every process."
        )
    return model


def _with_rows(manifest: DatasetManifest, rows: RowsConfig) -> DatasetManifest:
    """The manifest as if the ids had so many values."""
    given = {name: count for name, count in asdict(rows).items() if count is not None}
    features = tuple(
        replace(feature, cardinality=given[feature.name.removesuffix("_id")])
        if feature.name in ID_COLUMNS and feature.name.removesuffix("_id") in given
        else feature
        for feature in manifest.features
    )
    sizes = manifest.vocabulary_sizes | given
    return replace(manifest, features=features, vocabulary_sizes=sizes)

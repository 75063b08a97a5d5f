"""Showing where the tables of a run go: ``plan.json`` and ``plan.txt`` of its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table

from recsys.core.console import Console, message_console
from recsys.core.durable import replaced_file
from recsys.core.json_files import write_json
from recsys.distributed.config import TopologyConfig
from recsys.distributed.plan_costs import (
    imbalance,
    lookups_per_rank,
    numbers_per_rank,
    step_exchange,
)
from recsys.distributed.planning import ModelPlan, TablePlan
from recsys.distributed.preflight.check import bandwidths_of

JSON_FILE = "plan.json"
TEXT_FILE = "plan.txt"

#: Width of tables that go into a file or a pipe.
WIDTH = 132
#: Ranks and shards that are listed one by one.
_LISTED = 4


class PlanFiles(lightning.Callback):
    """Prints the plan when it is made, and writes it into the folder once the training starts.

    A run that is gone on with and refused before that keeps the plan it had.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan: ModelPlan | None = None

    def show(self, plan: ModelPlan) -> None:
        """Print a plan on standard error."""
        self.plan = plan
        console = message_console(WIDTH)
        console.print(plan_report(plan, console.width))

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write what this process has shown, which the first rank does."""
        if self.plan is None:
            return
        write_json(self.folder / JSON_FILE, "sharding plan", self.plan.to_dict())
        with replaced_file(self.folder / TEXT_FILE) as partial, partial.open("w") as file:
            Console(file=file, width=WIDTH).print(plan_report(self.plan))


def plan_report(plan: ModelPlan, width: int = WIDTH) -> RenderableType:
    """A row per table, largest first, and the memory of the ranks.

    On fewer than ``WIDTH`` characters a table's kernel and sizes are left out, not its name broken.
    """
    title = f"{len(plan.tables)} tables on {plan.world_size} {plan.device} process(es)"
    wide = width >= WIDTH
    table = Table(title=title) if wide else Table(title=title, box=None, padding=(0, 1, 0, 0))
    shown = [column for column in _COLUMNS if wide or column[0] in _NARROW]
    for heading, justify, _ in shown:
        whole = not wide and heading != "ranks"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=whole)
    for one in plan.tables:
        table.add_row(*(cell(one) for _, _, cell in shown))
    return Group(table, memory_line(plan), balance_line(plan))


def short_name(table: TablePlan) -> str:
    """The part of the model a table is in, and its own name."""
    parts = table.name.split(".")
    return f"{parts[0]}/{parts[-1]}"


def memory_line(plan: ModelPlan) -> str:
    """The estimated memory of the ranks in one line."""
    device = plan.bytes_per_rank()
    line = (
        f"Estimated memory per rank: {_mib(min(device))} to {_mib(max(device))}, of it "
        f"{_mib(plan.dense_bytes)} for the dense part; {plan.batch_size} examples per rank and "
        "step."
    )
    host = max(plan.host_bytes_per_rank())
    if plan.device == "cuda" and host:
        line += f" In host memory: up to {_mib(host)} per rank."
    return line


def balance_line(plan: ModelPlan) -> str:
    """How much more than the mean the fullest and the busiest rank have."""
    memory, lookups = imbalance(plan.bytes_per_rank()), imbalance(lookups_per_rank(plan))
    return (
        f"Balance, the most of a rank over the mean: memory {memory:.2f}, rows looked up "
        f"{lookups:.2f} (1 is even)."
    )


def exchange_lines(plan: ModelPlan, topology: TopologyConfig) -> list[str]:
    """What a step's exchanges are worth in bytes and seconds."""
    if plan.world_size == 1:
        return []
    exchange = step_exchange(plan)
    inputs, outputs = (
        [one.total for one in ranks] for ranks in (exchange.inputs, exchange.outputs)
    )
    bandwidths = bandwidths_of(topology)
    in_node, across = (one * 2**30 for one in bandwidths)
    seconds = [exchange.seconds(rank, in_node, across) for rank in range(plan.world_size)]
    return [
        "A step's exchanges, bytes of the busiest rank (of the mean rank): inputs "
        f"{_of_mean(inputs)}, outputs {_of_mean(outputs)}, their gradients as much again, "
        f"averages of replicated tables {_mib(exchange.replicated.total)} and of the dense part "
        f"{_mib(exchange.dense.total)}.",
        f"One after the other they take the busiest rank {max(seconds) * 1000:,.2f} ms, the mean "
        f"rank {sum(seconds) / len(seconds) * 1000:,.2f} ms, at {bandwidths[0]:g} GiB/s in a node "
        f"and {bandwidths[1]:g} GiB/s between nodes (strategy.topology) and "
        f"{plan.batch_size:,} examples per rank.",
    ]


def start_line(plan: ModelPlan, numbers_per_second: float) -> str:
    """How long the first rows take the rank that draws most."""
    drawn = numbers_per_rank(plan)
    seconds = max(drawn) / numbers_per_second
    return (
        f"A start draws up to {max(drawn):,} first numbers of tables on a rank "
        f"({_mib(max(drawn) * 4)}): {seconds:,.0f} s at {numbers_per_second / 1e6:,.0f} million a "
        "second, as one thread of "
        "this machine draws; more threads draw at the same time. A run that goes on, or starts "
        "from a checkpoint, draws none of what that holds."
    )


def _of_mean(sizes: list[float]) -> str:
    return f"{_mib(max(sizes))} ({_mib(sum(sizes) / len(sizes))})"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB" if size < 2**33 else f"{size / 2**30:,.1f} GiB"


def _ranks(table: TablePlan) -> str:
    ranks = sorted({shard.rank for shard in table.shards})
    if len(ranks) <= _LISTED:
        return ", ".join(map(str, ranks))
    if ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]} to {ranks[-1]}"
    return f"{len(ranks)} ranks"


def _shards(table: TablePlan) -> str:
    sizes: dict[tuple[int, int], int] = {}
    for shard in table.shards:
        size = (shard.rows, shard.columns)
        sizes[size] = sizes.get(size, 0) + 1
    parts = [f"{count} of {rows:,} x {columns}" for (rows, columns), count in sizes.items()]
    return ", ".join(parts[:_LISTED]) + (", …" if len(parts) > _LISTED else "")


def _memory(table: TablePlan) -> int:
    return sum(shard.device_bytes + shard.host_bytes for shard in table.shards)


def dominating(plan: ModelPlan) -> str:
    """The largest tables, and their share of the memory of all."""
    memory = {short_name(table): _memory(table) for table in plan.tables}
    total = sum(memory.values())
    largest = sorted(memory, key=lambda name: -memory[name])[:_LISTED]
    parts = [f"{name} {memory[name] / total:.0%}" for name in largest]
    return f"Of the tables' {_mib(total)}: {', '.join(parts)}."


_COLUMNS: tuple[tuple[str, JustifyMethod, Callable[[TablePlan], str]], ...] = (
    ("table", "left", short_name),
    ("sharding type", "left", lambda table: table.sharding_type),
    ("kernel", "left", lambda table: table.compute_kernel),
    ("ranks", "left", _ranks),
    ("rows x width", "right", lambda table: f"{table.rows:,} x {table.width}"),
    ("shards", "right", _shards),
    ("MiB in all", "right", lambda table: f"{_memory(table) / 2**20:,.1f}"),
)
_NARROW = ("table", "sharding type", "ranks", "MiB in all")

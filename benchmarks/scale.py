"""What the strategy costs: samples per second on one process and two, beside a plain loop.

DV365 as in `experiment=demo` on a simulated log, and NxtPost over random items and histories, are
trained under ``strategy=torchrec`` on one process and on two, each pinned to a core and with one
thread, and by a plain PyTorch loop over the same TorchRec modules: once alone, and twice at the
same time in processes that know nothing of each other, which is what two cores of this machine can
give. On two processes DV365 is trained without ``overlap_inputs`` too. Batches are made before. All
ways alternate; overhead and speed-ups are medians of the rounds' ratios.

Bytes are those that the loopback interface sends within a step, of whatever runs on the machine. A
checkpoint is a table that all processes hold a share of: written with fsync by every process, then
read into its shards, checksums included; what was just written lies in the page cache.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from benchmarks._demo import prepare_demo
from benchmarks._scale_process import Task, Way, checkpoint, train
from recsys.core.console import output_console
from recsys.distributed.processes import on_processes
from recsys.systems.dv365.system import DV365RunConfig

DESCRIPTION = "samples per second on 1 and 2 processes, overhead of the strategy, checkpoints"

#: What the strategy should cost at most beside a plain loop.
AIM = 0.05
_SYSTEMS = ("dv365", "nxtpost")


_ONE, _PLAIN, _TWO, _TWO_PLAIN = Way(1), Way(1, plain=True), Way(2), Way(2, plain=True)
_IN_TURN = Way(2, overlap=False)
_WAYS = {
    "1 process": _ONE,
    "2 processes": _TWO,
    "2 processes, inputs in turn": _IN_TURN,
    "plain loop": _PLAIN,
    "two plain loops at once": _TWO_PLAIN,
}

#: ``median``, ``lowest`` and ``highest`` of the rounds.
Spread = dict[str, float]


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        users: of the simulated log.
        requests: requests or users per process and step.
        steps: measured steps of each training.
        rounds: of strategy and plain loop.
        checkpoint_mib: size of the checkpoint.
    """

    users: int = 300
    requests: int = 64
    steps: int = 30
    rounds: int = 3
    checkpoint_mib: int = 512


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes: some libraries go by it alone
    with tempfile.TemporaryDirectory() as folder:
        run_config = prepare_demo(config.users, Path(folder))
        figures = {name: _measured(name, config, run_config) for name in _SYSTEMS}
        sizes = config.checkpoint_mib / 1024
        checkpoints = {
            str(processes): {
                name: seconds / sizes
                for name, seconds in on_processes(
                    processes, checkpoint, folder, config.checkpoint_mib, processes
                ).items()
            }
            for processes in (1, 2)
        }
    _print(figures, checkpoints)
    return {
        "config": asdict(config),
        "cores": psutil.cpu_count(),
        "systems": figures,
        "checkpoint_seconds_per_gib": checkpoints,
    }


def _measured(system: str, config: Config, run_config: DV365RunConfig) -> dict[str, Any]:
    def step(way: Way) -> dict[str, float]:
        task = Task(system, way, config.requests, config.steps, run_config)
        return on_processes(way.processes, train, task)

    # NxtPost has no tables whose inputs could travel
    ways = [way for way in _WAYS.values() if system == "dv365" or way != _IN_TURN]
    rounds = [{way: step(way) for way in ways} for _ in range(config.rounds)]
    seconds = [{way: one["seconds"] for way, one in measured.items()} for measured in rounds]

    def rate(way: Way) -> float:
        return way.processes * config.requests / statistics.median(one[way] for one in seconds)

    def speed_up(fast: Way, slow: Way) -> Spread:
        samples = fast.processes / slow.processes
        return _spread([samples * one[slow] / one[fast] for one in seconds])

    return {
        "samples_per_second": {name: rate(way) for name, way in _WAYS.items() if way in seconds[0]},
        "overhead": _spread([one[_ONE] / one[_PLAIN] - 1 for one in seconds]),
        "speed_up": speed_up(_TWO, _ONE),
        "speed_up_plain": speed_up(_TWO_PLAIN, _PLAIN),
        "speed_up_overlap": speed_up(_TWO, _IN_TURN) if _IN_TURN in seconds[0] else None,
        "bytes_per_step_2": statistics.median(one[_TWO]["bytes"] for one in rounds),
    }


def _spread(values: list[float]) -> Spread:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _print(figures: dict[str, dict[str, Any]], checkpoints: dict[str, dict[str, float]]) -> None:
    table = Table("", *figures, title="samples per second")
    for name in _WAYS:
        rates = (one["samples_per_second"].get(name) for one in figures.values())
        table.add_row(name, *("" if rate is None else f"{rate:,.0f}" for rate in rates))
    for label, key, form in (
        ("2 processes / 1", "speed_up", ".2f"),
        ("overlapped / in turn", "speed_up_overlap", ".2f"),
        ("two plain loops / one", "speed_up_plain", ".2f"),
        (f"overhead (aim: under {AIM:.0%})", "overhead", ".1%"),
    ):
        table.add_row(label, *(_formatted(one[key], form) for one in figures.values()))
    sent = (f"{one['bytes_per_step_2']:,.0f}" for one in figures.values())
    table.add_row("bytes per step, 2 processes", *sent)
    output_console().print(table)
    table = Table("checkpoint", "write, s / GiB", "read, s / GiB")
    for processes, one in checkpoints.items():
        table.add_row(f"{processes} process(es)", f"{one['write']:.2f}", f"{one['read']:.2f}")
    output_console().print(table)


def _formatted(spread: Spread | None, form: str) -> str:
    """The median, and the least and the most of the rounds."""
    if spread is None:
        return ""
    median, lowest, highest = (format(spread[key], form) for key in spread)
    return f"{median} ({lowest} to {highest})"

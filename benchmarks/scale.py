"""What the strategy costs: samples per second on one process and two, beside a plain loop.

DV365 as in `experiment=demo` on a simulated log, and NxtPost over random posts and histories, are
trained under ``strategy=torchrec`` on one process and on two, each pinned to a core and with one
thread, and by a plain PyTorch loop over the same TorchRec modules: once alone, and twice at the
same time in processes that know nothing of each other, which is what two cores of this machine can
give. On two processes DV365 is trained without ``overlap_inputs`` too. Batches are made before. All
ways alternate; overhead and speed-ups are medians of the rounds'
ratios.

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

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks._scale_process import Task, Way, checkpoint, train
from recsys.cli.simulate import configure as configure_simulation
from recsys.data.prepare import prepare
from recsys.data.simulator.simulate import simulate
from recsys.distributed.processes import on_processes
from recsys.training.composition import compose
from recsys.training.systems.dv365 import DV365RunConfig

DESCRIPTION = "samples per second on 1 and 2 processes, overhead of the strategy, checkpoints"

#: What the strategy should cost at most beside a plain loop.
AIM = 0.05
_SYSTEMS = ("dv365", "nxtpost")


_ONE, _PLAIN, _TWO, _TWO_PLAIN = Way(1), Way(1, plain=True), Way(2), Way(2, plain=True)
_TWO_IN_TURN = Way(2, overlap=False)


def _ways(system: str) -> list[Way]:
    """All that differ: NxtPost has no tables whose inputs could travel."""
    return [_ONE, _PLAIN, _TWO, _TWO_PLAIN, *([_TWO_IN_TURN] if system == "dv365" else [])]


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
        run_config = _prepared(config, Path(folder))
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


def _prepared(config: Config, folder: Path) -> DV365RunConfig:
    simulation = configure_simulation(
        ["simulator=demo", f"simulator.users={config.users}", f"out={folder / 'log'}"]
    )
    simulate(simulation.simulator, Path(simulation.out))
    data = (f"data.path={folder / 'log'}", f"data.out={folder / 'prepared'}")
    run_config = compose("train", DV365RunConfig, ["experiment=demo", *data])
    prepare(run_config.data)
    return run_config


def _measured(system: str, config: Config, run_config: DV365RunConfig) -> dict[str, float]:
    def step(way: Way) -> dict[str, float]:
        task = Task(system, way, config.requests, config.steps, run_config)
        return on_processes(way.processes, train, task)

    rounds = [{way: step(way) for way in _ways(system)} for _ in range(config.rounds)]
    seconds = [{way: one["seconds"] for way, one in measured.items()} for measured in rounds]

    def rate(way: Way) -> float:
        return way.processes * config.requests / statistics.median(one[way] for one in seconds)

    def speed_up(fast: Way, slow: Way) -> float:
        samples = fast.processes / slow.processes
        return statistics.median(samples * one[slow] / one[fast] for one in seconds)

    overheads = [one[_ONE] / one[_PLAIN] - 1 for one in seconds]
    figures = {
        "samples_per_second_1": rate(_ONE),
        "samples_per_second_2": rate(_TWO),
        "samples_per_second_plain": rate(_PLAIN),
        "samples_per_second_two_plain": rate(_TWO_PLAIN),
        "overhead": statistics.median(overheads),
        "overhead_lowest": min(overheads),
        "overhead_highest": max(overheads),
        "speed_up": speed_up(_TWO, _ONE),
        "speed_up_plain": speed_up(_TWO_PLAIN, _PLAIN),
        "bytes_per_step_2": statistics.median(one[_TWO]["bytes"] for one in rounds),
    }
    if _TWO_IN_TURN in seconds[0]:
        figures["samples_per_second_two_in_turn"] = rate(_TWO_IN_TURN)
        figures["speed_up_overlap"] = speed_up(_TWO, _TWO_IN_TURN)
    return figures


def _print(figures: dict[str, dict[str, float]], checkpoints: dict[str, dict[str, float]]) -> None:
    table = Table("", *figures, title="samples per second")
    for label, key, form in (
        ("1 process", "samples_per_second_1", ",.0f"),
        ("2 processes", "samples_per_second_2", ",.0f"),
        ("2 processes, inputs in turn", "samples_per_second_two_in_turn", ",.0f"),
        ("plain loop", "samples_per_second_plain", ",.0f"),
        ("two plain loops at once", "samples_per_second_two_plain", ",.0f"),
        ("2 processes / 1", "speed_up", ".2f"),
        ("overlapped / in turn", "speed_up_overlap", ".2f"),
        ("two plain loops / one", "speed_up_plain", ".2f"),
        (f"overhead (aim: under {AIM:.0%})", "overhead", ".1%"),
        ("least of the rounds", "overhead_lowest", ".1%"),
        ("most of the rounds", "overhead_highest", ".1%"),
        ("bytes per step, 2 processes", "bytes_per_step_2", ",.0f"),
    ):
        cells = (format(one[key], form) if key in one else "" for one in figures.values())
        table.add_row(label, *cells)
    Console().print(table)
    table = Table("checkpoint", "write, s / GiB", "read, s / GiB")
    for processes, one in checkpoints.items():
        table.add_row(f"{processes} process(es)", f"{one['write']:.2f}", f"{one['read']:.2f}")
    Console().print(table)

"""Users per second of `recsys publish`, on one process and on several, in turn.

The demo's log of fewer users and its tower, trained for one step: what a publication takes does not
depend on its weights. Everyone is published anew into a store of its own each time. What further
processes need to start (seconds: they load torch and the tower) is in the figures, as it is in
every publication, so with few users the ratio is that of starting: give run_dir= of a run with
many.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from rich.table import Table

from benchmarks._demo import prepare_demo
from recsys.core.bounds import Number
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.embeddings.publish import PublishConfig, publish
from recsys.systems.base import ExportConfig
from recsys.systems.choice import compose_run
from recsys.systems.registry import system_named
from recsys.systems.runs import load_run, train

DESCRIPTION = "users per second of publishing, on one process and on several"

#: Times the users per second of one process that two are to publish on two cores.
AIM = 1.8


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        users: users of the log, each with some 1,300 events.
        processes: beside one.
        rounds: how often each side is measured, in turn.
        run_dir: a run with an artifact, to publish instead of the demo's.
    """

    users: int = 2_000
    processes: Annotated[int, Number(at_least=2, at_most=1_024)] = 2
    rounds: int = 3
    run_dir: str | None = None


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = config.run_dir or _exported(config, Path(folder))
        rates: dict[int, list[float]] = {1: [], config.processes: []}
        costs: dict[int, list[float]] = {processes: [] for processes in rates}
        users = 0
        for number in track(range(config.rounds), "Publishing"):
            for processes, found in rates.items():
                store = Path(folder) / f"store-{number}-{processes}"
                before = _processor_seconds()
                report = publish(
                    PublishConfig(run_dir=run_dir, store=str(store), processes=processes)
                )
                users = report.published_users
                found.append(report.users_per_second)
                costs[processes].append((_processor_seconds() - before) / users)
    ratios = [many / one for one, many in zip(rates[1], rates[config.processes], strict=True)]
    load = os.getloadavg()[0]
    _print(rates, costs, ratios, users, load)
    return {
        "config": asdict(config),
        "users": users,
        "threads_of_one": torch.get_num_threads(),
        "load": load,
        "users_per_second": {str(processes): found for processes, found in rates.items()},
        "processor_seconds_per_user": {str(processes): found for processes, found in costs.items()},
        "ratios": ratios,
    }


def _processor_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _exported(config: Config, folder: Path) -> str:
    """A run of the demo after one step, with its artifact."""
    demo = prepare_demo(config.users, folder)
    settings = ["trainer.max_steps=1", "trainer.progress_bar=false", f"run_dir={folder / 'run'}"]
    data = [f"data.path={folder / 'log'}", f"data.out={demo.data.out_folder}"]
    run_dir = train(compose_run(["experiment=demo", *data, *settings]))
    trained = load_run(run_dir)
    system_named(trained.config.system).export(trained, ExportConfig(str(run_dir), measure=False))
    return str(run_dir)


def _print(
    rates: dict[int, list[float]],
    costs: dict[int, list[float]],
    ratios: list[float],
    users: int,
    load: float,
) -> None:
    table = Table(
        "processes",
        "users per second",
        "spread",
        "processor ms per user",
        title=f"Publishing {users:,} users; {os.cpu_count()} cores, load {load:.1f}",
    )
    for processes, found in rates.items():
        spread = f"{min(found):,.1f} to {max(found):,.1f}"
        cost = 1_000 * statistics.median(costs[processes])
        table.add_row(str(processes), f"{statistics.median(found):,.1f}", spread, f"{cost:,.2f}")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}; aim {AIM:g} on two free cores"
    table.add_row("ratio", f"{statistics.median(ratios):.2f}", spread, "")
    output_console().print(table)

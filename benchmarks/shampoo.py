"""Shampoo beside AdamW: seconds per optimiser step and per training step, and memory per rank.

Three models: the dense part of DV365 (`experiment=demo`, on a log simulated for the benchmark), a
ResNet-50 and a transformer of two layers; batch sizes are those of conf/benchmark/shampoo.yaml.
Every figure is from processes of their own, one per rank, which train one model by one optimiser.

Steps with and without the computation of roots are timed apart (medians); a training that computes
them every f steps takes per step ``plain + (roots − plain) / f``. What is said of a training step
is this over forward, backward and step with AdamW. The bound is what factor matrices and
preconditioning alone add by their arithmetic: 4·m·n·(m + n) a block over the operations of forward
and backward, for a layer of m × n at batch B the 2(m + n)/(3B) of docs/shampoo.md.

Shampoo and SOAP of the package pytorch-optimizer run in one process too, with the same frequency
and largest block. The package is installed by its name into a folder below the user's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks._shampoo_side import WORKLOADS
from recsys.cli.simulate import configure
from recsys.core.composition import compose, load
from recsys.core.console import message_console, output_console
from recsys.core.paths import conf_dir
from recsys.core.progress import track
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.simulator.simulate import simulate
from recsys.systems.dv365.system import DV365RunConfig

DESCRIPTION = "Shampoo's steps beside AdamW's, on one rank and more, and pytorch-optimizer's"

#: The most that Shampoo is to add to a training step where the bound is under 5 %.
AIM = 0.10

_ROOT = Path(__file__).resolve().parent.parent
_PEER_VERSION = "4.1.0"
_ADAMW, _OURS = "adamw", "shampoo"
_PEERS = ("pytorch-optimizer Shampoo", "pytorch-optimizer SOAP")
_MIB = 2**20


@dataclass(frozen=True)
class Sizes:
    """Batch sizes.

    Attributes:
        dv365_requests: requests of a batch of `experiment=demo`.
        resnet50_images: images per batch.
        resnet50_pixels: height and width of an image.
        transformer_sequences: sequences per batch.
        transformer_steps: steps of a sequence.
        transformer_width: of a token.
    """

    dv365_requests: int = 64
    resnet50_images: int = 16
    resnet50_pixels: int = 128
    transformer_sequences: int = 256
    transformer_steps: int = 100
    transformer_width: int = 256


def _fixed_sizes() -> Sizes:
    return load(conf_dir() / "benchmark" / "shampoo.yaml", Sizes)


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        workloads: ``dv365``, ``resnet50``, ``transformer``.
        ranks: numbers of processes.
        frequencies: steps between two computations of roots.
        peers: measure pytorch-optimizer too.
        periods: measured steps with roots; each comes after three without.
        threads: threads of torch per rank.
        users: of the simulated log of DV365.
        sizes: batch sizes.
    """

    workloads: list[str] = field(default_factory=lambda: list(WORKLOADS))
    ranks: list[int] = field(default_factory=lambda: [1, 2])
    frequencies: list[int] = field(default_factory=lambda: [1, 10, 50, 100])
    peers: bool = True
    periods: int = 3
    threads: int = 1
    users: int = 300
    sizes: Sizes = field(default_factory=_fixed_sizes)


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    peer = str(_peer()) if config.peers else None
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        overrides = _dv365(config, Path(folder)) if "dv365" in config.workloads else []
        cases = [
            (workload, ranks, optimizer)
            for workload in config.workloads
            for ranks in config.ranks
            for optimizer in (_ADAMW, _OURS, *(_PEERS if peer and ranks == 1 else ()))
        ]
        for workload, ranks, optimizer in track(cases, "Models and optimisers"):
            arguments = {
                "workload": workload,
                "ranks": ranks,
                "optimizer": optimizer,
                "peer": peer,
                "overrides": overrides,
                "periods": config.periods,
                "threads": config.threads,
                "sizes": asdict(config.sizes),
            }
            rows.append({**arguments, **_measured(arguments)})
    figures = [_figures(row, rows, config.frequencies) for row in rows]
    _print(figures, config.frequencies)
    return {"config": asdict(config), "pytorch_optimizer": _PEER_VERSION, "rows": figures}


def _dv365(config: Config, folder: Path) -> list[str]:
    """Simulate and prepare a log; the settings of a run on it."""
    log = configure(["simulator=demo", f"simulator.users={config.users}", f"out={folder / 'log'}"])
    simulate(log.simulator, Path(log.out))
    overrides = [
        "experiment=demo",
        f"loader.batch_requests={config.sizes.dv365_requests}",
        f"data.path={folder / 'log'}",
        f"data.out={folder / 'prepared'}",
        "data.name=benchmark",
    ]
    open_or_prepare(compose("train", DV365RunConfig, overrides).data)
    return overrides


def _peer() -> Path:
    """Where pytorch-optimizer lies, installed where it is absent; it runs on our torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "recsys" / f"pytorch-optimizer-{_PEER_VERSION}"
    done = folder / "installed"
    if not done.is_file():
        message_console().print(f"Installing pytorch-optimizer into {folder} (once).")
        package = f"pytorch-optimizer=={_PEER_VERSION}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(folder), package], check=True)
        done.touch()
    return folder


def _measured(arguments: dict[str, Any]) -> dict[str, float]:
    """Figures of one model and optimiser: the slowest rank's times, the largest rank's state."""
    environment = os.environ | {
        "PYTHONPATH": str(_ROOT),
        "OMP_NUM_THREADS": str(arguments["threads"]),
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(_ROOT / "benchmarks" / "_shampoo_side.py"),
                    json.dumps({**arguments, "rank": rank, "folder": folder}),
                ],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(arguments["ranks"])
        ]
        outputs = [process.communicate() for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        if process.returncode:
            name = f"{arguments['optimizer']} on {arguments['workload']}"
            raise RuntimeError(f"{name} failed:\n{error[-3000:]}")
    of_ranks = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    return {name: max(one[name] for one in of_ranks) for name in of_ranks[0]}


def _figures(
    row: dict[str, Any], rows: list[dict[str, Any]], frequencies: list[int]
) -> dict[str, Any]:
    """Seconds of a step, and what a training step takes more than with AdamW."""
    [adamw] = [
        one
        for one in rows
        if one["optimizer"] == _ADAMW
        and (one["workload"], one["ranks"]) == (row["workload"], row["ranks"])
    ]
    training = adamw["backward"] + adamw["plain"]
    figures = {
        name: row[name]
        for name in ("workload", "ranks", "optimizer", "parameters", "bound", "plain", "roots")
    }
    figures |= {"state_mib": row["state_bytes"] / _MIB, "training_adamw": training}
    for frequency in frequencies:
        step = _step_seconds(row["plain"], row["roots"], frequency)
        figures[f"step_{frequency}"] = step
        figures[f"more_{frequency}"] = (step - adamw["plain"]) / training
    return figures


def _step_seconds(plain: float, roots: float, frequency: int) -> float:
    """Mean seconds of a step when every ``frequency``-th computes roots."""
    return plain + (roots - plain) / frequency


def _print(figures: list[dict[str, Any]], frequencies: list[int]) -> None:
    table = Table("model", "ranks", "optimiser", "roots every", title=DESCRIPTION)
    for column in ("step, ms", "more per training step", "bound", "MiB per rank"):
        table.add_column(column, justify="right")
    for row in figures:
        ours = row["optimizer"] == _OURS
        for frequency in frequencies if row["optimizer"] != _ADAMW else frequencies[:1]:
            of_adamw = f"of {1e3 * row['training_adamw']:.0f} ms"
            more = of_adamw if row["optimizer"] == _ADAMW else f"{row[f'more_{frequency}']:+.1%}"
            table.add_row(
                row["workload"],
                str(row["ranks"]),
                row["optimizer"],
                "" if row["optimizer"] == _ADAMW else str(frequency),
                f"{1e3 * row[f'step_{frequency}']:.2f}",
                more,
                f"{row['bound']:.1%}" if ours else "",
                f"{row['state_mib']:.1f}",
            )
    output_console().print(table)
    for row in figures:
        if row["optimizer"] == _OURS:
            limit = AIM if row["bound"] < AIM / 2 else 2 * row["bound"]
            kept = [f for f in frequencies if row[f"more_{f}"] <= limit]
            output_console().print(
                f"{row['workload']}, ranks {row['ranks']}: aim {limit:.1%}, kept at frequencies "
                f"{kept or 'none'}"
            )

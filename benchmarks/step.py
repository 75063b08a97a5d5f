"""A training step of any system, on a CPU or a GPU, beside what the machine could do.

The system is trained with the settings of conf/ on a small log simulated for the benchmark, by
Lightning's trainer, without validation or files. Every round is a process of its own; figures are
medians over the steps of all rounds, with the quarter of the steps below and above.

- rows (rows of requests, users, or pairs) per second, and per second of a core;
- operations of the matrix products per second, beside the fastest product of two large matrices;
- bytes of rows of embedding tables per second (a lookup reads a row, its update reads the gradient
  and reads and writes the row), beside the fastest copy in memory; both, on a CPU, per second of a
  core, so that other work on the machine does not count;
- operations: on a CPU what is dispatched, views left out; on a GPU its kernels;
- waits: on a CPU operations whose result's size nobody knows beforehand, or that read a number,
  which are those a GPU would be waited for; on a GPU calls that synchronise;
- seconds by part: the loader (with Lightning's work between two steps), forward, backward (which
  updates the tables), optimiser. On a GPU they are those of its stream, so that nothing waits.

The matrix products of a step are counted on the CPU, where no kernel hides them; there the losses
that are computed in tiles compute theirs twice, which counts. ``against=`` names another git
revision whose `recsys` trains on the same data, its processes in turn with ours: before and after
on the same machine at the same time.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks._step_side import PARTS
from recsys.cli.simulate import configure
from recsys.core.console import output_console
from recsys.core.errors import ConfigError
from recsys.core.progress import track
from recsys.core.threads import given_environment
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.simulator.simulate import simulate
from recsys.systems.choice import compose_run
from recsys.systems.registry import SYSTEMS

DESCRIPTION = "a training step of any system on CPU or GPU, beside the machine's limits"

_ROOT = Path(__file__).resolve().parent.parent
_HERE = "here"
_GIGA = 1e9


#: Settings of `recsys data simulate`: small, with embeddings of the items, so that every system can
#: be trained on it.
_SIMULATION = ("simulator=demo", "simulator.users=1500", "simulator.post_embedding.width=64")


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        system: of the registry.
        device: ``cpu`` or ``cuda``.
        overrides: further settings of `recsys train`, such as ``model=hstu``.
        steps: measured steps of a round.
        warm_up: first steps of a round, not measured.
        rounds: how often each side is started.
        threads: of torch; 0 for as many as `recsys` chooses here.
        against: a git revision of this repository to measure beside; null: none.
        simulation: settings of `recsys data simulate` for the log.
    """

    system: str = "dv365"
    device: str = "cpu"
    overrides: list[str] = field(default_factory=list)
    steps: int = 60
    warm_up: int = 5
    rounds: int = 3
    threads: int = 0
    against: str | None = None
    simulation: list[str] = field(default_factory=lambda: list(_SIMULATION))


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures.

    Raises:
        ConfigError: a system, device or revision that there is not.
    """
    _check(config)
    with tempfile.TemporaryDirectory() as folder:
        overrides = _prepared(config, Path(folder))
        roots = {_HERE: _ROOT}
        if config.against is not None:
            roots[config.against] = _source_of(config.against, Path(folder) / "source")
        arguments = {
            "overrides": overrides,
            "device": config.device,
            "steps": config.steps,
            "warm_up": config.warm_up,
            "folder": folder,
        }
        rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in roots}
        for _ in track(range(config.rounds), "Training steps"):
            for side, root in roots.items():
                rounds[side].append(_side(root, arguments, config.threads))
        for side, root in roots.items() if config.device != "cpu" else ():
            counted = _side(root, {**arguments, "device": "cpu", "steps": 1}, config.threads)
            rounds[side][-1]["flop"] = counted["flop"]
    figures = {side: _figures(of_side, config.device) for side, of_side in rounds.items()}
    result: dict[str, Any] = {"config": asdict(config), **figures}
    if config.against is not None:
        result["losses_differ_by"] = _largest_difference(rounds[_HERE], rounds[config.against])
    _print(config, figures, result.get("losses_differ_by"))
    return result


def _check(config: Config) -> None:
    if config.system not in SYSTEMS:
        raise ConfigError(
            f"system={config.system} is not known; the systems are {', '.join(SYSTEMS)}."
        )
    if config.device not in ("cpu", "cuda"):
        raise ConfigError(f"device={config.device} is not known; choose cpu or cuda.")
    if config.device == "cuda":
        import torch  # seconds, which only those wait who ask

        if not torch.cuda.is_available():
            raise ConfigError("device=cuda needs a GPU and a torch for it: see recsys doctor.")


def _prepared(config: Config, folder: Path) -> list[str]:
    """Simulate and prepare a log; the settings of a run on it."""
    log = folder / "log"
    simulation = configure([*config.simulation, f"out={log}"])
    simulate(simulation.simulator, log)
    overrides = [
        f"system={config.system}",
        "data=simulated",
        "data.name=benchmark",
        f"data.path={log}",
        f"data.out={folder / 'prepared'}",
        "settings_by_size=false",
        *([f"posts.path={log / 'post_embeddings.parquet'}"] if config.system == "nxtpost" else []),
        *config.overrides,
    ]
    open_or_prepare(compose_run(overrides).data)
    return overrides


def _source_of(revision: str, folder: Path) -> Path:
    """The package and its conf/ as of a git revision, in a folder of its own.

    Raises:
        ConfigError: git has no such revision of this repository.
    """
    command = ["git", "-C", str(_ROOT), "archive", revision, "recsys", "conf"]
    archived = subprocess.run(command, capture_output=True)
    if archived.returncode:
        raise ConfigError(
            f"against={revision}: git cannot read it here ({archived.stderr.decode().strip()}); "
            "give a commit, tag or branch of this checkout."
        )
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _side(root: Path, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
    """The figures of one process with the sources below ``root``."""
    own = {"PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"}
    environment = given_environment() | own  # each side chooses for itself
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    side = _ROOT / "benchmarks" / "_step_side.py"
    finished = subprocess.run(
        [sys.executable, str(side), json.dumps(arguments)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=arguments["folder"],
    )
    if finished.returncode:
        raise RuntimeError(f"the steps with {root} failed:\n{finished.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def _figures(rounds: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """Medians over the steps of all rounds, and their quartiles."""
    rows, seconds, cpu, parts = (
        [one for of_round in rounds for one in of_round[name]]
        for name in ("rows", "seconds", "cpu_seconds", "parts")
    )
    last = rounds[-1]
    per_second = [count / taken for count, taken in zip(rows, seconds, strict=True)]
    per_core = [count / taken for count, taken in zip(rows, cpu, strict=True)]
    # on a CPU the time of a core: the machine may have other work too
    on_cpu = device == "cpu"
    step = statistics.median(cpu if on_cpu else seconds)
    figures: dict[str, Any] = {
        "rows_per_step": statistics.mean(rows),
        "step_seconds": _spread(seconds),
        "cpu_seconds": _spread(cpu),
        "rows_per_second": _spread(per_second),
        "rows_per_cpu_second": _spread(per_core),
        "flop_per_step": last["flop"],
        "flop_per_second": last["flop"] / step,
        "peak_flop_per_second": max(one["peak_flop_per_second"] for one in rounds),
        "table_bytes_per_step": last["table_bytes"],
        "table_bytes_per_second": last["table_bytes"] / step,
        "peak_bytes_per_second": max(one["peak_bytes_per_second"] for one in rounds),
        "operations": last["operations"],
        "waits": last["waits"],
        "threads": last["threads"],
        "gib": max(one["gib"] for one in rounds),
    }
    for part, of_part in zip(PARTS, zip(*parts, strict=True), strict=True):
        figures[f"{part}_seconds"] = _spread(of_part)
    return figures


def _spread(values: Any) -> dict[str, float]:
    """Median, and the values that a quarter of all lie below and above."""
    values = list(values)
    if len(values) == 1:
        values *= 2
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def _largest_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    """Of the losses of any step, over the loss: both sides have read the same batches."""
    return max(
        abs(one - other) / max(abs(other), 1e-12)
        for a, b in zip(ours, theirs, strict=True)
        for one, other in zip(a["losses"], b["losses"], strict=True)
    )


def _print(config: Config, figures: dict[str, dict[str, Any]], difference: float | None) -> None:
    of = figures[_HERE]
    title = (
        f"{config.system} on {config.device}: {of['rows_per_step']:,.0f} rows a step, "
        f"{of['threads']} threads"
    )
    table = Table(f"{config.rounds * config.steps} steps", title=title)
    for name in (*figures, "limit here"):
        table.add_column(name, justify="right")
    if config.against is not None:
        table.add_column("ratio", justify="right")
    for label, cell, limit in _LINES:
        cells = [cell(one) for one in figures.values()]
        ratio = [_ratio(config, figures, label)] if config.against is not None else []
        table.add_row(label, *cells, limit(of), *ratio)
    output_console().print(table)
    if difference is not None:
        output_console().print(f"Losses of the same steps differ by {difference:.1e} at most.")


def _ratio(config: Config, figures: dict[str, dict[str, Any]], label: str) -> str:
    """Ours over the other revision's, for rates and times."""
    key = _RATIOS.get(label)
    if key is None:
        return ""
    ours, theirs = (figures[side][key] for side in (_HERE, config.against or _HERE))
    ours, theirs = (one["median"] if isinstance(one, dict) else one for one in (ours, theirs))
    return f"{ours / theirs:.2f}" if theirs else ""


def _count(key: str) -> Any:
    return lambda one: _ranged(one[key], 1, ",.0f")


def _milliseconds(key: str) -> Any:
    return lambda one: _ranged(one[key], 1e3, ".1f")


def _share(rate: str, peak: str) -> Any:
    """A rate in units of 10⁹, and the share of the peak."""
    return lambda one: f"{one[rate] / _GIGA:.1f} ({one[rate] / one[peak]:.1%})"


def _ranged(spread: dict[str, float], scale: float, form: str) -> str:
    median, low, high = (format(spread[key] * scale, form) for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def _nothing(_: dict[str, Any]) -> str:
    return ""


#: Label, cell of a side, limit of the machine.
_LINES: tuple[tuple[str, Any, Any], ...] = (
    ("rows / s", _count("rows_per_second"), _nothing),
    ("rows / CPU s", _count("rows_per_cpu_second"), _nothing),
    ("step, ms", _milliseconds("step_seconds"), _nothing),
    ("step, CPU ms", _milliseconds("cpu_seconds"), _nothing),
    *((f"  {part}, ms", _milliseconds(f"{part}_seconds"), _nothing) for part in PARTS),
    (
        "matrix products, GFLOP/s (MFU)",
        _share("flop_per_second", "peak_flop_per_second"),
        lambda one: f"{one['peak_flop_per_second'] / _GIGA:.1f}",
    ),
    (
        "rows of tables, GB/s",
        _share("table_bytes_per_second", "peak_bytes_per_second"),
        lambda one: f"{one['peak_bytes_per_second'] / _GIGA:.1f}",
    ),
    ("operations a step", lambda one: f"{one['operations']:,}", _nothing),
    ("waits a step", lambda one: f"{one['waits']:,}", lambda _: "0"),
    ("memory at most, GiB", lambda one: f"{one['gib']:.2f}", _nothing),
)
_RATIOS = {
    "rows / s": "rows_per_second",
    "rows / CPU s": "rows_per_cpu_second",
    "step, ms": "step_seconds",
    "step, CPU ms": "cpu_seconds",
    "operations a step": "operations",
    "memory at most, GiB": "gib",
    **{f"  {part}, ms": f"{part}_seconds" for part in PARTS},
}

"""Preparing a log by one process and by Ray, beside Polars and Ray Data on the same rows.

One process, and Ray with one worker and with two, write the same data set. Polars' streaming engine
sorts the log by user and time and writes it; Ray Data shuffles it by user and writes it: neither
validates, maps ids, derives request rows or has checksums. Every command has processes of its own,
and those are held to ``cores``.

A line through the times of a tiny and of a small log predicts that of the large one: preparing is
linear, so the same line says what a larger log takes per core (docs/results/scale.md).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.table import Table

from benchmarks._watched import Watched, python, watch
from recsys.core.console import output_console
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.parquet import write_frame

DESCRIPTION = "preparing a log by one process and by Ray, beside Polars and Ray Data"

_START = 1_706_745_600_000
_LOG_DAYS = 30
_DAY = 86_400_000
_ROWS_PER_FILE = 1_000_000

_POLARS = """
import sys, polars as pl
pl.scan_parquet(sys.argv[1]).sort("user_id", "timestamp").sink_parquet(sys.argv[2])
"""
#: Settings that a small machine bears: Ray Data reserves 200 partitions by itself.
_RAY_DATA = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray.data import DataContext
log, out, partitions, workers, store = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
ray.init(address="local", num_cpus=workers, object_store_memory=store << 20,
         include_dashboard=False, log_to_driver=False)
context = DataContext.get_current()
context.enable_progress_bars = False
context.max_hash_shuffle_aggregators = workers
context.default_hash_shuffle_parallelism = partitions
ray.data.read_parquet(log).repartition(partitions, keys=["user_id"]).write_parquet(out)
"""


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        events: of the logs, ascending; the last is predicted by the two before it.
        events_per_user: on average.
        items: of the logs.
        partitions: user partitions.
        object_store_mb: of Ray.
        cores: that each command may use.
        peers: Polars and Ray Data too.
        folder: where logs and data sets are written and removed again; None for the system's folder
            of temporary files.
    """

    events: tuple[int, ...] = (20_000, 2_000_000, 20_000_000)
    events_per_user: int = 100
    items: int = 200_000
    partitions: int = 64
    object_store_mb: int = 512
    cores: int = 2
    peers: bool = True
    folder: str | None = None


def run(config: Config) -> dict[str, object]:
    """Measure, print tables, and return the figures.

    Raises:
        AssertionError: a command failed, or two engines have written different data sets.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.cores])
    measured: dict[int, dict[str, Watched]] = {}
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        for events in config.events:
            folder = Path(name) / str(events)
            _write_log(config, events, folder / "log")
            measured[events] = _measured(config, folder)
            _print(events, measured[events])
            shutil.rmtree(folder)
    predicted = _predictions(measured) if len(config.events) > 2 else {}
    _print_predictions(predicted)
    figures = {
        str(events): {name: asdict(one) for name, one in steps.items()}
        for events, steps in measured.items()
    }
    return {"config": asdict(config), "measured": figures, "predicted": predicted}


def _write_log(config: Config, events: int, folder: Path) -> None:
    """Popular items oftener than others; times in order over the files, users at random."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    files = -(-events // _ROWS_PER_FILE)
    for number in range(files):
        rows = min(_ROWS_PER_FILE, events - number * _ROWS_PER_FILE)
        first, last = (_LOG_DAYS * _DAY * (number + add) // files for add in (0, 1))
        time = np.sort(generator.integers(first, last, rows))
        action = generator.choice(["impression", "click", "liked"], rows, p=[0.7, 0.25, 0.05])
        dwell = np.where(action == "impression", generator.exponential(8, rows), np.nan)
        frame = pl.DataFrame(
            {
                "user_id": generator.integers(0, max(1, events // config.events_per_user), rows),
                "item_id": (config.items * generator.random(rows) ** 3).astype(np.int64),
                "timestamp": _START + time,
                "action_type": action,
                "surface": generator.choice(["feed", "search"], rows),
                "dwell_time": dwell.astype(np.float32),
            }
        )
        write_frame(folder / f"{number:05d}.parquet", frame)


def _measured(config: Config, folder: Path) -> dict[str, Watched]:
    log = folder / "log"
    prepare = ["-m", "recsys", "data", "prepare", f"path={log}", f"partitions={config.partitions}"]
    ray = ["engine=ray", f"engine.object_store_mb={config.object_store_mb}"]
    commands = {"one process": python(*prepare, f"out={folder / 'one process'}")}
    for workers in (1, 2):
        name = f"Ray, {workers} worker{'s' * (workers > 1)}"
        out = f"out={folder / name}"
        commands[name] = python(*prepare, *ray, f"engine.workers={workers}", out)
    if config.peers:
        sizes = (config.partitions, 2, config.object_store_mb)
        out = str(folder / "shuffled")
        commands["Polars, sorted"] = python("-c", _POLARS, str(log), f"{out}.parquet")
        commands["Ray Data, shuffled"] = python("-c", _RAY_DATA, str(log), out, *map(str, sizes))
    found = {}
    for name, command in commands.items():
        found[name] = watch(command, folder / "printed")
        if name.startswith("Ray, "):
            _assert_same(folder / "one process", folder / name)
            shutil.rmtree(folder / name)
    return found


def _assert_same(one: Path, other: Path) -> None:
    """Two data sets of the same bytes have the same checksums, in their manifests and stores."""
    first, second = (DatasetManifest.load(folder) for folder in (one, other))
    assert first == second, f"{one} and {other} differ"
    for path in sorted(one.rglob("*.json")):
        same = path.read_bytes() == (other / path.relative_to(one)).read_bytes()
        assert same, f"{path} and that of {other} differ"


def _predictions(measured: dict[int, dict[str, Watched]]) -> dict[str, dict[str, float]]:
    """Per command the time of the largest log by a line through those of the two before it."""
    tiny, small, large = sorted(measured)[-3:]
    found = {}
    for name, last in measured[large].items():
        figures = {}
        for kind in ("seconds", "processor_seconds"):
            first, second = (getattr(measured[events][name], kind) for events in (tiny, small))
            slope = (second - first) / (small - tiny)
            figures[f"predicted_{kind}"] = first + slope * (large - tiny)
            figures[kind] = getattr(last, kind)
            figures[f"per_million_{kind}"] = slope * 1e6
        found[name] = figures
    return found


def _print(events: int, steps: dict[str, Watched]) -> None:
    columns = ("seconds", "of one process", "processor, s", "peak memory, MiB")
    table = Table("", *columns, title=f"{events:,} events")
    first = next(iter(steps.values())).seconds
    for name, one in steps.items():
        figures = (f"{one.seconds:,.1f}", f"{one.seconds / first:.2f}")
        table.add_row(name, *figures, f"{one.processor_seconds:,.1f}", f"{one.peak_mib:,.0f}")
    output_console().print(table)


def _print_predictions(predicted: dict[str, dict[str, float]]) -> None:
    if not predicted:
        return
    table = Table("", "seconds", "predicted", "off", "processor, s", "predicted", "off")
    for name, one in predicted.items():
        cells = []
        for kind in ("seconds", "processor_seconds"):
            measured, line = one[kind], one[f"predicted_{kind}"]
            cells += [f"{measured:,.1f}", f"{line:,.1f}", f"{line / measured - 1:+.0%}"]
        table.add_row(name, *cells)
    output_console().print(table)

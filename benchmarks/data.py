"""Preparing timelines and reading batches: rows, requests and events per second.

What training takes stands beside what the loader gives: requests per second of DV365's steps
(`experiment=demo`, batches already in memory) on histories of the demo's length.

With long histories a loader with workers is slower than one without: reading is copying from
memory-mapped columns, and a worker copies once more, into shared memory whose fresh pages the
kernel must clear. Training takes less than the loader gives without workers, so 0 is the default of
``loader.num_workers``.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.table import Table

from benchmarks._training import Training, build_model
from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import (
    ACTION_TYPES,
    LENGTHS,
    MILLISECONDS_PER_DAY,
    Feature,
    FeatureKind,
    FeatureSide,
    Split,
    Task,
    TimelineKind,
)
from recsys.data.loaders.requests import LoaderConfig, RequestDataModule
from recsys.data.prepare.request_writer import write_requests
from recsys.data.stores.dataset import FEATURES, REQUESTS, TIMELINES, PreparedDataset
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineStore, TimelineWriter
from recsys.systems.dv365.system import DV365RunConfig

DESCRIPTION = "timeline building against a plain Polars group-by, and the loader's speed"

_LOG_DAYS = 30
_SEED = 0
_HISTORY_CALLS = 2_000
_ITEMS, _AUTHORS, _TOPICS = 200_000, 5_000, 100  # of the demo's catalogue


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        events: events of the log that is prepared.
        users: users of that log.
        chunk_events: events per file and frame of that log.
        num_partitions: partitions of the timeline store.
        short_history: events per user of the short setting, both timelines.
        demo_history: events per user of the demo's setting, in which training is timed too.
        long_history: events per user of the long setting (the paper: 30,000 implicit and 10,000
            explicit ones).
        short_users: users of the short setting.
        demo_users: users of the demo's setting.
        long_users: users of the long setting.
        rows_per_request: rows of a request.
        short_requests: requests read per measurement of the short setting.
        demo_requests: requests read per measurement of the demo's setting.
        long_requests: requests read per measurement of the long setting.
        training_steps: steps of training that are timed, after one that is not.
        batch_requests: requests per batch.
        batch_events: events per batch.
        workers: numbers of loader workers to measure.
    """

    events: int = 4_000_000
    users: int = 20_000
    chunk_events: int = 1_000_000
    num_partitions: int = 16
    short_history: int = 200
    demo_history: int = 1_300
    long_history: int = 40_000
    short_users: int = 5_000
    demo_users: int = 4_000
    long_users: int = 100
    rows_per_request: int = 10
    short_requests: int = 40_000
    demo_requests: int = 16_000
    long_requests: int = 2_000
    training_steps: int = 10
    batch_requests: int = 256
    batch_events: int = 1_000_000
    workers: tuple[int, ...] = (0, 1, 2)


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, object] = {"config": asdict(config)}
        figures["prepare"] = _measure_prepare(config, Path(folder))
        for name, users, history, requests in (
            ("short", config.short_users, config.short_history, config.short_requests),
            ("demo", config.demo_users, config.demo_history, config.demo_requests),
            ("long", config.long_users, config.long_history, config.long_requests),
        ):
            path = Path(folder) / name
            dataset = _make_dataset(config, path, users, history, requests)
            figures[name] = _measure_reading(config, dataset)
            if name == "demo":
                figures["training_requests_per_second"] = _training_speed(config, dataset)
    _print(figures)
    return figures


def _measure_prepare(config: Config, folder: Path) -> dict[str, float]:
    """Timelines and the yardstick, each from the same files in a process of its own."""
    log = folder / "log"
    log.mkdir()
    for number, frame in enumerate(_events(config.events, config.users, config.chunk_events)):
        frame.write_parquet(log / f"{number:06d}.parquet")
    seconds, peak = _in_own_process(_build_timelines, log, folder / "built", config.num_partitions)
    yardstick_seconds, yardstick_peak = _in_own_process(_group_by, log)
    return {
        "rows_per_second": config.events / seconds,
        "peak_memory_bytes": peak,
        "group_by_rows_per_second": config.events / yardstick_seconds,
        "group_by_peak_memory_bytes": yardstick_peak,
        "ratio": yardstick_seconds / seconds,
    }


def _build_timelines(log: Path, store: Path, num_partitions: int) -> None:
    """Log files to a timeline store: streaming, sorted, on the disk, crash-safe."""
    with TimelineWriter(store, num_partitions) as writer:
        writer.append(pl.read_parquet(file) for file in sorted(log.iterdir()))


def _group_by(log: Path) -> None:
    """The yardstick: each user's events as lists sorted by time, all of it in memory."""
    frame = pl.read_parquet(log)
    implicit = pl.col("action_type") == ACTION_TYPES.index("impression")
    columns = [name for name in EVENT_SCHEMA if name != "user"]
    for rows in (implicit, ~implicit):
        frame.filter(rows).sort("timestamp", maintain_order=True).group_by("user").agg(columns)


def _in_own_process(task: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """Seconds a task takes, and the bytes of memory its process held at most."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_timed, (task, arguments))


def _timed(task: Callable[..., None], arguments: tuple[object, ...]) -> tuple[float, float]:
    start = time.perf_counter()
    task(*arguments)
    return time.perf_counter() - start, _peak_memory()


def _peak_memory() -> int:
    """Bytes this process held at most; ``ru_maxrss`` would begin with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def _events(events: int, users: int, chunk: int) -> Iterator[pl.DataFrame]:
    """Events of uniformly drawn users over a month, three quarters of them impressions."""
    generator = np.random.default_rng(_SEED)
    for start in range(0, events, chunk):
        count = min(chunk, events - start)
        yield pl.DataFrame(
            {
                "user": generator.integers(1, users, count, endpoint=True),
                "item": generator.integers(1, _ITEMS, count),
                "author": generator.integers(1, _AUTHORS, count),
                "topic": generator.integers(1, _TOPICS, count),
                "timestamp": generator.integers(0, _LOG_DAYS * MILLISECONDS_PER_DAY, count),
                "media_type": generator.integers(0, 3, count),
                "surface": generator.integers(0, 5, count),
                "action_type": (generator.random(count) < 0.25).astype(np.int8),
                "dwell_time": generator.random(count),
                "video_duration": generator.random(count),
            }
        ).select(pl.col(name).cast(dtype) for name, dtype in EVENT_SCHEMA.items())


def _make_dataset(
    config: Config, path: Path, users: int, history: int, requests: int
) -> PreparedDataset:
    """A prepared data set whose requests lie a day after the log, so that histories are whole."""
    with TimelineWriter(path / TIMELINES, config.num_partitions) as writer:
        writer.append(_events(users * history, users, config.chunk_events))
    generator = np.random.default_rng(_SEED)
    first = (_LOG_DAYS + 1) * MILLISECONDS_PER_DAY
    owner = np.arange(requests).repeat(config.rows_per_request)
    rows = pl.DataFrame(
        {
            "user": generator.integers(1, users, requests, endpoint=True)[owner],
            "request_time": first + owner,
            "item": generator.integers(1, _ITEMS, len(owner)),
            "label_liked": generator.integers(0, 2, len(owner)),
        }
    )
    tasks = (Task("liked"),)
    write_requests(path / REQUESTS, [rows], tasks)
    (path / FEATURES).mkdir()
    for side, count in (("user", users + 1), ("item", _ITEMS)):
        np.save(
            path / FEATURES / f"{side}_categorical.npy", np.arange(count, dtype=np.int32)[:, None]
        )
        np.save(path / FEATURES / f"{side}_dense.npy", np.zeros((count, 0), np.float32))
    DatasetManifest(
        name="benchmark",
        source="benchmark",
        tasks=tasks,
        features=(
            Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, users + 1),
            Feature("item_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, _ITEMS),
        ),
        vocabulary_sizes={
            "user": users + 1,
            "item": _ITEMS,
            "author": _AUTHORS,
            "topic": _TOPICS,
        },
        surfaces=tuple("abcde"),
        media_types=tuple("abc"),
        split_bounds={Split.FIT.value: (first, first + requests)},
        counts={},
        rejected={},
        fingerprint="benchmark",
    ).save(path)
    return PreparedDataset.open(path)


def _measure_reading(config: Config, dataset: PreparedDataset) -> dict[str, float]:
    """One warm-up pass over the store, then one pass of the loader per number of workers."""
    figures = {"history_microseconds": _history_seconds(dataset.timelines) * 1e6}
    for workers in config.workers:
        loader_config = LoaderConfig(
            batch_requests=config.batch_requests,
            batch_events=config.batch_events,
            num_workers=workers,
        )
        loader = RequestDataModule(loader_config, dataset).train_dataloader()
        batches = iter(loader)
        next(batches)  # workers have started
        requests = events = 0
        start = time.perf_counter()
        for batch in track(batches, f"{workers} workers", len(loader) - 1):
            requests += len(batch.request_time)
            events += int(batch.explicit[LENGTHS].sum() + batch.implicit[LENGTHS].sum())
        seconds = time.perf_counter() - start
        figures[f"requests_per_second_{workers}_workers"] = requests / seconds
        figures[f"events_per_second_{workers}_workers"] = events / seconds
    return figures


def _training_speed(config: Config, dataset: PreparedDataset) -> float:
    """Requests per second that DV365 takes, as in `experiment=demo`, batches not counted."""
    run_config = compose("train", DV365RunConfig, ["experiment=demo"])
    training = Training(build_model(run_config, dataset))
    batches = iter(RequestDataModule(run_config.loader, dataset).train_dataloader())
    training.step(next(batches))
    requests, seconds = 0, 0.0
    for _ in track(range(config.training_steps), "Training"):
        batch = next(batches)
        start = time.perf_counter()
        training.step(batch)
        seconds += time.perf_counter() - start
        requests += len(batch.request_time)
    return requests / seconds


def _history_seconds(store: TimelineStore) -> float:
    """Time of one ``history`` call for a random user at a random moment."""
    generator = np.random.default_rng(_SEED)
    users = generator.choice(store.users(), _HISTORY_CALLS).tolist()
    before = generator.integers(0, _LOG_DAYS * MILLISECONDS_PER_DAY, _HISTORY_CALLS).tolist()
    start = time.perf_counter()
    for user, moment in zip(users, before, strict=True):
        store.history(user, moment, TimelineKind.IMPLICIT)
    return (time.perf_counter() - start) / _HISTORY_CALLS


def _print(figures: dict) -> None:
    prepare = figures["prepare"]
    table = Table("preparing timelines", "rows / s", "peak memory, MB")
    for name, prefix in (("timeline store", ""), ("plain Polars group-by", "group_by_")):
        peak = prepare[f"{prefix}peak_memory_bytes"] / 1e6
        table.add_row(name, f"{prepare[f'{prefix}rows_per_second']:,.0f}", f"{peak:,.0f}")
    console = output_console()
    console.print(table)
    table = Table("reading", "workers", "requests / s", "events / s", "history(), µs")
    for setting in ("short", "demo", "long"):
        for workers in figures["config"]["workers"]:
            measured = figures[setting]
            table.add_row(
                f"{setting} ({figures['config'][f'{setting}_history']:,} events)",
                str(workers),
                f"{measured[f'requests_per_second_{workers}_workers']:,.0f}",
                f"{measured[f'events_per_second_{workers}_workers']:,.0f}",
                f"{measured['history_microseconds']:.0f}",
            )
    console.print(table)
    taken = figures["training_requests_per_second"]
    given = figures["demo"]["requests_per_second_0_workers"]
    console.print(
        f"Training takes {taken:,.0f} requests / s on histories of "
        f"{figures['config']['demo_history']:,} events, the loader gives {given / taken:,.0f} "
        "times as many without workers.",
        highlight=False,
    )

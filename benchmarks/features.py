"""Numbers of candidates (counters and cross features), beside Polars joining the same counts.

The demo's log of fewer users. Ours computes every request's rows from the memory-mapped stores, as
the loader and a service do; Polars has rows and events of the whole log in memory and joins them,
which is how a notebook does it: as-of joins of running hourly counts, and a join of rows with the
user's events by item, author and topic. Both count in the same windows; Polars looks at all events,
ours at the newest of each timeline, and does not compute lifts and ages. Building the counters,
once per data set, is timed apart.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.table import Table

from benchmarks._demo import prepare_demo
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.data.contract.schema import (
    LENGTHS,
    MILLISECONDS_PER_HOUR,
    FeatureKind,
    FeatureSide,
    TimelineKind,
)
from recsys.data.features.candidate_features import CandidateFeatures
from recsys.data.features.config import SHARED, CandidateFeatureConfig
from recsys.data.stores.counters.store import CounterStore
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import END_OF_TIME

DESCRIPTION = "rows per second of counters and cross features, beside joins in Polars"


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        users: users of the log, each with some 1,300 events.
        max_events: newest events of each timeline that are counted, for both sides.
        batch_requests: requests computed at a time.
        rounds: how often each side is measured, in turn.
    """

    users: int = 1_000
    max_events: int = 1_000
    batch_requests: int = 256
    rounds: int = 3


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        data = prepare_demo(config.users, Path(folder)).data
        dataset = PreparedDataset.open(data.out_folder)
        started = time.perf_counter()
        CounterStore.open(dataset)
        building = time.perf_counter() - started
        features = CandidateFeatures(dataset, CandidateFeatureConfig(max_events=config.max_events))
        rows, events = _rows(dataset), _events(dataset)
        length = _mean_length(config, dataset)
        seconds: dict[str, list[tuple[float, float]]] = {"recsys": [], "polars": []}
        for _ in track(range(config.rounds), "Computing"):
            seconds["recsys"].append(_timed(_ours, config, features, dataset))
            seconds["polars"].append(_timed(_joined, rows, events, features))
    figures = {
        side: {
            "rows_per_second": [len(rows) / wall for wall, _ in rounds],
            "rows_per_cpu_second": [len(rows) / cpu for _, cpu in rounds],
        }
        for side, rounds in seconds.items()
    }
    _print(figures, len(rows), length, building, len(features.names))
    return {
        "config": asdict(config),
        "rows": len(rows),
        "events_per_request": length,
        "columns": len(features.names),
        "building_seconds": building,
        **figures,
    }


def _timed(task: Callable[..., None], *arguments: object) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    task(*arguments)
    return time.perf_counter() - wall, time.process_time() - cpu


def _ours(config: Config, features: CandidateFeatures, dataset: PreparedDataset) -> None:
    store = dataset.requests(None)
    for first in range(0, len(store), config.batch_requests):
        some = np.arange(first, min(first + config.batch_requests, len(store)))
        row, per_request = store.row_ids(some)
        features.compute(store.user[some], store.request_time[some], per_request, store.item[row])


def _mean_length(config: Config, dataset: PreparedDataset) -> float:
    """Events that are looked at for a request, both timelines together."""
    store = dataset.requests(None)
    return sum(
        float(
            dataset.timelines.lengths(
                store.user, store.request_time, kind, config.max_events
            ).mean()
        )
        for kind in TimelineKind
    )


def _rows(dataset: PreparedDataset) -> pl.DataFrame:
    store = dataset.requests(None)
    per_request = np.diff(store.offsets)
    names = [one.name for one in dataset.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)]
    of_item = dataset.item_features.categorical[store.item]
    return pl.DataFrame(
        {
            "row": np.arange(store.num_rows),
            "user": np.repeat(store.user, per_request),
            "time": np.repeat(store.request_time, per_request),
            "item": store.item,
            "author": of_item[:, names.index("author_id")],
            "topic": of_item[:, names.index("topic_id")],
        }
    ).cast({"user": pl.Int32, "item": pl.Int32, "author": pl.Int32, "topic": pl.Int32})


def _events(dataset: PreparedDataset) -> dict[TimelineKind, pl.DataFrame]:
    users = dataset.timelines.users()
    frames = {}
    for kind in TimelineKind:
        events = dataset.timelines.histories(users, np.full(len(users), END_OF_TIME), kind, 2**31)
        user = np.repeat(users, events[LENGTHS])
        action = events.get("action_type", np.zeros(len(user), np.int8))
        columns = {name: events[name] for name in ("timestamp", *SHARED)}
        frames[kind] = pl.DataFrame({"user": user, "action": action, **columns})
    return frames


def _joined(
    rows: pl.DataFrame, events: dict[TimelineKind, pl.DataFrame], features: CandidateFeatures
) -> None:
    windows = features.config.windows_hours
    both = pl.concat(events.values())
    actions = both["action"].unique().to_list()
    for name in SHARED:
        pairs = rows.lazy().select("row", "user", "time", name)
        found = pairs.join(both.lazy(), on=["user", name]).filter(
            pl.col("timestamp") < pl.col("time")
        )
        age = pl.col("time") - pl.col("timestamp")
        counts = [
            (age <= hours * MILLISECONDS_PER_HOUR).sum().alias(str(hours)) for hours in windows
        ]
        found.group_by("row", "action").agg(pl.len(), age.min(), *counts).collect()
        hourly = _hourly(both, name, actions)
        for hours in (0, *windows):
            asked = pairs.with_columns(hour=pl.col("time") // MILLISECONDS_PER_HOUR - hours - 1)
            asked.sort("hour").join_asof(hourly, on="hour", by=name).collect()


def _hourly(events: pl.DataFrame, name: str, actions: list[int]) -> pl.LazyFrame:
    """Running counts by hour and action, sorted by hour."""
    hour = (pl.col("timestamp") // MILLISECONDS_PER_HOUR).alias("hour")
    number = [(pl.col("action") == code).sum().alias(f"of {code}") for code in actions]
    counts = events.lazy().group_by(name, hour).agg(number).sort("hour")
    running = [pl.col(f"of {code}").cum_sum().over(name) for code in actions]
    return counts.with_columns(running)


def _print(figures: dict, rows: int, length: float, building: float, columns: int) -> None:
    title = f"{rows:,} rows, {length:,.0f} events each; counters built in {building:.1f} s"
    table = Table("side", "rows / s", "rows / CPU s", "numbers a row", title=title)
    for side, of in figures.items():
        spread = [
            f"{np.median(of[name]):,.0f} ({min(of[name]):,.0f} to {max(of[name]):,.0f})"
            for name in ("rows_per_second", "rows_per_cpu_second")
        ]
        table.add_row(side, *spread, f"{columns}" if side == "recsys" else "the counts alone")
    output_console().print(table)

"""Cell pooling against one TorchRec bag per slice: forward, backward and update.

Both variants hold the same tables in the same fused collection, so what differs is the pooling.
The log is drawn at random: items by Zipf's law (exponent 1), each with one author and one topic;
video duration log-normal (median 20 s, sigma 0.8), unknown for one event in twenty; dwell time =
duration x log-normal (median 0.5, sigma 1.2); action types by Zipf's law; 70 % videos; timestamps
uniform over the year that ends 24 hours before the request.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.table import Table
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.data.batches.requests import JaggedTimeline
from recsys.data.contract.schema import ACTION_TYPES, MILLISECONDS_PER_DAY, TimelineKind
from recsys.data.slices.families import SliceConfig
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.pooling.cells import partition_cells
from recsys.nn.pooling.slice_pooling import SlicePooling
from recsys.optim.fused import FusedOptimizerConfig, fuse_tables

DESCRIPTION = "cell pooling against one TorchRec bag per slice: forward, backward and update"

_ROOT = Path(__file__).resolve().parent.parent
_VARIANTS: dict[str, type[nn.Module]] = {"cells": CellPooling, "slices": SlicePooling}
_MEDIA_TYPES = ("video", "photo")
_REQUEST_TIME = 1_700_000_000_000
_GIB = 2**30
Batch = tuple[JaggedTimeline, JaggedTimeline, Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        slices: slice set in conf/slices.
        requests: requests per batch.
        implicit: implicit events per request (the paper's mean: 30,000).
        explicit: explicit events per request (the paper's mean: 10,000).
        long_timeline: events per request of either timeline in the long setting; the paper cuts
            each at 35,000, together 70,000.
        dimension: width of a row.
        items: rows of an item table; authors and topics likewise.
        authors: rows of an author table.
        topics: rows of a topic table.
        threads: threads of torch; one gives steadier figures on a machine that does other work.
        repeats: measured steps per variant, alternating, after one that is not measured.
        copy_mib: size of the copy that measures the memory bandwidth.
    """

    slices: str = "full"
    requests: int = 8
    implicit: int = 30_000
    explicit: int = 10_000
    long_timeline: int = 35_000
    dimension: int = 64
    items: int = 200_000
    authors: int = 20_000
    topics: int = 200
    threads: int = 2
    repeats: int = 5
    copy_mib: int = 512


def run(config: Config) -> dict[str, object]:
    """Measure both settings and print them as a table."""
    torch.set_num_threads(config.threads)
    slice_set = _slice_set(config)
    bandwidth = _copy_bandwidth(config.copy_mib)
    result: dict[str, object] = {
        "threads": torch.get_num_threads(),
        "memory_bandwidth_gib_per_second": bandwidth,
    }
    settings = {
        "": (config.explicit, config.implicit),
        "long_": (config.long_timeline, config.long_timeline),
    }
    for prefix, (explicit, implicit) in settings.items():
        batch = draw_batch(config, explicit, implicit, seed=0)
        measured = _shape(slice_set, batch) | _measure(config, slice_set, batch)
        measured["ratio_over_overlap"] = measured["ratio"] / measured["overlap"]
        measured["bandwidth_share"] = measured["table_gib_per_second"] / bandwidth
        for variant in _VARIANTS:
            peak, step = _peak_memory(config, variant, explicit, implicit)
            measured[f"peak_memory_gib_{variant}"] = peak
            measured[f"step_memory_gib_{variant}"] = step
        measured["peak_memory_gib"] = measured["peak_memory_gib_cells"]
        result |= {prefix + key: value for key, value in measured.items()}
    _print(result)
    return result


def draw_batch(config: Config, explicit: int, implicit: int, seed: int) -> Batch:
    """Requests with ``explicit`` and ``implicit`` events each; the module says how."""
    random = np.random.default_rng(seed)
    author_of_item = random.integers(1, config.authors, config.items)
    topic_of_item = random.integers(1, config.topics, config.items)

    def columns(events: int) -> JaggedTimeline:
        count = config.requests * events
        # Zipf's law with exponent 1: the logarithm of the rank is uniform.
        item = np.exp(random.random(count) * np.log(config.items - 1)).astype(np.int32)
        age = MILLISECONDS_PER_DAY * (1 + 364 * random.random((config.requests, events)))
        timestamp = np.sort(_REQUEST_TIME - age.astype(np.int64), axis=1).reshape(-1)
        return {
            "lengths": torch.full((config.requests,), events),
            "timestamp": torch.from_numpy(timestamp),
            "item": torch.from_numpy(item),
            "author": torch.from_numpy(author_of_item[item].astype(np.int32)),
            "topic": torch.from_numpy(topic_of_item[item].astype(np.int32)),
            "media_type": torch.from_numpy((random.random(count) > 0.7).astype(np.int8)),
            "surface": torch.zeros(count, dtype=torch.int8),
        }

    explicit_events, implicit_events = columns(explicit), columns(implicit)
    ranks = np.exp(random.random(config.requests * explicit) * np.log(len(ACTION_TYPES)))
    explicit_events["action_type"] = torch.from_numpy(ranks.astype(np.int8))
    count = config.requests * implicit
    duration = random.lognormal(np.log(20), 0.8, count).astype(np.float32)
    dwell = (duration * random.lognormal(np.log(0.5), 1.2, count)).astype(np.float32)
    duration[random.random(count) < 0.05] = np.nan
    implicit_events["video_duration"] = torch.from_numpy(duration)
    implicit_events["dwell_time"] = torch.from_numpy(dwell)
    return explicit_events, implicit_events, torch.full((config.requests,), _REQUEST_TIME)


def _slice_set(config: Config) -> SliceSet:
    path = _ROOT / "conf" / "slices" / f"{config.slices}.yaml"
    merged = OmegaConf.merge(OmegaConf.structured(SliceConfig), OmegaConf.load(path))
    declared = OmegaConf.to_object(merged)
    assert isinstance(declared, SliceConfig)
    return SliceSet.from_config(declared, [], _MEDIA_TYPES)


def _pooling(config: Config, slice_set: SliceSet, variant: str) -> nn.Module:
    rows = {"item": config.items, "author": config.authors, "topic": config.topics}
    pooling = _VARIANTS[variant](slice_set, rows, config.dimension)
    fuse_tables(pooling, FusedOptimizerConfig())
    return pooling


def _shape(slice_set: SliceSet, batch: Batch) -> dict[str, float]:
    """What the pooling has to do, counted by the plain membership of events in slices."""
    in_slices = looked_up = cells = 0
    for timeline, events in zip(TimelineKind, batch[:2], strict=True):
        columns = {name: column.numpy() for name, column in events.items()}
        member = slice_set.membership(timeline, columns, np.array(_REQUEST_TIME))
        in_slices += int(member.sum())
        partitions = partition_cells(slice_set, timeline)
        for one in partitions.lookups:
            cells += partitions.partitions[one.partition].cells
            looked_up += int(member[list(one.slices)].any(axis=0).sum())
    return {
        "slices": len(slice_set.slices),
        "cells": cells,
        "events": _events(batch),
        "lookups_slices": in_slices,
        "lookups_cells": looked_up,
        "overlap": in_slices / looked_up,
    }


def _events(batch: Batch) -> int:
    return sum(int(timeline["lengths"].sum()) for timeline in batch[:2])


def _measure(config: Config, slice_set: SliceSet, batch: Batch) -> dict[str, float]:
    """Seconds per step of both variants, alternating; with and without preparing the lookups."""
    poolings = {name: _pooling(config, slice_set, name) for name in _VARIANTS}
    poolings["slices"].load_state_dict(poolings["cells"].state_dict())
    gradient = torch.randn(config.requests, len(slice_set.slices), config.dimension) * 1e-3
    whole: dict[str, list[float]] = {name: [] for name in poolings}
    lookups: dict[str, list[float]] = {name: [] for name in poolings}
    forwards: dict[str, list[float]] = {name: [] for name in poolings}
    features = {name: _features(pooling, batch) for name, pooling in poolings.items()}
    for repeat in track(range(config.repeats + 1), "pooling", config.repeats + 1):
        for name, pooling in poolings.items():
            step = _seconds(partial(_step, pooling, batch, gradient))
            alone = [_lookup_seconds(*one) for one in features[name]]
            if repeat > 0:
                whole[name].append(step)
                forwards[name].append(sum(forward for forward, _ in alone))
                lookups[name].append(sum(forward + backward for forward, backward in alone))
    median = {name: statistics.median(seconds) for name, seconds in whole.items()}
    read = 4 * config.dimension * sum(len(one.values()) for _, one in features["cells"])
    result = {
        "ratio": median["slices"] / median["cells"],
        # Of neighbouring steps: how far the ratio moves with the machine's other load.
        "ratio_lowest": min(b / a for a, b in zip(whole["cells"], whole["slices"], strict=True)),
        "ratio_highest": max(b / a for a, b in zip(whole["cells"], whole["slices"], strict=True)),
        "ratio_lookups_alone": statistics.median(lookups["slices"])
        / statistics.median(lookups["cells"]),
        "events_per_second": _events(batch) / median["cells"],
        "table_gib_per_second": read / statistics.median(forwards["cells"]) / _GIB,
    }
    for name, seconds in whole.items():
        result[f"seconds_{name}"] = median[name]
        result[f"seconds_{name}_lowest"] = min(seconds)
        result[f"seconds_{name}_highest"] = max(seconds)
        result[f"seconds_{name}_lookups_alone"] = statistics.median(lookups[name])
    return result


def _features(pooling: nn.Module, batch: Batch) -> list[tuple[nn.Module, KeyedJaggedTensor]]:
    """What the pooling hands to its collections."""
    seen: list[tuple[nn.Module, KeyedJaggedTensor]] = []
    collections = [
        collection
        for collection in (pooling.plain_tables, pooling.weighted_tables)
        if isinstance(collection, nn.Module)
    ]
    handles = [
        collection.register_forward_pre_hook(lambda module, inputs: seen.append((module, *inputs)))
        for collection in collections
    ]
    with torch.no_grad():
        pooling(*batch)
    for handle in handles:
        handle.remove()
    return seen


def _lookup_seconds(collection: nn.Module, features: KeyedJaggedTensor) -> tuple[float, float]:
    """Seconds of forward, and of backward with update."""
    begin = time.perf_counter()
    pooled = collection(features).values()
    middle = time.perf_counter()
    gradient = torch.full_like(pooled, 1e-6)
    return middle - begin, _seconds(lambda: pooled.backward(gradient))


def _step(pooling: nn.Module, batch: Batch, gradient: Tensor) -> None:
    pooling(*batch).backward(gradient)


def _seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def _copy_bandwidth(mib: int) -> float:
    """GiB per second of a large copy, bytes read and written, the best of five."""
    source = torch.ones(mib * 2**18)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = min(_seconds(lambda: target.copy_(source)) for _ in range(5))
    return 2 * source.nbytes / _GIB / seconds


def _peak_memory(config: Config, variant: str, explicit: int, implicit: int) -> tuple[float, float]:
    """GiB at the peak of two steps in a process of its own, and above what it held before them."""
    arguments = [variant, str(explicit), str(implicit), json.dumps(asdict(config))]
    output = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    before, peak = json.loads(output.splitlines()[-1])
    return peak, peak - before


def _two_steps(variant: str, explicit: str, implicit: str, config_json: str) -> None:
    config = Config(**json.loads(config_json))
    torch.set_num_threads(config.threads)
    slice_set = _slice_set(config)
    batch = draw_batch(config, int(explicit), int(implicit), seed=0)
    pooling = _pooling(config, slice_set, variant)
    # Building holds the tables twice for a moment, plain and fused: forget that peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory_gib("VmRSS")
    for _ in range(2):
        pooled = pooling(*batch)
        pooled.backward(torch.ones_like(pooled))
    output_console().print(json.dumps([before, _memory_gib("VmHWM")]))


def _memory_gib(field: str) -> float:
    """A field of /proc: the maximum of getrusage would be inherited from the parent process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / _GIB
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark needs Linux")


def _print(result: dict[str, object]) -> None:
    table = Table("", "30,000 + 10,000 events", "70,000 events", title=DESCRIPTION)
    for key, value in result.items():
        if "long_" + key in result:
            table.add_row(key, f"{value:,.3f}", f"{result['long_' + key]:,.3f}")
        elif not key.startswith("long_"):
            table.add_row(key, f"{value:,.1f}", f"{value:,.1f}")
    output_console().print(table)


if __name__ == "__main__":
    _two_steps(*sys.argv[1:])

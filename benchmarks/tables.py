"""Building the tables of a run: memory and time beside TorchRec's own way.

Tables of one width as `recsys train` builds them: given memory where they are trained, and first
rows in place. Beside it TorchRec's way, which was ours: a collection is built and filled, and its
fused counterpart takes its weights over. Each is measured in a process of its own, on the CPU: what
the process holds more than before (resident set, its peak reset before), per row of one table, and
the processor's seconds, which those of others on the machine change less than the time.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from rich.table import Table
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from recsys.core.console import output_console
from recsys.nn.tables.collection import IdSpread, bag_collection, tables_without_memory
from recsys.optim.fused import FusedOptimizerConfig, fuse_tables

DESCRIPTION = "memory and time of building the tables of a run, beside TorchRec's own way"

#: What the peak may be of what is held afterwards, and the time of the most rows of their share.
AIM_PEAK, AIM_TIME = 1.1, 1.05
IN_PLACE, PEER = "in place", "TorchRec: built, then fused"
_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        rows: of each table, one measurement each.
        tables: number of tables.
        dimension: D.
        threads: that draw rows.
        rounds: both ways in turn; figures are medians.
    """

    rows: list[int] = field(default_factory=lambda: [1_000_000, 4_000_000])
    tables: int = 5
    dimension: int = 32
    threads: int = 1
    rounds: int = 3


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    taken: dict[str, dict[int, list[dict[str, float]]]] = {
        way: {rows: [] for rows in config.rows} for way in (IN_PLACE, PEER)
    }
    for _ in range(config.rounds):
        for way, sizes in taken.items():
            for rows, rounds in sizes.items():
                rounds.append(measured(way, rows, config))
    figures = {
        way: {str(rows): _median(rounds) for rows, rounds in sizes.items()}
        for way, sizes in taken.items()
    }
    _print(figures, config)
    return {"config": asdict(config), "cores": os.cpu_count(), "ways": figures}


def measured(way: str, rows: int, config: Config) -> dict[str, float]:
    """Seconds, and bytes that the tables take at their peak and afterwards, in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_measure, way, rows, config).result()


def _measure(way: str, rows: int, config: Config) -> dict[str, float]:
    torch.set_num_threads(config.threads)
    build = _in_place if way == IN_PLACE else _peer
    build(["first"], 10, 4)  # what is loaded when it is first used
    gc.collect()
    (_PROCESS / "clear_refs").write_text("5")  # the peak begins here
    before = _kibibytes("VmRSS")
    wall, spent = time.perf_counter(), time.process_time()
    tables = build([f"table {number}" for number in range(config.tables)], rows, config.dimension)
    wall, spent = time.perf_counter() - wall, time.process_time() - spent
    gc.collect()
    after, peak = _kibibytes("VmRSS"), _kibibytes("VmHWM")
    assert sum(weight.numel() for weight in tables.parameters()) > 0
    return {
        "seconds": wall,
        "cpu_seconds": spent,
        "peak_bytes": (peak - before) * 1024,
        "bytes": (after - before) * 1024,
    }


def _kibibytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", (_PROCESS / "status").read_text())
    assert found is not None
    return int(found[1])


def _in_place(names: list[str], rows: int, width: int) -> nn.Module:
    """As `recsys train` builds them."""
    module = nn.Module()
    with tables_without_memory():
        module.tables = bag_collection(
            [_config(name, rows, width, IdSpread().fill("item")) for name in names]
        )
    fuse_tables(module, FusedOptimizerConfig(), torch.device("cpu"))
    return module


def _peer(names: list[str], rows: int, width: int) -> nn.Module:
    """By TorchRec's classes alone."""
    draw = partial(nn.init.normal_, std=0.02)
    configs = [_config(name, rows, width, draw) for name in names]
    collection = EmbeddingBagCollection(tables=configs)
    fused = FusedEmbeddingBagCollection(
        configs, RowWiseAdagrad, {"lr": 0.02}, device=torch.device("cpu")
    )
    fused.load_state_dict(collection.state_dict())
    return fused


def _config(name: str, rows: int, width: int, fill: object) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(
        name=name,
        embedding_dim=width,
        num_embeddings=rows,
        feature_names=[name],
        pooling=PoolingType.SUM,
        init_fn=fill,
    )


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _print(figures: dict[str, dict[str, dict[str, float]]], config: Config) -> None:
    title = f"{config.tables} tables of width {config.dimension}, {config.threads} thread(s)"
    headings = ("rows", "seconds", "CPU s", "million rows / CPU s", "bytes a row", "at the peak")
    table = Table("", *headings, f"peak / held (aim {AIM_PEAK})", title=title)
    for way, sizes in figures.items():
        for rows, one in sizes.items():
            all_rows = int(rows) * config.tables
            table.add_row(
                way,
                f"{int(rows):,}",
                f"{one['seconds']:.2f}",
                f"{one['cpu_seconds']:.2f}",
                f"{all_rows / one['cpu_seconds'] / 1e6:.2f}",
                f"{one['bytes'] / int(rows):,.0f}",
                f"{one['peak_bytes'] / int(rows):,.0f}",
                f"{one['peak_bytes'] / one['bytes']:.2f}",
            )
    output_console().print(table)
    if len(config.rows) > 1:
        few, many = min(config.rows), max(config.rows)
        aim = many / few * AIM_TIME
        for way, sizes in figures.items():
            ratio = sizes[str(many)]["seconds"] / sizes[str(few)]["seconds"]
            spent = sizes[str(many)]["cpu_seconds"] / sizes[str(few)]["cpu_seconds"]
            output_console().print(
                f"{way}: {many:,} rows take {spent:.2f} times the CPU time of {few:,} "
                f"(aim {aim:.1f}), {ratio:.2f} times the time."
            )

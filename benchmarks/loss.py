"""The tiled pool softmax against the materialised one: seconds and peak memory of a training step.

Queries and pool grow together, as NxtPost's short-term loss has them: ``users · steps`` states
against as many items, each user's own items masked, scale 20, gradients for queries and pool.
Every figure is from a process of its own that makes one loss at one size; memory is the growth of
its largest resident set over what it held before the inputs were made. A last size has the shape
of SASRec on MovieLens-1M: the states of 128 users against the catalogue, nothing masked.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.nn.softmax.exclusions import Owned
from recsys.nn.softmax.pool_softmax import pool_softmax_loss
from recsys.nn.softmax.reference import materialised_loss

DESCRIPTION = "tiled pool softmax against the materialised one: seconds and memory by pool size"

_ROOT = Path(__file__).resolve().parent.parent
_GIB = 2**30
_LOSSES = {"tiled": pool_softmax_loss, "materialised": materialised_loss}
_SCALE = 20.0


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        users: users of the batch, growing; 1024 is the paper's batch.
        steps: states and items per user; 100 is the paper's length.
        width: of an embedding.
        materialised_users: largest number of users for the materialised loss, whose memory grows
            with the square.
        limit_gib: what a process with the tiled loss may hold, at every size.
        catalogue_queries: states of 128 users of MovieLens-1M, 200 steps at most.
        catalogue: films of MovieLens-1M.
        catalogue_width: SASRec's width.
        threads: threads of torch.
        repeats: steps per process; the fastest counts.
    """

    users: list[int] = field(default_factory=lambda: [16, 32, 64, 128, 256, 512, 1024])
    steps: int = 100
    width: int = 64
    materialised_users: int = 128
    limit_gib: float = 4.0
    catalogue_queries: int = 13_000
    catalogue: int = 3706
    catalogue_width: int = 50
    threads: int = 2
    repeats: int = 2


@dataclass(frozen=True)
class Size:
    """Of one step.

    Attributes:
        queries: Q.
        pool: P.
        width: D.
        steps: queries, and items of the pool, of each user; None where nobody owns anything.
    """

    queries: int
    pool: int
    width: int
    steps: int | None


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures.

    Raises:
        AssertionError: the losses differ, or the tiled one took more memory than the limit.
    """
    rows = [
        _measure(config, size, list(_LOSSES) if _fits(config, size) else ["tiled"])
        for size in track(_sizes(config), "Losses over growing pools")
    ]
    *growing, catalogue = rows
    both = [row for row in growing if "materialised_seconds" in row]
    figures = {
        **{f"pool_{key}": value for key, value in _ratios(both[-1]).items()},
        **{f"catalogue_{key}": value for key, value in _ratios(catalogue).items()},
        "memory_exponent": _exponent(growing, "tiled_gib"),
        "materialised_memory_exponent": _exponent(both, "materialised_gib"),
        "full_seconds": growing[-1]["tiled_seconds"],
        "full_gib": growing[-1]["tiled_gib"],
        "full_process_gib": growing[-1]["tiled_process_gib"],
    }
    _print(rows, figures)
    for row in rows:
        _check(row, config.limit_gib)
    return {"config": asdict(config), **figures, "sizes": rows}


def _sizes(config: Config) -> list[Size]:
    sizes = [
        Size(users * config.steps, users * config.steps, config.width, config.steps)
        for users in config.users
    ]
    catalogue = Size(config.catalogue_queries, config.catalogue, config.catalogue_width, None)
    return [*sizes, catalogue]


def _fits(config: Config, size: Size) -> bool:
    """Whether the materialised loss is measured too."""
    return size.steps is None or size.pool <= config.materialised_users * config.steps


def _ratios(row: dict[str, float]) -> dict[str, float]:
    """How much more the materialised loss takes."""
    return {
        "time_ratio": row["materialised_seconds"] / row["tiled_seconds"],
        "memory_ratio": row["materialised_gib"] / row["tiled_gib"],
    }


def _exponent(rows: list[dict[str, float]], key: str) -> float:
    """Slope of log memory by log pool over the larger half of the sizes; 1 is linear growth."""
    half = rows[len(rows) // 2 - 1 :]
    pools, memory = ([math.log(row[name]) for row in half] for name in ("pool", key))
    return float(np.polyfit(pools, memory, 1)[0])


def _check(row: dict[str, float], limit_gib: float) -> None:
    if row["tiled_process_gib"] > limit_gib:
        raise AssertionError(
            f"the tiled loss took {row['tiled_process_gib']:.2f} GiB at a pool of {row['pool']}, "
            f"the limit is {limit_gib}"
        )
    materialised = row.get("materialised_loss", row["tiled_loss"])
    if not math.isclose(row["tiled_loss"], materialised, rel_tol=1e-5):
        raise AssertionError(f"losses {row['tiled_loss']} and {materialised} should be the same")


def _measure(config: Config, size: Size, names: list[str]) -> dict[str, float]:
    """Figures of one size, each loss in a process of its own."""
    row: dict[str, float] = {"queries": size.queries, "pool": size.pool, "width": size.width}
    for name in names:
        arguments = [name, json.dumps(asdict(size)), str(config.threads), str(config.repeats)]
        output = subprocess.run(
            [sys.executable, __file__, *arguments],
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout
        figures = json.loads(output.splitlines()[-1])
        row |= {f"{name}_{key}": value for key, value in figures.items()}
    return row


def _steps_of(name: str, size: Size, threads: int, repeats: int) -> None:
    """What the process of one figure does."""
    torch.set_num_threads(threads)
    before = _resident_gib("VmRSS")
    queries, pool, target, options = _inputs(size)
    seconds = []
    for _ in range(repeats):
        queries.grad = pool.grad = None
        start = time.perf_counter()
        loss = _LOSSES[name](queries, pool, target, scale=_SCALE, **options)
        loss.backward()
        seconds.append(time.perf_counter() - start)
    peak = _resident_gib("VmHWM")
    figures = {"seconds": min(seconds), "gib": peak - before, "process_gib": peak}
    output_console().print(json.dumps({**figures, "loss": loss.item()}))


def _inputs(size: Size) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(size.queries, size.width, generator=generator))
    pool = F.normalize(torch.randn(size.pool, size.width, generator=generator))
    target = torch.arange(size.queries) % size.pool
    options: dict[str, Any] = {}
    if size.steps is not None:
        offsets = torch.arange(0, size.pool + 1, size.steps)
        options["owner"] = torch.arange(size.queries) // size.steps
        options["owned"] = Owned(offsets, torch.arange(size.pool))
    return queries.requires_grad_(), pool.requires_grad_(), target, options


def _resident_gib(name: str) -> float:
    """A field of /proc: the maximum of getrusage would be inherited from the parent process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024 / _GIB
    raise RuntimeError(f"/proc/self/status has no {name}; this benchmark needs Linux")


def _print(rows: list[dict[str, float]], figures: dict[str, float]) -> None:
    table = Table("queries", "pool", "width", title=DESCRIPTION)
    for name in _LOSSES:
        table.add_column(f"{name}, s")
        table.add_column("GiB")
    for row in rows:
        cells = [f"{row[key]:,}" for key in ("queries", "pool", "width")]
        for name in _LOSSES:
            cells.append(f"{row[f'{name}_seconds']:.2f}" if f"{name}_seconds" in row else "-")
            cells.append(f"{row[f'{name}_gib']:.3f}" if f"{name}_gib" in row else "-")
        table.add_row(*cells)
    output_console().print(table)
    for key, value in figures.items():
        output_console().print(f"{key}: {value:.2f}")


if __name__ == "__main__":
    _steps_of(sys.argv[1], Size(**json.loads(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]))

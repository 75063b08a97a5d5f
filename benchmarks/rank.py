"""Latency of an exported ranker on one core, beside the matrix products of its network alone.

The demo's log of fewer users and a ranker trained for one step: what a request takes does not
depend on its weights. The limit is the products that the network needs for exactly so many
candidates, none filled up, by the same library, on the operands it has them on; all else (lookups,
activations, norms, the interpreter, calibration, candidates that fill a tile up) is what a request
takes more. Seconds are those of the processor, which other processes on the machine do not change
much; the wall clock is beside them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks._demo import prepare_demo
from benchmarks._products import Products, timed
from recsys.artifacts.ranker_tower import (
    RankerArtifact,
    candidate_inputs,
    load_ranker,
    user_inputs,
)
from recsys.core.bounds import Count
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.core.threads import one_thread
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.hour_of_day import with_hour
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.schema import Split
from recsys.nn.calibrators import Calibrators, Curve
from recsys.systems.base import ExportConfig
from recsys.systems.choice import compose_run
from recsys.systems.ranker.config import RankerRun
from recsys.systems.ranker.system import RankerSystem
from recsys.systems.ranker.tower import RankerTower
from recsys.systems.runs import load_run, train

DESCRIPTION = "latency of an exported ranker, beside its matrix products alone"

#: Times its products that a request of 500 candidates is to take at most.
AIM = 2.0


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        users: users of the log, each with some 1,300 events.
        candidates: of a request.
        rounds: how often each side is measured, in turn.
        overrides: settings of the run, such as ``model.net.experts.kind=ple``.
        run_dir: an exported run, instead of one of the demo.
    """

    users: Count = 300
    candidates: list[Count] = field(default_factory=lambda: [1, 50, 500, 2_000])
    rounds: Count = 30
    overrides: list[str] = field(default_factory=list)
    run_dir: str | None = None


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures."""
    with tempfile.TemporaryDirectory() as folder, one_thread(), torch.no_grad():
        run_dir = config.run_dir or _exported(config, Path(folder))
        trained: RankerRun = load_run(run_dir)
        artifact = load_ranker(Path(run_dir) / "artifact", trust=True)
        tower = RankerTower(trained.model.eval(), _uncalibrated(trained))
        sizes = [
            _measured(artifact, tower, _request(trained, number), config.rounds)
            for number in track(config.candidates, "Ranking")
        ]
    _print(config, sizes)
    return {"config": asdict(config), "load": os.getloadavg()[0], "sizes": sizes}


def _exported(config: Config, folder: Path) -> str:
    """A ranker of the demo after one step, with its artifact."""
    demo = prepare_demo(config.users, folder)
    data = [f"data.path={folder / 'log'}", f"data.out={demo.data.out_folder}"]
    settings = ["trainer.max_steps=1", "trainer.progress_bar=false", f"run_dir={folder / 'run'}"]
    with torch.enable_grad():
        run_dir = train(
            compose_run(["experiment=ranker_demo", *data, *settings, *config.overrides])
        )
    RankerSystem().export(load_run(run_dir), ExportConfig(str(run_dir)))
    return str(run_dir)


def _uncalibrated(trained: RankerRun) -> Calibrators:
    """Calibration is no matrix product."""
    return Calibrators([Curve()] * len(trained.manifest.tasks))


def _request(trained: RankerRun, number: int) -> RankingBatch:
    """The last request of the choose split, with so many drawn candidates."""
    store = trained.dataset.requests(Split.CHOOSE)
    user, moment = store.user[-1:].astype(np.int64), store.request_time[-1:]
    items = trained.dataset.manifest.vocabulary_sizes["item"]
    item = np.random.default_rng(0).integers(1, items, number)
    rows = GivenRows(np.repeat(user, number), item, np.repeat(moment, number))
    context = with_hour(rows, trained.dataset.manifest).context_of(np.arange(number))
    reader = RankerSystem().data(trained.config, trained.dataset).reader
    return reader.given(user, moment, np.array([number]), item, context)


def _measured(
    artifact: RankerArtifact, tower: RankerTower, batch: RankingBatch, rounds: int
) -> dict[str, Any]:
    """Median milliseconds of both sides of a request, and of their products."""
    user: dict[str, Any] = dict(user_inputs(batch, 0))
    candidates = candidate_inputs(batch, slice(None))
    state = artifact.encode_user(**user)
    tower.rows_at_a_time = len(batch.row_id)
    with Products() as of_user:
        own_state = tower.encode_user(**user)
    with Products() as of_candidates:
        tower.score(own_state, **candidates)
    sides: dict[str, Callable[[], object]] = {
        "user": lambda: artifact.encode_user(**user),
        "user_products": of_user.again,
        "score": lambda: artifact.score(state, **candidates),
        "score_products": of_candidates.again,
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, task in sides.items():
            seconds[name].append(timed(task))
    cpu = {name: np.array([one for one, _ in found]) for name, found in seconds.items()}
    ratios = cpu["score"] / cpu["score_products"]
    return {
        "candidates": len(batch.row_id),
        "cpu_ms": {name: float(np.median(found)) * 1e3 for name, found in cpu.items()},
        "wall_ms": {
            name: float(np.median([wall for _, wall in found])) * 1e3
            for name, found in seconds.items()
        },
        "ratio": float(np.median(ratios)),
        "ratios": np.quantile(ratios, [0.1, 0.9]).tolist(),
        "operations_of_candidates": of_candidates.operations,
        "operations_of_user": of_user.operations,
    }


def _print(config: Config, sizes: list[dict[str, Any]]) -> None:
    title = f"A request on one core, ms of the processor; load {os.getloadavg()[0]:.1f}"
    columns = ("candidates", "user side", "its products", "candidates", "their products", "ratio")
    table = Table(*columns, title=title)
    for one in sizes:
        low, high = one["ratios"]
        table.add_row(
            f"{one['candidates']:,}",
            *(f"{found:,.2f}" for found in one["cpu_ms"].values()),
            f"{one['ratio']:.2f} ({low:.2f} to {high:.2f})",
        )
    output_console().print(table)
    output_console().print(f"Aim: {AIM:g} with 500 candidates.")

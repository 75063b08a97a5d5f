"""Rankers that learn from what a cache has shown: stale features kept, left out, or made anew.

A world is played under a funnel with a cache (Smart Cache §3), and its ledger teaches a ranker in
each of the three ways, over several seeds. All are measured by the same rows of the last part of
the play, with features as of the visit, for that is when a ranker is asked; so their differences
from the ranker of regenerated features are paired, with intervals over users.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

from recsys.cli.main import invoke
from recsys.core.console import output_console, text_table
from recsys.core.errors import ArtifactError
from recsys.data.contract.schema import Split, Task, TaskKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.comparisons import compare, measure
from recsys.evaluation.paired import Bootstrap
from recsys.evaluation.predictions import read_predictions
from recsys.evaluation.together import MEAN, NE_DELTA

DESCRIPTION = "NE of rankers whose stale training features are kept, left out, or made anew"

#: What is done with rows to fit whose scores came from the cache; the first is what others are
#: measured against.
REGENERATED, KEPT, REMOVED = "regenerated", "kept", "removed"
WAYS = {
    REGENERATED: ["features=viewed"],
    KEPT: ["features=scored"],
    REMOVED: ["features=scored", "max_gap_hours={hours}"],
}


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        simulation: folder of a simulated world; None to make one.
        simulator: of conf/simulator, for that.
        ledger: of a play of it under a funnel with a cache; None to play one.
        max_age_hours: T1 of that play.
        removed_hours: rows whose scores were older are left out.
        seeds: of the rankers.
        settings: of all rankers, as after `recsys train`.
        folder: of everything that is made; None for one that is removed.
    """

    simulation: str | None = None
    simulator: str = "marketplace"
    ledger: str | None = None
    max_age_hours: float = 6.0
    removed_hours: float = 0.0
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    settings: list[str] = field(
        default_factory=lambda: [
            "model.net.dimension=16",
            "loader.max_events=32",
            "trainer.max_epochs=2",
        ]
    )
    folder: str | None = None


def run(config: Config) -> dict[str, object]:
    """Train and measure all of them; print a table, and return the figures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(config.folder or temporary)
        simulation, ledger = _played(config, folder)
        found = {
            name: [_predictions(config, folder, simulation, ledger, name, s) for s in config.seeds]
            for name in WAYS
        }
        datasets = {name: PreparedDataset.open(_prepared(folder, name)) for name in WAYS}
        rows = {name: one.requests(Split.FIT).num_rows for name, one in datasets.items()}
        tasks = datasets[REGENERATED].manifest.tasks
    measured = {
        name: [_measured(*pair, tasks) for pair in zip(frames, found[REGENERATED], strict=True)]
        for name, frames in found.items()
    }
    _print(config, rows, measured)
    return {"config": asdict(config), "rows": rows, "measured": measured}


def _recsys(*words: str) -> None:
    if invoke(list(words)) != 0:
        raise ArtifactError(f"recsys {' '.join(words)} failed; what it said stands above.")


def _played(config: Config, folder: Path) -> tuple[str, str]:
    simulation, ledger = config.simulation, config.ledger
    if simulation is None:
        simulation = str(folder / "log")
        _recsys("data", "simulate", f"simulator={config.simulator}", f"out={simulation}")
    if ledger is None:
        ledger = str(folder / "ledger")
        cache = f"changes=[cache.policy=stale,cache.max_age_hours={config.max_age_hours}]"
        words = (f"simulation={simulation}", "policy=explore", "against=popular", cache)
        _recsys("online", *words, f"ledger={ledger}")
    return simulation, ledger


def _prepared(folder: Path, name: str) -> Path:
    return folder / "prepared" / name


def _predictions(
    config: Config, folder: Path, simulation: str, ledger: str, name: str, seed: int
) -> pl.DataFrame:
    """Of the report rows, by a ranker that learned in one of the ways."""
    run_dir = folder / "runs" / name / str(seed)
    options = [f"data.options.{one.format(hours=config.removed_hours)}" for one in WAYS[name]]
    _recsys(
        *("train", "system=ranker", "data=ledger", f"data.path={ledger}", *options),
        *(f"data.options.simulation.path={simulation}", f"data.out={_prepared(folder, name)}"),
        *(*config.settings, f"seed={seed}", f"run_dir={run_dir}"),
    )
    _recsys("evaluate", f"run_dir={run_dir}", "baselines=[]")
    return read_predictions(run_dir, Split.REPORT)


def _measured(
    frame: pl.DataFrame, regenerated: pl.DataFrame, tasks: Sequence[Task]
) -> dict[str, list[float]]:
    """Mean NE, and by task its change in percent of the NE with regenerated features."""
    binary = [task for task in tasks if task.kind is TaskKind.BINARY]
    every = [measure(frame, tasks)[f"ne/{task.name}"] for task in binary]
    changes = compare(frame, regenerated, tasks, Bootstrap())
    told = {name: of for name, of in changes.items() if name.startswith(f"{NE_DELTA}/")}
    found = {name: [of.value, of.low, of.high] for name, of in told.items()}
    return {"ne": [sum(every) / len(every)], **found}


def _print(
    config: Config, rows: dict[str, int], measured: dict[str, list[dict[str, list[float]]]]
) -> None:
    table = [["stale features", "rows to fit", "seed", "mean NE", "change, %", "interval"]]
    for name, seeds in measured.items():
        for seed, found in zip(config.seeds, seeds, strict=True):
            value, low, high = found[f"{NE_DELTA}/{MEAN}"]
            change = [f"{value:+.2f}", f"[{low:+.2f}, {high:+.2f}]"]
            own = ["", ""] if name == REGENERATED else change
            table.append([name, f"{rows[name]:,}", str(seed), f"{found['ne'][0]:.4f}", *own])
    output_console().print(text_table("NE at the visit, against regenerated features", table))

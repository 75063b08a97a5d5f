"""Shampoo beside AdamW: steps and seconds to the quality that tuned AdamW reaches.

Three tasks: scikit-learn's digits with a small ResNet, and DV365 and NxtPost as `recsys train`
trains them, shortened. conf/benchmark/convergence.yaml has what is tried: the same trials for both
optimisers, each trained once; the best at its end is trained with further seeds. AdamW's mean over
these seeds at the end is the target, and a curve reaches it where the straight line between two
points of the mean over seeds does. All values are of the choose split, which the settings were
chosen on too.

Seconds are those of forward, backward and optimiser step, in CPU time of the process and in wall
time; reading batches and validations are not in them. The trainings of the two optimisers take
turns, so that a machine that is slower for a while is so for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from benchmarks._convergence_figure import save_figure
from benchmarks._convergence_runs import Point, Task, Trial, train
from recsys.core.composition import load
from recsys.core.console import message_console, output_console
from recsys.core.errors import ConfigError, TrainingError
from recsys.core.paths import conf_dir
from recsys.core.progress import track
from recsys.optim.shampoo.run_config import ShampooConfig

DESCRIPTION = "Steps and seconds of Shampoo to the quality of tuned AdamW, on three tasks"

ADAMW, SHAMPOO = "AdamW", "Shampoo"
OPTIMIZERS = (ADAMW, SHAMPOO)


@dataclass(frozen=True)
class Study:
    """What both optimisers are given; conf/benchmark/convergence.yaml.

    Attributes:
        precondition_frequency: Shampoo's steps between two computations of the inverse roots.
        tuning_seed: of every trial.
        tasks: by name.
    """

    precondition_frequency: int
    tuning_seed: int
    tasks: dict[str, Task]


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
        task: ``digits``, ``dv365`` or ``nxtpost``.
        overrides: settings of this machine for every run, such as ``data.path=…``.
        out: folder of the plot, ``<task>.png``.
    """

    task: str = "digits"
    overrides: list[str] = field(default_factory=list)
    out: str = "runs/convergence"


@dataclass(frozen=True)
class Reached:
    """Where a curve first has the target's value, between two points of it."""

    step: float
    cpu_seconds: float
    wall_seconds: float


def run(config: Config) -> dict[str, object]:
    """Tune, train, print tables, draw the plot, and return the figures."""
    study = load(conf_dir() / "benchmark" / "convergence.yaml", Study)
    if config.task not in study.tasks:
        raise ConfigError(f"task={config.task} is unknown; choose one of {', '.join(study.tasks)}.")
    return measure(study, config)


def measure(study: Study, config: Config) -> dict[str, object]:
    """:func:`run` with another study than that of conf/."""
    task = study.tasks[config.task]
    trials = [Trial(*pair) for pair in product(task.learning_rates, task.second_betas)]
    tuned = _tune(study, task, trials, config.overrides)
    _print_trials(config.task, task, tuned)
    best = {
        optimizer: max(values, key=lambda trial: _rank(values[trial], task.highest))
        for optimizer, values in tuned.items()
    }
    curves: dict[str, list[list[Point]]] = {optimizer: [] for optimizer in OPTIMIZERS}
    cases = list(product(task.seeds, OPTIMIZERS))
    for seed, optimizer in track(cases, f"{config.task}, best trials"):
        shampoo = _shampoo(study, optimizer)
        curves[optimizer].append(train(task, best[optimizer], shampoo, seed, config.overrides))
    target = float(_array(curves[ADAMW])[:, -1, 3].mean())
    rows = {name: _row(best[name], of, target, task.highest) for name, of in curves.items()}
    _print_rows(config.task, task, rows, target)
    path = Path(config.out) / f"{config.task}.png"
    save_figure({name: _array(of) for name, of in curves.items()}, task.metric, target, path)
    output_console().print(f"The plot is {path}.")
    return {
        "config": asdict(config),
        "study": asdict(study),
        "threads": torch.get_num_threads(),
        "trials": {
            name: [{**asdict(trial), "value": value} for trial, value in values.items()]
            for name, values in tuned.items()
        },
        "target": target,
        "rows": rows,
        "curves": {name: [[asdict(p) for p in one] for one in of] for name, of in curves.items()},
    }


def _tune(
    study: Study, task: Task, trials: Sequence[Trial], overrides: Sequence[str]
) -> dict[str, dict[Trial, float]]:
    """The value at the end of every trial; not a number where the training failed."""
    tuned: dict[str, dict[Trial, float]] = {optimizer: {} for optimizer in OPTIMIZERS}
    for trial, optimizer in track(list(product(trials, OPTIMIZERS)), "Trials"):
        try:
            shampoo = _shampoo(study, optimizer)
            points = train(task, trial, shampoo, study.tuning_seed, overrides)
            tuned[optimizer][trial] = points[-1].value
        except TrainingError as error:
            message_console().print(f"{optimizer} with {trial} failed: {error}")
            tuned[optimizer][trial] = math.nan
    return tuned


def _shampoo(study: Study, optimizer: str) -> ShampooConfig | None:
    if optimizer == ADAMW:
        return None
    return ShampooConfig(precondition_frequency=study.precondition_frequency)


def _rank(value: float, highest: bool) -> float:
    """The larger, the better."""
    return -math.inf if math.isnan(value) else value if highest else -value


def _array(curves: Sequence[Sequence[Point]]) -> NDArray[np.float64]:
    """[S, P, 4] of S seeds and P points: step, CPU seconds, wall seconds, value."""
    return np.array(
        [[[p.step, p.cpu_seconds, p.wall_seconds, p.value] for p in curve] for curve in curves]
    )


def reached(curve: NDArray[np.float64], target: float, highest: bool) -> Reached | None:
    """Where a curve [P, 4] first is as good as ``target``; None where it never is."""
    gap = (curve[:, 3] - target) * (1 if highest else -1)
    [there] = np.nonzero(gap >= 0)
    if not len(there):
        return None
    last = int(there[0])
    first = max(0, last - 1)
    share = gap[first] / (gap[first] - gap[last]) if gap[first] < 0 else 1.0
    return Reached(*(curve[first, :3] + share * (curve[last, :3] - curve[first, :3])).tolist())


def _row(
    trial: Trial, curves: Sequence[Sequence[Point]], target: float, highest: bool
) -> dict[str, object]:
    """Figures of one optimiser with its best trial."""
    array = _array(curves)
    mean = array.mean(0)
    where = reached(mean, target, highest)
    steps, cpu, wall, _ = mean[-1]
    return {
        **asdict(trial),
        "value": float(mean[-1, 3]),
        "deviation": float(array[:, -1, 3].std(ddof=1)) if len(array) > 1 else None,
        "cpu_ms_per_step": 1e3 * cpu / steps,
        "wall_ms_per_step": 1e3 * wall / steps,
        "reached": asdict(where) if where else None,
        "seeds": len(array),
        "seeds_reached": sum(reached(one, target, highest) is not None for one in array),
    }


def _print_trials(name: str, task: Task, tuned: dict[str, dict[Trial, float]]) -> None:
    table = Table("learning rate", "β₂", *OPTIMIZERS, title=f"{name}: {task.metric} of the trials")
    for trial in tuned[ADAMW]:
        values = [f"{tuned[optimizer][trial]:.4f}" for optimizer in OPTIMIZERS]
        table.add_row(f"{trial.learning_rate:g}", f"{trial.second_beta:g}", *values)
    output_console().print(table)


def _print_rows(name: str, task: Task, rows: dict[str, dict[str, object]], target: float) -> None:
    title = f"{name}: to the {task.metric} of {target:.4f} that AdamW has after {task.steps} steps"
    table = Table("optimiser", title=title)
    reached_at = ("steps", "CPU s", "wall s")
    for column in ("rate", "β₂", "at the end", *reached_at, "CPU ms a step", "seeds"):
        table.add_column(column, justify="right")
    for optimizer, row in rows.items():
        table.add_row(optimizer, *_cells(row))
    output_console().print(table)


def _cells(row: dict[str, object]) -> list[str]:
    """Texts of a row; the seeds are those whose own curve has the target's value."""
    spread = "" if row["deviation"] is None else f" ± {row['deviation']:.4f}"
    where = row["reached"]
    reached_at = ["not reached", "", ""]
    if isinstance(where, dict):
        reached_at = [
            f"{where['step']:.0f}",
            f"{where['cpu_seconds']:.1f}",
            f"{where['wall_seconds']:.1f}",
        ]
    return [
        f"{row['learning_rate']:g}",
        f"{row['second_beta']:g}",
        f"{row['value']:.4f}{spread}",
        *reached_at,
        f"{row['cpu_ms_per_step']:.1f}",
        f"{row['seeds_reached']} of {row['seeds']}",
    ]

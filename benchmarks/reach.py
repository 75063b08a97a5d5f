"""How much of the gain within reach a finite history leaves: the NE of an ideal observer.

The probabilities *within reach* of docs/simulator.md are given the users' latents. This benchmark
makes the logs of the first users again and computes, for their report rows, what an observer would
predict who knows every parameter of the simulator and every item, but a user's latents only from
that user's own events more than the gap before the request (``benchmarks/_observer.py``):

* *told*: also told which topics are the user's own and which authors favourites, and given the
  history up to the gap before the session's last request: more than any model can know. Its NE
  estimates the limit of theirs. A posterior from ln dwell alone would be exact; actions and what
  exposure says enter by a Gaussian approximation;
* *inferring*: learns topics and authors from the history too, in a crude way, up to the gap before
  the session's first request. It uses nothing of the user but what a model may see, so its NE can
  be reached by one who has learned the parameters and the items.

The ideal observer lies between the two. Losses are expected ones, over labels drawn with the
absolute truth, which takes their noise out of rare tasks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.table import Table

from benchmarks._observed import OBSERVERS, observe
from recsys.cli.simulate import configure as configure_simulation
from recsys.core.console import output_console
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import Split, Task, TaskKind
from recsys.data.simulator.config import TASKS
from recsys.evaluation.paired import TaskPredictions, captured_gain
from recsys.evaluation.predictions import read_predictions
from recsys.evaluation.row_losses import cross_entropy, entropy, squared_error

DESCRIPTION = "what part of the gain within reach a finite history leaves, on simulated logs"

#: Columns of the probabilities given everything and given the latents a gap before.
TRUTH, REACH = "best_absolute", "best_within_reach"
#: What rows of a prepared log are recognised by: it numbers users and items anew.
_KEY = ("request_time", f"{TRUTH}_watch_time", f"{TRUTH}_liked")


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        simulator: file of conf/simulator.
        users: how many users, from the first.
        against: run without timelines on that log, evaluated on the report split; with it, shares
            of the gain are reported.
        run_dir: run with timelines to set beside the observers; needs ``against``.
    """

    simulator: str = "demo"
    users: int = 128
    against: str | None = None
    run_dir: str | None = None


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures.

    Raises:
        ConfigError: ``run_dir`` without ``against``.
        DataError: a run is of another log.
    """
    if config.run_dir is not None and config.against is None:
        raise ConfigError("reach: run_dir needs against=<run without timelines>; give both.")
    simulator = configure_simulation([f"simulator={config.simulator}", "out=unused"]).simulator
    frame = observe(simulator, min(config.users, simulator.users))
    predictors = [*OBSERVERS, REACH]
    for name, folder in (("with", config.run_dir), ("without", config.against)):
        if folder is not None:
            frame = _join(frame, name, Path(folder))
            predictors.insert(0, name)
    figures = {task.name: measure(frame, task, predictors) for task in TASKS}
    _print(figures, frame, predictors)
    counts = {"rows": frame.height, "observed_users": frame["user"].n_unique()}
    return {"config": asdict(config), **counts, "tasks": figures}


def _join(frame: pl.DataFrame, name: str, folder: Path) -> pl.DataFrame:
    """Add a run's predictions as ``<name>_<task>``.

    Raises:
        DataError: the run was not evaluated on these rows.
    """
    predictions = read_predictions(folder, Split.REPORT)
    missing = [column for column in _KEY if column not in predictions.columns]
    if not missing:
        wanted = {f"prediction_{task.name}": f"{name}_{task.name}" for task in TASKS}
        predictions = predictions.select(*_KEY, *wanted).rename(wanted)
        joined = frame.join(predictions, on=_KEY, how="inner")
    if missing or joined.height != frame.height:
        raise DataError(
            f"{folder} was not evaluated on the report rows of this log; name a run on the log "
            "that `recsys data simulate` makes of the same simulator configuration."
        )
    return joined


def measure(frame: pl.DataFrame, task: Task, predictors: list[str]) -> dict[str, Any]:
    """Expected loss of a task per predictor, and shares of the gain.

    The label of a row is its expectation, the absolute truth. A squared error then lacks the
    variance around it, the same for all predictors.

    Returns:
        ``loss`` by predictor (NE; for a regression task the squared error in excess of the
        absolute truth's), ``calibration`` of the observers (mean prediction over mean label), and
        where ``without`` is a predictor ``gain_captured``: the others' share of the gain within
        reach with the ends of its 95 % interval over users.
    """
    frame = frame.filter(pl.col(f"{TRUTH}_{task.name}").is_not_nan())
    runs = {name: _predictions(frame, task, name) for name in predictors}
    label = runs[REACH].labels
    losses = {name: _loss(run) for name, run in runs.items()}
    calibration = {name: float(runs[name].predictions.mean() / label.mean()) for name in OBSERVERS}
    result: dict[str, Any] = {"loss": losses, "calibration": calibration}
    if "without" in predictors:
        shares = {
            name: captured_gain(runs["without"], run, runs[REACH])
            for name, run in runs.items()
            if name not in ("without", REACH)
        }
        result["gain_captured"] = {
            name: [share.value, share.low, share.high] for name, share in shares.items()
        }
    return result


def _predictions(frame: pl.DataFrame, task: Task, predictor: str) -> TaskPredictions:
    return TaskPredictions(
        row_id=np.arange(frame.height),
        user=frame["user"].to_numpy(),
        labels=frame[f"{TRUTH}_{task.name}"].to_numpy().astype(np.float64),
        predictions=frame[f"{predictor}_{task.name}"].to_numpy().astype(np.float64),
        kind=task.kind,
    )


def _loss(run: TaskPredictions) -> float:
    labels, predictions = torch.from_numpy(run.labels), torch.from_numpy(run.predictions)
    if run.kind is TaskKind.REGRESSION:
        return float(squared_error(predictions, labels).mean())
    return float(cross_entropy(predictions, labels).mean() / entropy(labels.mean()))


def _print(figures: dict[str, dict[str, Any]], frame: pl.DataFrame, predictors: list[str]) -> None:
    title = f"{frame.height:,} report rows of {frame['user'].n_unique():,} users"
    losses = Table("expected NE ¹", *predictors, title=title)
    shares = Table(
        "gain captured, %", *(name for name in predictors if name not in ("without", REACH))
    )
    for task, values in figures.items():
        digits = 1 if task == "watch_time" else 4
        losses.add_row(task, *(f"{values['loss'][name]:.{digits}f}" for name in predictors))
        captured = values.get("gain_captured", {})
        cells = (f"{100 * v:.1f} [{100 * a:.1f}, {100 * b:.1f}]" for v, a, b in captured.values())
        shares.add_row(task, *cells)
    output_console().print(losses, "¹ watch_time: squared error in excess of the absolute truth's")
    if "without" in predictors:
        output_console().print(shares)

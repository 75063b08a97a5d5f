"""What request grouping saves: the user tower runs once per request instead of once per row.

A simulated log with the calibration and the history lengths of `simulator=demo` is made and
prepared; DV365 as in `experiment=demo` is then trained on the same requests twice: their rows
grouped (``loader.request_grouping``), and every row as a request of its own with its own history.
A step is building the batch, forward, backward and update; steps of the two alternate. Both have
the same rows per step, so that a step costs the ungrouped one more memory and nothing else differs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks._demo import prepare_demo
from benchmarks._training import Training, build_model
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.data.batches.request_reader import RequestDataset, RequestReader
from recsys.data.batches.requests import RequestBatch
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.row_losses import cross_entropy
from recsys.systems.dv365.module import DV365
from recsys.systems.dv365.system import DV365RunConfig

DESCRIPTION = "rows per second of training with and without request grouping, same loss"

#: Largest relative difference between the summed losses of the same rows: float32 rounding.
TOLERANCE = 1e-5

_VARIANTS = {"grouped": True, "ungrouped": False}
_SEED = 0


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        users: users of the simulated log.
        requests: requests per step.
        steps: measured steps per variant, after one that is not measured.
    """

    users: int = 300
    requests: int = 64
    steps: int = 10


def run(config: Config) -> dict[str, object]:
    """Measure, print a table, and return the figures.

    Raises:
        AssertionError: the losses of the same rows differ by more than rounding.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_config = prepare_demo(config.users, Path(folder))
        dataset = PreparedDataset.open(run_config.data.out_folder)
        figures = _measure(config, run_config, dataset)
    difference = figures["loss_difference"]
    if difference > TOLERANCE:
        raise AssertionError(f"the losses of the same rows differ by {difference:.1e}")
    _print(figures)
    return {"config": asdict(config), "threads": torch.get_num_threads(), **figures}


def _measure(
    config: Config, run_config: DV365RunConfig, dataset: PreparedDataset
) -> dict[str, float]:
    loader = run_config.loader
    rows = {
        name: RequestDataset(
            dataset,
            Split.FIT,
            RequestReader(dataset, gap_hours=loader.gap_hours, max_events=loader.max_events),
            request_grouping=grouping,
        )
        for name, grouping in _VARIANTS.items()
    }
    store = dataset.requests(Split.FIT)
    order = np.random.default_rng(_SEED).permutation(len(store))
    batches = np.resize(order, (config.steps + 1, config.requests))
    positions = {"grouped": list(batches)}
    positions["ungrouped"] = [store.row_ids(requests)[0] for requests in batches]

    trainings = {name: Training(build_model(run_config, dataset)) for name in _VARIANTS}
    seconds = dict.fromkeys(_VARIANTS, 0.0)
    for step in track(range(config.steps + 1), "Training with and without grouping"):
        for name, training in trainings.items():
            start = time.perf_counter()
            training.step(rows[name][positions[name][step]])
            if step:
                seconds[name] += time.perf_counter() - start
    # after training, when the histories move the predictions
    difference = _loss_difference(
        trainings["grouped"].model, [rows[name][positions[name][0]] for name in _VARIANTS]
    )
    trained_rows = sum(map(len, positions["ungrouped"][1:]))
    speeds = {f"rows_per_second_{name}": trained_rows / seconds[name] for name in _VARIANTS}
    return {
        "ratio": seconds["ungrouped"] / seconds["grouped"],
        **speeds,
        "rows_per_request": trained_rows / (config.steps * config.requests),
        "events_per_request": float(rows["grouped"].num_events()[batches[1:]].mean()),
        "loss_difference": difference,
    }


def _loss_difference(model: DV365, batches: list[RequestBatch]) -> float:
    """Relative difference of the binary tasks' summed row losses between batches of equal rows."""
    model.eval()  # without dropout of ids
    sums: list[Tensor] = []
    with torch.no_grad():
        for batch in batches:
            losses = cross_entropy(model.predictions(model(batch)), batch.labels)
            sums.append(losses[:, model.binary].nansum())
    return float((sums[0] - sums[1]).abs() / sums[0])


def _print(figures: dict[str, float]) -> None:
    table = Table(
        "training",
        "rows / s",
        title=(
            f"{figures['rows_per_request']:.1f} rows and {figures['events_per_request']:,.0f} "
            "events per request"
        ),
    )
    for name in _VARIANTS:
        table.add_row(name, f"{figures[f'rows_per_second_{name}']:,.0f}")
    table.add_row("ratio", f"{figures['ratio']:.2f}")
    table.add_row("relative difference of the loss", f"{figures['loss_difference']:.1e}")
    output_console().print(table)

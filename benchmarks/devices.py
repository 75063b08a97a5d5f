"""Losses of a short training of every system on a device, against those on the CPU.

The systems, their settings and the small log are those that tests/cuda_without_gpu follows; dropout
is off, because devices draw differently. A sampled pool of negatives is still drawn by the device,
so that some losses agree only on average: the table has the first step, which starts from the same
weights, and the mean of the last ten.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from recsys.core.console import output_console
from recsys.runs.metrics_log import read_metrics
from recsys.systems.choice import compose_run
from recsys.systems.runs import train
from tests.cuda_without_gpu.systems import FOLLOWED, write_log

DESCRIPTION = "losses of every system on a device against those on the CPU"

#: What draws at random on the device, switched off.
_WITHOUT_DROPOUT = {
    "dv365": ("model.backbone.id_dropout=0",),
    "nxtpost": ("model.tower.dropout=0",),
    "post_tower": ("model.tower.dropout=0", "model.tower.id_dropout=0"),
    "sasrec": ("model.dropout=0",),
    "hstu": ("model.dropout=0",),
    "ranker": ("model.net.recent.dropout=0", "model.net.features.id_dropout=0"),
    "wide_and_deep": ("model.id_dropout=0",),
}
_LAST = 10


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        device: ``cpu`` or ``cuda``.
        steps: of each training.
    """

    device: str = "cpu"
    steps: int = 100


def run(config: Config) -> dict[str, object]:
    """Train, print a line for each system as soon as it is there, and return the figures."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder)
        for system in FOLLOWED:
            try:
                figures[system] = _compared(system, config, folder)
            except Exception as error:  # the others are worth knowing all the same
                figures[system] = f"{type(error).__name__}: {error}"
            output_console().print(f"{system}: {figures[system]}")
    output_console().print(_table(figures, config.device))
    return {"device": config.device, "steps": config.steps, "systems": figures}


def _compared(system: str, config: Config, folder: Path) -> dict[str, float]:
    """The first loss and the mean of the last ones on the CPU, and the device's beside them."""
    cpu = _losses(system, config.steps, folder, "cpu")
    device = _losses(system, config.steps, folder, config.device)
    last, last_there = (sum(losses[-_LAST:]) / len(losses[-_LAST:]) for losses in (cpu, device))
    return {
        "first": cpu[0],
        "first_difference": abs(device[0] - cpu[0]) / abs(cpu[0]),
        "last": last,
        "last_difference": abs(last_there - last) / abs(last),
    }


def _losses(system: str, steps: int, folder: Path, device: str) -> list[float]:
    run_dir = folder / f"{system}-{device}"
    while run_dir.exists():  # the CPU compared with itself
        run_dir = run_dir.with_name(f"{run_dir.name}-again")
    on_gpu = device == "cuda"
    settings = (
        f"run_dir={run_dir}",
        f"trainer={'gpu' if on_gpu else 'cpu'}",
        "trainer.progress_bar=false",
        f"trainer.max_steps={steps}",
        "trainer.max_epochs=1000",
        f"trainer.validate_every_n_steps={steps}",
        "trainer.log_every_n_steps=1",
        *_WITHOUT_DROPOUT.get(system, ()),
    )
    log = read_metrics(train(compose_run([*FOLLOWED[system].settings(folder), *settings])))
    return log.filter(metric="train/loss").sort("step")["value"].to_list()


def _table(figures: dict[str, object], device: str) -> Table:
    names = ("system", "first loss, CPU", f"{device} differs", "last ten, CPU", f"{device} differs")
    table = Table(*names)
    for system, found in figures.items():
        if isinstance(found, dict):
            first, last = f"{found['first']:.4f}", f"{found['last']:.4f}"
            shares = (f"{found['first_difference']:.1e}", f"{found['last_difference']:.1e}")
            table.add_row(system, first, shares[0], last, shares[1])
        else:
            table.add_row(system, "failed", "", "", "")
    return table

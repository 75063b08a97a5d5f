"""metrics.csv: one line per logged number, so that it can be appended to and cut at a step.

Lightning's CSV logger has one column per metric and starts the file anew when a run is resumed;
a long table survives a kill at any moment and continues where the checkpoint was taken. When a run
has ended, ``metrics_log.json`` keeps the log's size and checksum.
"""

from __future__ import annotations

import csv
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from recsys.core.checksums import FileMark
from recsys.core.durable import replaced_file
from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json

METRICS_LOG = "metrics.csv"
CLOSED = "metrics_log.json"
HEADER = ("step", "epoch", "metric", "value")

_KIND = "size of a log of metrics"


class MetricsCsv(Logger):
    """Appends every logged number to ``metrics.csv`` of the run folder.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / METRICS_LOG

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """A run folder holds one run."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        """The file that is written."""
        return self.path

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append ``metrics``; ``step`` is Lightning's, which counts the steps before this one."""
        done = (step or 0) + 1
        epoch = int(metrics.pop("epoch", 0))
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")  # as Polars ends them on a resume
            if new:
                writer.writerow(HEADER)
            writer.writerows(
                (done, epoch, name, repr(float(value))) for name, value in metrics.items()
            )

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: config.yaml holds them."""

    def drop_after(self, step: int) -> None:
        """Forget what was logged after ``step``, when a run goes back to a checkpoint."""
        if not self.path.exists():
            return
        kept = read_metrics(self.path.parent).filter(pl.col("step") <= step)
        (self.path.parent / CLOSED).unlink(missing_ok=True)
        with replaced_file(self.path) as partial:
            partial.write_text(kept.write_csv())


def close_log(run_dir: Path) -> None:
    """Note how the log of a run that has ended is; going on with the run opens it again."""
    content = {"file": asdict(FileMark.of(run_dir / METRICS_LOG))}
    write_json(run_dir / CLOSED, _KIND, content)


def read_metrics(run_dir: Path) -> pl.DataFrame:
    """The log of a run: ``step`` (optimiser steps done), ``epoch``, ``metric``, ``value``.

    Raises:
        ArtifactError: the run folder has no log, it cannot be read, or it is not as it was when
            the run ended.
    """
    path = run_dir / METRICS_LOG
    if not path.is_file():
        raise ArtifactError(
            f"{run_dir} has no {METRICS_LOG}: it is not the folder of a training run."
        )
    if (run_dir / CLOSED).is_file():
        mend = f"restore it from a copy; without {CLOSED} it is taken as it is."
        mark = read_json(run_dir / CLOSED, _KIND, ArtifactError, mend)["file"]
        if problem := FileMark(**mark).problem(path):
            raise ArtifactError(f"{path} is damaged: it {problem}; {mend}")
    schema = {"step": pl.Int64, "epoch": pl.Int64, "metric": pl.String, "value": pl.Float64}
    try:
        # A kill in the middle of a line leaves a last line without its end, of the first as well.
        complete = path.read_text().rpartition("\n")[0]
        if not complete:
            return pl.DataFrame(schema=schema)
        return pl.read_csv(f"{complete}\n".encode(), schema=schema)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error

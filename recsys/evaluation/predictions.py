"""Predictions of a run on the rows of a split: one Parquet file that every comparison reads.

Of a retrieval run it holds the ranks of the targets instead.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import polars as pl

from recsys.core.durable import replaced_file
from recsys.core.errors import ArtifactError
from recsys.data.contract.parquet import read_metadata, read_parquet, write_frame
from recsys.data.contract.schema import Split, Task
from recsys.evaluation.identity import CheckpointUsed
from recsys.evaluation.paired import TaskPredictions

PREDICTIONS = "predictions"

#: Key of the Parquet metadata that names the checkpoint.
CHECKPOINT = "checkpoint"

#: How many events a request's two timelines held.
HISTORY_COLUMNS = ("explicit_events", "implicit_events")


def predictions_path(run_dir: Path, split: Split) -> Path:
    """Where the predictions of a split lie."""
    return run_dir / PREDICTIONS / f"{split}.parquet"


def write_predictions(
    run_dir: Path, split: Split, frame: pl.DataFrame, used: CheckpointUsed
) -> None:
    """Write ``predictions/<split>.parquet`` in one step, with the checkpoint that made it."""
    path = predictions_path(run_dir, split)
    path.parent.mkdir(exist_ok=True)
    with replaced_file(path) as partial:
        write_frame(partial, frame, {CHECKPOINT: json.dumps(asdict(used))})


def read_predictions(run_dir: Path, split: Split) -> pl.DataFrame:
    """The predictions, or of a retrieval run the ranks, of a split.

    Raises:
        ArtifactError: they are not there or cannot be read.
    """
    path = predictions_path(run_dir, split)
    if not path.is_file():
        raise ArtifactError(
            f"{path} is not there; make it with `recsys evaluate run_dir={run_dir} split={split}`."
        )
    try:
        return read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(
            f"{path} is damaged ({error}); delete it and run `recsys evaluate` again."
        ) from error


def predicted_by(run_dir: Path, split: Split) -> CheckpointUsed | None:
    """The checkpoint that made the predictions; None where there are none or it is not known."""
    path = predictions_path(run_dir, split)
    if not path.is_file():
        return None
    try:
        used = read_metadata(path).get(CHECKPOINT)
    except pl.exceptions.PolarsError:
        return None
    return None if used is None else CheckpointUsed(**json.loads(used))


def task_predictions(
    frame: pl.DataFrame, task: Task, column: str = "prediction"
) -> TaskPredictions:
    """One task of a predictions file; ``column`` may also be one of the truths."""
    return TaskPredictions(
        row_id=frame["row_id"].to_numpy(),
        user=frame["user"].to_numpy(),
        labels=frame[task.column].to_numpy(),
        predictions=frame[f"{column}_{task.name}"].to_numpy(),
        kind=task.kind,
    )

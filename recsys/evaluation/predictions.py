"""Predictions of a run on the rows of a split: one Parquet file that every comparison reads.

Of a retrieval run it holds the ranks of the targets instead. A JSON file beside it has its checksum
and names the checkpoint that made it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from recsys.core.checksums import FileMark
from recsys.core.durable import replaced_file
from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.parquet import read_parquet, write_frame
from recsys.data.contract.schema import Split, Task
from recsys.evaluation.identity import CheckpointUsed, RunIdentity
from recsys.evaluation.paired import TaskPredictions

PREDICTIONS = "predictions"

_KIND = "description of predictions"

#: How many events a request's two timelines held.
HISTORY_COLUMNS = ("explicit_events", "implicit_events")


def predictions_path(run_dir: Path, split: Split) -> Path:
    """Where the predictions of a split lie."""
    return run_dir / PREDICTIONS / f"{split}.parquet"


def write_predictions(run: RunIdentity, split: Split, frame: pl.DataFrame) -> None:
    """Write ``predictions/<split>.parquet``, and beside it the checkpoint that made it."""
    path = predictions_path(run.folder, split)
    path.parent.mkdir(exist_ok=True)
    with replaced_file(path) as partial:
        write_frame(partial, frame)
        mark = FileMark.of(partial)
    content = {"file": asdict(mark), "checkpoint": asdict(run.checkpoint), "data": run.data}
    write_json(path.with_suffix(".json"), _KIND, content)


def read_predictions(run_dir: Path, split: Split) -> pl.DataFrame:
    """The predictions, or of a retrieval run the ranks, of a split.

    Raises:
        ArtifactError: they are not there or are not what was written.
    """
    path = predictions_path(run_dir, split)
    if not path.is_file():
        raise ArtifactError(
            f"{path} is not there; make it with `recsys evaluate run_dir={run_dir} split={split}`."
        )
    _described(path)
    return read_parquet(path)


def predicted_by(run_dir: Path, split: Split) -> CheckpointUsed | None:
    """The checkpoint that made the predictions; None where there are none.

    Raises:
        ArtifactError: they are not what was written.
    """
    path = predictions_path(run_dir, split)
    return CheckpointUsed(**_described(path)["checkpoint"]) if path.is_file() else None


def measured_on(run_dir: Path, split: Split) -> str | None:
    """The fingerprint of the data set that the rows of the predictions are of, or None."""
    path = predictions_path(run_dir, split)
    return _described(path).get("data") if path.is_file() else None


def _described(path: Path) -> dict[str, Any]:
    """What lies beside a file of predictions, after they were compared with it."""
    mend = f"delete {path} and run `recsys evaluate` again."
    content = read_json(path.with_suffix(".json"), _KIND, ArtifactError, mend)
    if problem := FileMark(**content["file"]).problem(path):
        raise ArtifactError(f"{path} is damaged: it {problem}; {mend}")
    return content


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

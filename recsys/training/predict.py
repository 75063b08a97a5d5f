"""Predictions of a run on the rows of a split: one Parquet file that every comparison reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.data.batch import LENGTHS
from recsys.data.datamodule import RequestDataModule
from recsys.data.progress import track
from recsys.data.requests import TRUTHS, RequestStore
from recsys.data.schema import Split, Task
from recsys.errors import ArtifactError
from recsys.evaluation.paired import TaskPredictions
from recsys.training.load import CheckpointUsed, LoadedRun

FOLDER = "predictions"

#: Key of the Parquet metadata that names the checkpoint.
CHECKPOINT = "checkpoint"

#: How many events a request's two timelines held.
HISTORY_COLUMNS = ("explicit_events", "implicit_events")


def predictions_path(run_dir: Path, split: Split) -> Path:
    """Where the predictions of a split lie."""
    return run_dir / FOLDER / f"{split}.parquet"


def predict(run: LoadedRun[Any, Any], split: Split) -> pl.DataFrame:
    """Predict every row of a split and write ``predictions/<split>.parquet``.

    The file's metadata say which checkpoint made it, see :func:`predicted_by`.

    Returns:
        ``row_id``, ``user``, ``request_time``, ``item``, ``label_<task>``, ``prediction_<task>``,
        ``explicit_events``, ``implicit_events``, and where the source knows them
        ``best_absolute_<task>`` and ``best_within_reach_<task>``; in order of ``row_id``.
    """
    data = RequestDataModule(run.config.loader, run.dataset)
    row_ids, predictions, histories = [], [], []
    with torch.inference_mode():
        for index, batch in enumerate(
            track(data.loader(split, shuffle=False), f"Predicting {split}")
        ):
            output = run.model.predict_step(batch, index)
            row_ids.append(output["row_id"].numpy())
            predictions.append(output["predictions"].numpy())
            lengths = [batch.explicit[LENGTHS], batch.implicit[LENGTHS]]
            histories.append(torch.stack(lengths, dim=1)[batch.request_index].numpy())
    row_id = np.concatenate(row_ids)
    frame = _frame(
        run.dataset.requests(split),
        run.manifest.tasks,
        row_id,
        np.concatenate(predictions),
        np.concatenate(histories),
    )
    write_predictions(run, split, frame)
    return frame


def write_predictions(run: LoadedRun[Any, Any], split: Split, frame: pl.DataFrame) -> None:
    """Write ``predictions/<split>.parquet`` in one step, with the checkpoint that made it."""
    path = predictions_path(run.folder, split)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    used = json.dumps(asdict(run.checkpoint_used))
    frame.write_parquet(temporary, metadata={CHECKPOINT: used})
    temporary.replace(path)


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
        return pl.read_parquet(path)
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
        used = pl.read_parquet_metadata(path).get(CHECKPOINT)
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


def _frame(
    store: RequestStore,
    tasks: tuple[Task, ...],
    row_id: np.ndarray,
    predictions: np.ndarray,
    histories: np.ndarray,
) -> pl.DataFrame:
    order = np.argsort(row_id)
    row_id, predictions, histories = row_id[order], predictions[order], histories[order]
    request = np.searchsorted(store.offsets, row_id, side="right") - 1
    columns: dict[str, np.ndarray] = {
        "row_id": row_id,
        "user": store.user[request],
        "request_time": store.request_time[request],
        "item": store.item[row_id],
    }
    columns |= {name: histories[:, side] for side, name in enumerate(HISTORY_COLUMNS)}
    for position, task in enumerate(tasks):
        columns[task.column] = store.labels[row_id, position]
        columns[f"prediction_{task.name}"] = predictions[:, position]
    for truth in TRUTHS:
        values = getattr(store, truth)
        if values is not None:
            for position, task in enumerate(tasks):
                columns[f"{truth}_{task.name}"] = values[row_id, position]
    return pl.DataFrame(columns)

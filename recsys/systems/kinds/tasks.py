"""Systems that predict the tasks of logged rows: what was shown, and what users did with it."""

from __future__ import annotations

from typing import Any, Generic

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.core.progress import track
from recsys.data.batches.context import Context
from recsys.data.contract.schema import LENGTHS, MILLISECONDS_PER_HOUR, Split, Task
from recsys.data.loaders.requests import RequestDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.requests import TRUTHS, RequestStore
from recsys.evaluation.baselines.tasks import predict_baselines
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.predictions import HISTORY_COLUMNS, write_predictions
from recsys.evaluation.protocol import LOGGED_IMPRESSIONS
from recsys.evaluation.tasks import Control, evaluate_tasks
from recsys.reports.task_baselines import print_baselines
from recsys.reports.task_tables import print_evaluation
from recsys.runs.load import LoadedRun
from recsys.runs.system import Config, MeasuredRows
from recsys.systems.base import System


class TaskSystem(System[Config], Generic[Config]):
    """A system whose model gives a prediction per row and task.

    Its run configuration has a ``loader`` (``LoaderConfig``); its model's ``predict_step`` gives
    ``row_id`` [R] and ``predictions`` [R, K] of a ``RequestBatch``.
    """

    monitor = Monitor("val/ne/mean")
    compared = True

    def measured(self, config: Config, dataset: PreparedDataset, split: Split) -> MeasuredRows:
        """Every row of the split."""
        requests = dataset.requests(split)
        return MeasuredRows(requests.num_rows, len(np.unique(requests.user)), LOGGED_IMPRESSIONS)

    def evaluate(
        self, run: LoadedRun[Any, Any], config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """NE, AUC and calibration of every task, beside baselines and against the other run."""
        split = Split(config.split)
        frame = predict(run, split)
        gap = round(run.config.loader.gap_hours * MILLISECONDS_PER_HOUR)
        beside = predict_baselines(run.dataset, split, gap, config.baselines, config.boosting)
        return evaluate_tasks(run.identity, run.manifest, frame, beside, config, control)

    def score(
        self,
        run: LoadedRun[Any, Any],
        user: int,
        item: NDArray[np.int64],
        moment: int,
        context: Context = None,
    ) -> dict[str, NDArray[np.float64]]:
        """The prediction of every task: a probability, or a number of a regression task."""
        if not len(item):  # TorchRec looks nothing up for no row
            return {task.name: np.empty(0) for task in run.manifest.tasks}
        reader = RequestDataModule(run.config.loader, run.dataset).reader
        one = np.array([user]), np.array([moment]), np.array([len(item)])
        with torch.inference_mode():
            found = run.model.predict_step(reader.given(*one, item, context), 0)["predictions"]
        return {
            task.name: found[:, position].double().numpy()
            for position, task in enumerate(run.manifest.tasks)
        }

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per task, and a line per baseline."""
        print_evaluation(metrics, config)
        print_baselines(metrics, config)


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
    write_predictions(run.folder, split, frame, run.checkpoint)
    return frame


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

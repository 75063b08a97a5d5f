"""Systems that predict the tasks of logged rows: what was shown, and what users did with it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.core.progress import track
from recsys.data.batches.given_rows import GivenRows, packs
from recsys.data.batches.hour_of_day import with_hour
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split, Task
from recsys.data.loaders.requests import RowDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.requests import TRUTHS, RequestStore
from recsys.data.stores.vocabulary import INDEX
from recsys.evaluation.baselines.tasks import predict_baselines
from recsys.evaluation.calibration import Calibration
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.division import gathered, once, own_share, watched
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.predictions import HISTORY_COLUMNS, write_predictions
from recsys.evaluation.protocol import LOGGED_IMPRESSIONS
from recsys.evaluation.tasks import Control, evaluate_tasks
from recsys.index.catalogue import Catalogue
from recsys.reports.task_baselines import print_baselines
from recsys.reports.task_tables import print_evaluation
from recsys.runs.load import LoadedRun
from recsys.runs.system import Config, MeasuredRows
from recsys.serving.pipeline import StepUsers
from recsys.serving.recommend import Recommender
from recsys.serving.stages.embed import TimelineLengths
from recsys.serving.stages.search import BestScores
from recsys.systems.base import System, refuse_undefined
from recsys.systems.kinds.known_items import known_items
from recsys.systems.sizing import Extent, Given, Sized, power_of_two, schedule

#: Requests and rows that are scored at a time.
_REQUESTS_AT_A_TIME, _ROWS_AT_A_TIME = 32, 256
#: Of more rows the progress is shown.
_MANY = 20_000


class TaskSystem(System[Config], Generic[Config]):
    """A system whose model gives a prediction per row and task.

    Its run configuration has a ``loader`` (``LoaderConfig``); its model's ``predict_step`` gives
    ``row_id`` [R] and ``predictions`` [R, K] of a ``RequestBatch``.
    """

    monitor = Monitor("val/ne/mean")
    compared = True
    takes_context = True

    def sized(self, config: Config, dataset: PreparedDataset, given: Given) -> list[Sized]:
        """Batches of about 512 rows."""
        requests = dataset.requests(Split.FIT)
        rows = requests.num_rows / max(len(requests), 1)
        largest = min(max(power_of_two(512 / rows), 16), 256)
        extent = Extent(16, largest, steps_an_epoch=200, total_steps=1_000, most_epochs=3)
        key = "loader.batch_requests"
        return schedule(extent, len(requests), "requests", key, 50, config.num_processes, given)

    @abstractmethod
    def data(self, config: Config, dataset: PreparedDataset) -> RowDataModule[Any]:
        """What reads the rows of a run."""

    def measured(self, config: Config, dataset: PreparedDataset, split: Split) -> MeasuredRows:
        """Every row of the split."""
        requests = dataset.requests(split)
        return MeasuredRows(requests.num_rows, len(np.unique(requests.user)), LOGGED_IMPRESSIONS)

    def evaluate(
        self, run: LoadedRun[Any, Any], config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """NE, AUC and calibration of every task, beside baselines and against the other run."""
        split = Split(config.split)
        frame = self.predict(run, split)
        calibration = self.calibration(run) if split is Split.REPORT else None

        def measured() -> Metrics:
            gap = round(run.config.loader.gap_hours * MILLISECONDS_PER_HOUR)
            beside = predict_baselines(run.dataset, split, gap, config.baselines, config.boosting)
            return evaluate_tasks(
                run.identity, run.manifest, frame, beside, config, control, calibration
            )

        return once(measured)

    def calibration(self, run: LoadedRun[Any, Any]) -> Calibration | None:
        """What the predictions of tasks go through, fitted on choose; None where nothing does."""
        return None

    def score(self, run: LoadedRun[Any, Any], rows: GivenRows) -> dict[str, NDArray[np.float64]]:
        """The prediction of every task: a probability, or a number of a regression task.

        Probabilities are calibrated where the system calibrates.
        """
        rows = with_hour(rows, run.dataset.manifest)
        reader = self.data(run.config, run.dataset).reader
        found = np.empty((len(rows), len(run.manifest.tasks)))
        several = list(packs(rows.requests, _REQUESTS_AT_A_TIME, _ROWS_AT_A_TIME))
        with torch.inference_mode():
            for pack in track(several, "Scoring") if len(rows) > _MANY else several:
                item, context = rows.item[pack.row], rows.context_of(pack.row)
                batch = reader.given(pack.user, pack.moment, pack.rows_per_request, item, context)
                predicted = run.model.predict_step(batch, 0)["predictions"]
                found[pack.row[: pack.real]] = predicted[: pack.real].double().numpy()
        refuse_undefined(run, found)
        if (calibration := self.calibration(run)) is not None:
            found = calibration.apply(found)
        return {task.name: found[:, number] for number, task in enumerate(run.manifest.tasks)}

    def check_request(self, run: LoadedRun[Any, Any], has_only: bool, task: str | None) -> None:
        """It ranks items that are named: what a user does with an item that he is shown."""
        names = [one.name for one in run.manifest.tasks]
        if task is not None and task not in names:
            raise ConfigError(
                f"{run.folder} predicts no task {task}; task= is one of {', '.join(names)}."
            )
        if not has_only:
            raise ConfigError(
                f"{run.folder} is a run of {self.name}, which predicts what users do with an item "
                "that they are shown, so it ranks items that are named: give them as "
                "only=items.csv (item_id), or train sequence, nxtpost or wide_and_deep, which "
                "choose among all items."
            )

    def recommender(
        self, run: LoadedRun[Any, Any], moment: int, task: str | None = None
    ) -> Recommender:
        """By the prediction of a task for each item that is named."""
        known = known_items(run, None, moment)
        catalogue = Catalogue.of(known.drop(INDEX))
        indices = known[INDEX].cast(pl.Int64).to_numpy()
        ranked_by = task or run.manifest.tasks[0].name

        def score(users: StepUsers, slots: NDArray[np.int64]) -> NDArray[np.float64]:
            user = np.repeat(users.indices, len(slots))
            item = np.tile(indices[slots], len(users))
            rows = GivenRows(user, item, np.full(len(user), users.moment))
            return self.score(run, rows)[ranked_by].reshape(len(users), len(slots))

        reader = self.data(run.config, run.dataset).reader
        return Recommender(
            catalogue,
            run.dataset,
            TimelineLengths(reader),
            lambda k: BestScores(catalogue, k, score),
        )

    def predict(self, run: LoadedRun[Any, Any], split: Split) -> pl.DataFrame:
        """Predict every row of a split and write ``predictions/<split>.parquet``.

        The file's metadata say which checkpoint made it, see :func:`predicted_by`.

        Returns:
            ``row_id``, ``user``, ``request_time``, ``item``, ``label_<task>``,
            ``prediction_<task>``, ``explicit_events``, ``implicit_events``, and where the source
            knows them ``best_absolute_<task>`` and ``best_within_reach_<task>``; in order of
            ``row_id``. Of the split report, which calibration never looks at, also
            ``calibrated_<task>`` where the system calibrates.
        """
        frame = self.predicted(run, self.data(run.config, run.dataset), split)
        if split is Split.REPORT and (calibration := self.calibration(run)) is not None:
            frame = calibration.with_columns(frame)
        once(lambda: write_predictions(run.identity, split, frame))
        return frame

    def predicted(
        self, run: LoadedRun[Any, Any], data: RowDataModule[Any], split: Split
    ) -> pl.DataFrame:
        """What :meth:`predict` writes of the model alone, of rows as ``data`` reads them."""

        def predict(batch: Any) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
            output = run.model.predict_step(batch, 0)
            histories = batch.events[batch.request_index].numpy()
            return output["row_id"].numpy(), output["predictions"].numpy(), histories

        batches = data.reading(split, own_share(data.batches(split)))
        with torch.inference_mode():
            mine = [predict(batch) for batch in watched(batches, f"Predicting {split}")]
        row_id, predictions, histories = map(np.concatenate, zip(*gathered(mine), strict=True))
        return _frame(
            run.dataset.requests(split), run.manifest.tasks, row_id, predictions, histories
        )

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per task, and a line per baseline."""
        print_evaluation(metrics, config)
        print_baselines(metrics, config)


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

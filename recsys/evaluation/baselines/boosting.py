"""Gradient-boosted trees on counts, by LightGBM: the strong one among the cheap baselines.

Legend: R rows, K tasks, F features.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.core.progress import track
from recsys.data.contract.schema import Split, Task, TaskKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.baselines.config import BoostingConfig
from recsys.evaluation.baselines.counts import AskedCounts, CountFeatures
from recsys.evaluation.baselines.rows import Rows
from recsys.evaluation.row_losses import cross_entropy, squared_error

#: The extra of the installation that brings LightGBM.
EXTRA = "boosting"

#: Rows that are predicted at a time.
_BLOCK = 500_000
#: A leaf has at least so much of Σ p (1 − p), for rare labels about as many positives: with fewer,
#: its value is noise, which a rare task does not recover from.
_LEAF_WEIGHT = 10.0

_OBJECTIVES = {TaskKind.BINARY: "binary", TaskKind.REGRESSION: "regression"}


def is_installed() -> bool:
    """Whether there is a LightGBM."""
    return importlib.util.find_spec("lightgbm") is not None


def boosted_counts(
    dataset: PreparedDataset, split: Split, gap_ms: int, config: BoostingConfig
) -> NDArray[np.float64]:
    """Predictions of the rows of a split, [R, K]: probabilities, or means of regression tasks.

    A model per task is trained on fit rows and stops on choose rows. A task whose fit labels are
    all the same, or whose trees are no better than the fit mean on the choose rows, is predicted by
    that mean; NaN where it has none.

    Args:
        dataset: the prepared data set.
        split: ``choose`` or ``report``.
        gap_ms: between what is counted and a request, as between a history and a request.
        config: size of the models, and rows they are trained on.
    """
    counts = CountFeatures(dataset, gap_ms)
    fit, choose = (
        _Examples.of(counts, Rows.of(dataset, one).spread(config.rows))
        for one in (Split.FIT, Split.CHOOSE)
    )
    tasks = list(enumerate(dataset.manifest.tasks))
    models = [
        _trained(task, position, fit, choose, config)
        for position, task in track(tasks, "Training LightGBM on counts")
    ]
    rows = Rows.of(dataset, split)
    predictions = np.tile(counts.mean, (len(rows), 1))
    for first in range(0, len(rows), _BLOCK):
        block = slice(first, first + _BLOCK)
        examples = _Examples.of(counts, rows.at(block))
        for task, model in enumerate(models):
            if model is not None:
                predictions[block, task] = model.predict(
                    examples.features(task), num_threads=torch.get_num_threads()
                )
    return predictions


@dataclass(frozen=True, eq=False)
class _Examples:
    """Features and labels of some rows.

    Attributes:
        asked: counts of the rows.
        shared: [R, S] the features of all tasks.
        categorical: which of them are indices without an order.
        labels: [R, K].
    """

    asked: AskedCounts
    shared: NDArray[np.float32]
    categorical: list[int]
    labels: NDArray[np.float32]

    @classmethod
    def of(cls, counts: CountFeatures, rows: Rows) -> _Examples:
        """The examples of some rows."""
        asked = counts.asked(rows)
        columns = asked.shared()
        names = list(columns)
        categorical = [names.index(name) for name in asked.categorical()]
        return cls(asked, np.stack(list(columns.values()), axis=1), categorical, rows.labels)

    def features(self, task: int) -> NDArray[np.float32]:
        """[R, F] of a task."""
        own = [column[:, None] for column in self.asked.of_task(task).values()]
        return np.concatenate([self.shared, *own], axis=1)


def _trained(
    task: Task, position: int, fit: _Examples, choose: _Examples, config: BoostingConfig
) -> Any | None:
    """The model of a task; None where there is none that is better than the fit mean."""
    # an extra of the installation
    import lightgbm

    known = [~np.isnan(one.labels[:, position]) for one in (fit, choose)]
    labels = [one.labels[of, position] for one, of in zip((fit, choose), known, strict=True)]
    if not len(labels[0]) or (labels[0] == labels[0][0]).all():
        return None
    parameters = {
        "objective": _OBJECTIVES[task.kind],
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_sum_hessian_in_leaf": _LEAF_WEIGHT,
        "feature_fraction": 0.3,
        "max_bin": 63,
        "seed": config.seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": torch.get_num_threads(),
        "verbose": -1,
    }
    data = lightgbm.Dataset(
        fit.features(position)[known[0]],
        labels[0],
        categorical_feature=fit.categorical,
        params=parameters,
    )
    if not len(labels[1]):
        return lightgbm.train(parameters, data, config.trees)
    rows = choose.features(position)[known[1]]
    stop = data.create_valid(rows, labels[1])
    patience = lightgbm.early_stopping(config.patience, verbose=False)
    model = lightgbm.train(parameters, data, config.trees, valid_sets=[stop], callbacks=[patience])
    constant = np.full(len(rows), labels[0].mean(dtype=np.float64))
    found, without = (_loss(task, one, labels[1]) for one in (model.predict(rows), constant))
    return model if found < without else None


def _loss(task: Task, predictions: NDArray[np.float64], labels: NDArray[np.float32]) -> float:
    loss = cross_entropy if task.kind is TaskKind.BINARY else squared_error
    return loss(torch.from_numpy(predictions), torch.from_numpy(labels)).mean().item()

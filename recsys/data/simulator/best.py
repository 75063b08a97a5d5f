"""The best possible metrics of a simulated log, summed while it is written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import TaskKind
from recsys.data.simulator.config import TASKS

#: Sums kept per task: rows, labels, squared labels, loss of the absolute truth, loss within reach.
SUMS = 5


def loss_sums(
    labels: NDArray[np.float32], absolute: NDArray[np.float32], reach: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Sums over the rows of one chunk, [K, SUMS]; rows without a label do not count.

    The loss is the cross-entropy in nats for binary tasks and the squared error for watch time.

    Args:
        labels: [rows, K], NaN where not observed.
        absolute: [rows, K] true probability (mean) given every latent.
        reach: [rows, K] the same given what happened a gap before.
    """
    sums = np.zeros((len(TASKS), SUMS))
    for column, task in enumerate(TASKS):
        seen = ~np.isnan(labels[:, column])
        label = labels[seen, column].astype(np.float64)
        sums[column, :3] = len(label), label.sum(), (label**2).sum()
        for position, truth in ((3, absolute), (4, reach)):
            p = truth[seen, column].astype(np.float64)
            if task.kind is TaskKind.BINARY:
                p = np.clip(p, 1e-9, 1 - 1e-9)
                loss = -np.where(label == 1, np.log(p), np.log1p(-p))
            else:
                loss = (label - p) ** 2
            sums[column, position] = loss.sum()
    return sums


def best_metrics(sums: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Per task the rows, the mean label and the best metrics.

    Binary tasks: normalised entropy (DV365, equation 12: cross-entropy over the entropy of the
    mean label of the same rows; always answering the mean gives 1). Watch time: squared error,
    beside ``variance``, the error of always answering the mean.
    """
    result = {}
    for task, (rows, total, squares, absolute, reach) in zip(TASKS, sums, strict=True):
        if rows == 0 or total == 0:
            continue
        mean = total / rows
        values = {"rows": rows, "mean": mean}
        if task.kind is TaskKind.BINARY:
            entropy = -rows * (mean * np.log(mean) + (1 - mean) * np.log1p(-mean))
            values["best_absolute_ne"] = absolute / entropy
            values["best_within_reach_ne"] = reach / entropy
        else:
            values["variance"] = squares / rows - mean**2
            values["best_absolute_mse"] = absolute / rows
            values["best_within_reach_mse"] = reach / rows
        result[task.name] = {name: float(value) for name, value in values.items()}
    return result

"""The best possible metrics of a simulated log, summed while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import Task, TaskKind

#: What is summed of the labels: rows, labels, squared labels.
_OF_LABELS = 3

ABSOLUTE, WITHIN_REACH = "best_absolute", "best_within_reach"


class BestMetrics:
    """Sums over the rows of a split; rows without a label do not count.

    The loss is the cross-entropy in nats for binary tasks and the squared error for watch time.

    Args:
        tasks: the K tasks.
        truths: names of the truths whose losses are summed.
    """

    def __init__(self, tasks: Sequence[Task], truths: Sequence[str]) -> None:
        self._tasks, self._truths = tuple(tasks), tuple(truths)
        self._sums = np.zeros((len(tasks), _OF_LABELS + len(truths)))

    def add(self, labels: NDArray[np.float32], truths: Mapping[str, NDArray[np.float32]]) -> None:
        """Add the rows of one chunk.

        Args:
            labels: [rows, K], NaN where not observed.
            truths: per truth [rows, K], its probabilities (means).
        """
        sums = np.zeros_like(self._sums)
        for column, task in enumerate(self._tasks):
            seen = ~np.isnan(labels[:, column])
            label = labels[seen, column].astype(np.float64)
            sums[column, :_OF_LABELS] = len(label), label.sum(), (label**2).sum()
            for position, name in enumerate(self._truths, _OF_LABELS):
                p = truths[name][seen, column].astype(np.float64)
                if task.kind is TaskKind.BINARY:
                    p = np.clip(p, 1e-9, 1 - 1e-9)
                    loss = -np.where(label == 1, np.log(p), np.log1p(-p))
                else:
                    loss = (label - p) ** 2
                sums[column, position] = loss.sum()
        self._sums += sums

    def values(self) -> dict[str, dict[str, float]]:
        """Per task the rows, the mean label and the best metrics.

        Binary tasks: normalised entropy (DV365, equation 12: cross-entropy over the entropy of the
        mean label of the same rows; always answering the mean gives 1). Watch time: squared error,
        beside ``variance``, the error of always answering the mean.
        """
        result = {}
        for task, (rows, total, squares, *losses) in zip(self._tasks, self._sums, strict=True):
            if rows == 0 or total == 0:
                continue
            mean = total / rows
            values = {"rows": rows, "mean": mean}
            if task.kind is TaskKind.BINARY:
                scale, suffix = -rows * (mean * np.log(mean) + (1 - mean) * np.log1p(-mean)), "ne"
            else:
                values["variance"] = squares / rows - mean**2
                scale, suffix = rows, "mse"
            for name, loss in zip(self._truths, losses, strict=True):
                values[f"{name}_{suffix}"] = loss / scale
            result[task.name] = {name: float(value) for name, value in values.items()}
        return result

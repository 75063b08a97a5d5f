"""NE and MSE of several scorers on the same rows, from the same draws of users.

Legend: R rows, U users, K tasks, S scorers, N draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.row_losses import cross_entropy, entropy, squared_error

#: Comparisons before the task: the change of a binary task's NE and of a regression task's MSE.
NE_DELTA, MSE_DELTA = "relative_ne_delta", "relative_mse_delta"

#: The mean over binary tasks, in the place of a task.
MEAN = "mean"


class MeasuredTogether:
    """Losses of several scorers, as they are and in every draw of users with replacement.

    A mean NE is that over the binary tasks whose labels define one, itself not defined where there
    is none. Draws in which one of these is not defined are left out of its interval.

    Args:
        user: [R] whose rows they are.
        labels: [R, K], NaN where not observed.
        predictions: by scorer [R, K].
        tasks: the tasks.
        bootstrap: how users are drawn.
    """

    def __init__(
        self,
        user: NDArray[np.integer],
        labels: NDArray,
        predictions: Mapping[str, NDArray],
        tasks: Sequence[Task],
        bootstrap: Bootstrap,
    ) -> None:
        self._tasks = tuple(tasks)
        self._bootstrap = bootstrap
        self._binary = np.array([task.kind is TaskKind.BINARY for task in tasks], dtype=bool)
        users, self._user_of = np.unique(user, return_inverse=True)
        self._users = len(users)
        per_user = self._per_user(labels, predictions)
        sums = per_user.sum(axis=0, keepdims=True)
        whole, measurable = self._values(sums)
        drawn, _ = self._values(bootstrap.sums(per_user))
        self._in_mean = self._binary & measurable[0]
        # by scorer the NE or MSE of each task, [1, K] and [N, K]
        self._whole = dict(zip(predictions, whole, strict=True))
        self._drawn = dict(zip(predictions, drawn, strict=True))

    def measured(self, scorer: str) -> dict[str, Interval]:
        """``ne/<task>``, ``mse/<task>`` and, where there is a binary task, ``ne/mean``."""
        found = {}
        for position, task in enumerate(self._tasks):
            metric = "ne" if self._binary[position] else "mse"
            values = self._whole[scorer][:, position], self._drawn[scorer][:, position]
            found[f"{metric}/{task.name}"] = self._interval(*values)
        if self._binary.any():
            found[f"ne/{MEAN}"] = self._interval(*self._means(scorer))
        return found

    def changes(self, scorer: str, other: str) -> dict[str, Interval]:
        """``relative_ne_delta/<task>`` (``relative_mse_delta``) and the same of the mean NE.

        In percent of the other's; below 0 where the scorer is better.
        """
        found = {}
        for position, task in enumerate(self._tasks):
            name = NE_DELTA if self._binary[position] else MSE_DELTA
            pairs = zip(
                self._of_task(scorer, position), self._of_task(other, position), strict=True
            )
            found[f"{name}/{task.name}"] = self._interval(*(_change(*pair) for pair in pairs))
        pairs = zip(self._means(scorer), self._means(other), strict=True)
        found[f"{NE_DELTA}/{MEAN}"] = self._interval(*(_change(*pair) for pair in pairs))
        return found

    def gain_of_mean(self, without: str, scorer: str, best: str) -> Interval:
        """``(NE_without − NE) / (NE_without − NE_best)`` of the mean NEs.

        Not defined where the best is no better than the scorer without.
        """
        shares = []
        means = (self._means(name) for name in (without, scorer, best))
        for control, run, reachable in zip(*means, strict=True):
            possible = control - reachable
            with np.errstate(divide="ignore", invalid="ignore"):
                shares.append(np.where(possible > 0, (control - run) / possible, np.nan))
        return self._interval(*shares)

    def _per_user(self, labels: NDArray, predictions: Mapping[str, NDArray]) -> NDArray[np.float64]:
        """Rows, labels, and losses of each scorer, summed by user, [U, K · (2 + S)]."""
        columns: list[list[NDArray[np.float64]]] = [[] for _ in range(2 + len(predictions))]
        for position, is_binary in enumerate(self._binary):
            known = ~np.isnan(labels[:, position])
            label = torch.from_numpy(labels[known, position])
            loss = cross_entropy if is_binary else squared_error
            scores = (torch.from_numpy(one[known, position]) for one in predictions.values())
            losses = (loss(score, label).numpy() for score in scores)
            values = (np.ones(len(label)), label.double().numpy(), *losses)
            for column, value in zip(columns, values, strict=True):
                summed = np.bincount(self._user_of[known], value, self._users)
                column.append(summed.astype(np.float64, copy=False))
        return np.stack([one for column in columns for one in column], axis=1)

    def _values(self, sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """NE or MSE by scorer, [S, n, K], of sums [n, K · (2 + S)]; where labels define one."""
        rows, positives, *losses = np.split(sums, sums.shape[1] // len(self._tasks), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = torch.from_numpy(np.where(self._binary, positives / rows, np.nan))
            bits = entropy(rates).numpy()
            scale = np.where(self._binary, np.where(bits > 0, bits, np.nan), 1.0)
            return np.stack([loss / rows / scale for loss in losses]), bits > 0

    def _of_task(
        self, scorer: str, position: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._whole[scorer][:, position], self._drawn[scorer][:, position]

    def _means(self, scorer: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[1] and [N]: over the binary tasks whose labels define an NE."""
        if not self._in_mean.any():
            return np.full(1, np.nan), np.full(len(self._drawn[scorer]), np.nan)
        parts = self._whole[scorer], self._drawn[scorer]
        whole, drawn = (part[:, self._in_mean].mean(axis=1) for part in parts)
        return whole, drawn

    def _interval(self, whole: NDArray[np.float64], drawn: NDArray[np.float64]) -> Interval:
        return self._bootstrap.interval(float(whole[0]), drawn)


def _change(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * (ours - theirs) / theirs

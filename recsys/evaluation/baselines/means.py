"""Means of the fit labels as predictions: of all rows, and smoothed by user, item, and pairs.

Legend: R rows, K tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.baselines.rows import GROUPS, NO_KEY, Rows

#: A mean counts for as much as so many observed rows before any was seen.
PRIOR_ROWS = 10


class FitMeans:
    """Predictions from the labels of the fit rows: probabilities, and means of regression tasks.

    With n observed rows of a group and a prior of its own, ``(Σ label + 10 · prior) / (n + 10)``.
    The prior of a user's, item's, author's or topic's mean is the mean of all rows; that of a pair
    of user and author (topic, item) is the user's mean, so it stands where they never met.

    Args:
        fit: the fit rows.
        sizes: number of indices by id column.
    """

    def __init__(self, fit: Rows, sizes: dict[str, int]) -> None:
        self.fit = fit
        self.sizes = sizes
        self.mean = observed_mean(fit.labels)  # [K]

    def all_rows(self, rows: Rows) -> NDArray[np.float64]:
        """The mean of all fit rows, [R, K]; NaN for a task without an observed label."""
        return np.tile(self.mean, (len(rows), 1))

    def by(self, group: str, rows: Rows) -> NDArray[np.float64]:
        """The smoothed mean of each row's group, [R, K].

        Args:
            group: a name of ``GROUPS``.
            rows: what is predicted.
        """
        parts = GROUPS[group]
        prior = self.by(parts[0], rows) if len(parts) > 1 else self.all_rows(rows)
        known = self.fit.keys(group, self.sizes)
        keys, group_of = np.unique(known, return_inverse=True)
        asked = rows.keys(group, self.sizes)
        place = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
        met = (keys[place] == asked) & (asked != NO_KEY) if len(keys) else asked < NO_KEY
        for task in range(prior.shape[1]):
            labels = self.fit.labels[:, task]
            observed = ~np.isnan(labels)
            of = group_of[observed]
            sums = np.bincount(of, labels[observed], len(keys))
            count = np.bincount(of, minlength=len(keys))
            known_sums, known_count = sums[place[met]], count[place[met]]
            prior[met, task] = smoothed(known_sums, known_count, prior[met, task])
        return prior


def smoothed(
    sums: NDArray, count: NDArray, prior: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """``(sums + 10 · prior) / (count + 10)``, all [R]."""
    means: NDArray[np.float64] = (sums + PRIOR_ROWS * prior) / (count + PRIOR_ROWS)
    return means


def observed_mean(labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of each column without its NaN, [R, K] → [K]; NaN for one without any number."""
    means = [column[~np.isnan(column)].astype(np.float64) for column in labels.T]
    return np.array([column.mean() if len(column) else np.nan for column in means])

"""Comparisons of two runs on identical rows, with bootstrap intervals over users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.core.bounds import Number, Seed, Settings
from recsys.core.errors import DataError
from recsys.data.contract.schema import TaskKind
from recsys.evaluation.row_losses import cross_entropy, squared_error

#: Memory for how often each unit was drawn, in several draws at a time.
_DRAWN_BYTES = 32 * 2**20


@dataclass(frozen=True)
class TaskPredictions:
    """Predictions of one task on the rows of a split.

    Attributes:
        row_id: [R] int64, position of the row in its split.
        user: [R], index of the row's user.
        labels: [R], NaN where not observed.
        predictions: [R], probabilities, or seconds for a regression task.
        kind: of the task.
    """

    row_id: NDArray[np.int64]
    user: NDArray[np.int64]
    labels: NDArray[np.float64]
    predictions: NDArray[np.float64]
    kind: TaskKind = TaskKind.BINARY


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval.

    Attributes:
        value: the estimate on all rows.
        low: lower end.
        high: upper end.
        confidence: share of resamples between the two ends.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True)
class Bootstrap(Settings):
    """How intervals are made: whole users, or all queries of an item, are drawn with replacement.

    Attributes:
        resamples: number of draws.
        confidence: share of resamples inside the interval.
        seed: of the draws.
    """

    resamples: Annotated[int, Number(at_least=1, at_most=1_000_000)] = 1000
    confidence: Annotated[float, Number(above=0, below=1)] = 0.95
    seed: Seed = 0

    def sums(self, per_unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Totals over drawn units (users or items), [units, columns] → [resamples, columns].

        NaN where there is one unit alone: it says nothing of how others would differ.
        """
        if len(per_unit) == 1:
            return np.full((self.resamples, per_unit.shape[1]), np.nan)
        return np.concatenate([times @ per_unit for times in self._drawn(len(per_unit))])

    def quantiles(
        self, values: NDArray[np.float64], unit: NDArray[np.int64], units: int, level: float
    ) -> NDArray[np.float64]:
        """The quantile of values over drawn units, [resamples]; NaN where there is one alone.

        Args:
            values: [n].
            unit: [n] whose each is, from 0.
            units: so many there are.
            level: share of the values that do not exceed it.
        """
        if units == 1 or not len(values):
            return np.full(self.resamples, np.nan)
        order = np.argsort(values, kind="stable")
        found = []
        for times in self._drawn(units, len(values)):
            reached = np.cumsum(times[:, unit[order]], axis=1)
            found.append(values[order[(reached < level * reached[:, -1:]).sum(axis=1)]])
        return np.concatenate(found)

    def _drawn(self, units: int, width: int = 0) -> Iterator[NDArray[np.float64]]:
        """How often each unit was drawn, [draws, units], some draws at a time."""
        generator = np.random.default_rng(self.seed)
        at_a_time = max(_DRAWN_BYTES // (8 * max(units, width, 1)), 1)
        for first in range(0, self.resamples, at_a_time):
            draws = min(at_a_time, self.resamples - first)
            times = np.empty((draws, units))
            for draw in range(draws):
                times[draw] = np.bincount(generator.integers(0, units, units), minlength=units)
            yield times

    def interval(self, value: float, draws: NDArray[np.float64]) -> Interval:
        """Percentile interval of the defined draws around ``value``; NaN where there is none.

        All of it is NaN where the value itself is not defined: draws that leave out the rows that
        cannot be measured say nothing of the estimate.
        """
        draws = draws[np.isfinite(draws)]
        if not np.isfinite(value):
            return Interval(np.nan, np.nan, np.nan, self.confidence)
        if not len(draws):
            return Interval(value, np.nan, np.nan, self.confidence)
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Interval(value, float(low), float(high), self.confidence)


def relative_delta(
    test: TaskPredictions, control: TaskPredictions, bootstrap: Bootstrap | None = None
) -> Interval:
    """``100 · (NE_test − NE_control) / NE_control`` in percent, the relative NE delta (DV365 §3);
    for a regression task the same with MSE.

    On identical rows both NEs have the same denominator, in the whole and in every resample, so
    it cancels and the delta is that of the summed losses.

    Raises:
        DataError: the two runs were not measured on the same rows, users or labels.
    """
    bootstrap = bootstrap or Bootstrap()
    per_user = _losses_per_user([test, control])

    def delta(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 100 * (sums[:, 0] - sums[:, 1]) / sums[:, 1]

    value = delta(per_user.sum(axis=0, keepdims=True))[0]
    return bootstrap.interval(float(value), delta(bootstrap.sums(per_user)))


def captured_gain(
    without: TaskPredictions,
    with_timelines: TaskPredictions,
    best: TaskPredictions,
    bootstrap: Bootstrap | None = None,
) -> Interval:
    """Share of the possible gain: ``(NE_without − NE_with) / (NE_without − NE_best)``.

    ``best`` are true probabilities, known on simulated data: those within reach of a model with
    the gap, or the absolute ones. The NEs' common denominator cancels. Resamples in which the
    best is no better than the model without timelines define no share and are left out.

    Raises:
        DataError: the three were not measured on the same rows, users or labels.
    """
    bootstrap = bootstrap or Bootstrap()
    per_user = _losses_per_user([without, with_timelines, best])

    def share(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        possible = sums[:, 0] - sums[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(possible > 0, (sums[:, 0] - sums[:, 1]) / possible, np.nan)

    value = share(per_user.sum(axis=0, keepdims=True))[0]
    return bootstrap.interval(float(value), share(bootstrap.sums(per_user)))


def _losses_per_user(runs: list[TaskPredictions]) -> NDArray[np.float64]:
    """Summed row losses of each run by user, [users, runs], over rows with an observed label."""
    first, *others = [_sorted_by_row(run) for run in runs]
    for other in others:
        for name in ("row_id", "user", "labels"):
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours.shape != theirs.shape or not np.array_equal(
                ours, theirs, equal_nan=name == "labels"
            ):
                raise DataError(
                    f"The runs cannot be compared: their {name} differ ({len(ours)} against "
                    f"{len(theirs)} rows). Evaluate both on the same split of the same prepared "
                    "data set."
                )
    known = ~np.isnan(first.labels)
    users, position = np.unique(first.user[known], return_inverse=True)
    losses = [_row_losses(run)[known] for run in (first, *others)]
    return np.stack([np.bincount(position, loss, len(users)) for loss in losses], axis=1)


def _sorted_by_row(run: TaskPredictions) -> TaskPredictions:
    order = np.argsort(run.row_id, kind="stable")
    return replace(
        run,
        row_id=run.row_id[order],
        user=run.user[order],
        labels=run.labels[order],
        predictions=run.predictions[order],
    )


def _row_losses(run: TaskPredictions) -> NDArray[np.float64]:
    loss = cross_entropy if run.kind == TaskKind.BINARY else squared_error
    losses = loss(torch.as_tensor(run.predictions), torch.as_tensor(run.labels))
    return losses.numpy()

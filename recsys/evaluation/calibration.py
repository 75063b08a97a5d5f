"""Calibrating the predictions of tasks on the choose split, and how far off they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.schema import Split, Task, TaskKind
from recsys.evaluation.identity import CheckpointUsed
from recsys.nn.calibrators import Calibrators, Curve

CALIBRATION_FILE = "calibration.json"
#: Ways to calibrate.
METHODS = ("isotonic", "platt", "none")
#: Columns of calibrated predictions begin with it, and so do the names of their metrics.
CALIBRATED = "calibrated"
#: Bins of the expected calibration error, of equally many rows.
BINS = 15

_KIND = "calibration of a run"
_STEPS, _ENOUGH = 100, 1e-10
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Calibration:
    """The curves of a model's tasks.

    Attributes:
        method: ``isotonic`` or ``platt``.
        checkpoint: whose predictions were calibrated.
        data: fingerprint of the data set whose choose rows were looked at.
        rows: how many there were.
        curves: by task, in the order of the tasks.
        why: by task, why its predictions stay as they are; tasks that are calibrated are not named.
    """

    method: str
    checkpoint: CheckpointUsed
    data: str
    rows: int
    curves: dict[str, Curve]
    why: dict[str, str]

    def apply(self, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        """[R, K] predictions of the model → [R, K], binary tasks calibrated."""
        with torch.inference_mode():
            found: NDArray[np.float64] = self.module()(torch.tensor(predictions)).numpy()
        return found

    def module(self) -> Calibrators:
        """The same as a layer of an exported model."""
        return Calibrators(list(self.curves.values()))

    def with_columns(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame of predictions with ``calibrated_<task>`` beside each ``prediction_<task>``."""
        raw = frame.select(f"prediction_{name}" for name in self.curves).to_numpy()
        found = self.apply(np.ascontiguousarray(raw, np.float64))
        return frame.with_columns(
            pl.Series(f"{CALIBRATED}_{name}", found[:, column])
            for column, name in enumerate(self.curves)
        )

    def described(self) -> str:
        """How it was made, as part of a protocol."""
        return f"calibrated ({self.method}) on {self.rows} rows of the split {Split.CHOOSE}"

    def save(self, run_dir: Path) -> None:
        """Write ``calibration.json`` of a run folder."""
        write_json(run_dir / CALIBRATION_FILE, _KIND, asdict(self))

    @classmethod
    def read(cls, run_dir: Path) -> Calibration | None:
        """What lies in a run folder; None where nothing was calibrated yet.

        Raises:
            ArtifactError: the file is damaged.
        """
        path = run_dir / CALIBRATION_FILE
        if not path.is_file():
            return None
        content = read_json(path, _KIND, ArtifactError, "delete it, and it is made anew.")
        return cls.parsed(content)

    @classmethod
    def parsed(cls, content: Mapping[str, Any]) -> Calibration:
        """From what JSON holds."""
        curves = {name: _curve(one) for name, one in content["curves"].items()}
        checkpoint = CheckpointUsed(**content["checkpoint"])
        return cls(**{**content, "curves": curves, "checkpoint": checkpoint})


def calibrate(
    method: str,
    tasks: Sequence[Task],
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    checkpoint: CheckpointUsed,
    data: str,
) -> Calibration:
    """Fit a curve per binary task on rows of the choose split.

    Regression tasks stay as they are, and so do tasks without positives or without negatives
    among the rows, and those whose predictions are not all finite.

    Args:
        method: ``isotonic`` or ``platt``.
        tasks: K tasks.
        predictions: [R, K] of the model.
        labels: [R, K], NaN where not observed.
        checkpoint: of the model.
        data: fingerprint of the data set.
    """
    curves: dict[str, Curve] = {}
    why: dict[str, str] = {}
    for column, task in enumerate(tasks):
        there = ~np.isnan(labels[:, column])
        predicted, label = predictions[there, column], labels[there, column]
        if task.kind == TaskKind.BINARY and (reason := _unusable(predicted, label)):
            why[task.name] = reason
        if task.kind != TaskKind.BINARY or task.name in why:
            curves[task.name] = Curve()
        elif method == "platt":
            curves[task.name] = platt(predicted, label)
        else:
            curves[task.name] = isotonic(predicted, label)
    return Calibration(method, checkpoint, data, len(labels), curves, why)


def isotonic(predicted: NDArray[np.float64], label: NDArray[np.float64]) -> Curve:
    """The monotone curve nearest to the labels in squares (pool adjacent violators).

    Rows of the same prediction are one knot; between blocks the curve is linear. A lowest block
    without positives (a highest one with nothing else) of n rows gets 0.5 / (n + 1) instead of 0,
    at most what the next block has: a probability of 0 that is wrong once costs everything.

    Args:
        predicted: [R] probabilities.
        label: [R], at least one of them positive and one not.
    """
    # a tenth of a second, which those who calibrate nothing do not wait for
    from scipy.optimize import isotonic_regression

    at, place, rows = np.unique(predicted, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=label) / rows
    fitted = isotonic_regression(mean, weights=rows)
    first = np.asarray(fitted.blocks[:-1])
    last = np.asarray(fitted.blocks[1:]) - 1
    value = np.clip(fitted.x[first], 0.0, 1.0)
    weight = np.add.reduceat(rows, first)
    if len(value) > 1:
        value[0] = max(value[0], min(0.5 / (weight[0] + 1), value[1]))
        value[-1] = min(value[-1], max(1 - 0.5 / (weight[-1] + 1), value[-2]))
    knots = np.stack([at[first], at[last]], axis=1).ravel()
    values = np.repeat(value, 2)
    new = np.concatenate([[True], np.diff(knots) > 0])  # a block of one prediction is one knot
    return Curve("isotonic", tuple(knots[new].tolist()), tuple(values[new].tolist()))


def platt(predicted: NDArray[np.float64], label: NDArray[np.float64]) -> Curve:
    """The logit's slope and offset of the smallest cross-entropy (Platt, 1999), slope at least 0.

    The penalty ½ ((slope − 1)² + offset²), less than one row weighs, keeps both finite where the
    labels can be told apart without an error, and nothing changes where nothing is to be gained.

    Args:
        predicted: [R] probabilities.
        label: [R].
    """
    certain = np.clip(predicted, _SMALLEST, 1 - _SMALLEST)
    logit = np.log(certain) - np.log1p(-certain)
    found = _newton(np.stack([logit, np.ones_like(logit)], axis=1), label, np.array([1.0, 0.0]))
    if found[0] < 0:
        offset = _newton(np.ones((len(logit), 1)), label, np.array([0.0]))
        found = np.array([0.0, offset[0]])
    return Curve("platt", slope=float(found[0]), offset=float(found[1]))


def expected_calibration_error(
    predicted: NDArray[np.float64], label: NDArray[np.float64], bins: int = BINS
) -> float:
    """``Σ_b n_b / n · |mean prediction − mean label|`` over bins of equally many rows.

    Rows are in bins by rank; those of the same prediction are in one. NaN without rows, and where
    a prediction is not finite.

    Args:
        predicted: [R] probabilities.
        label: [R], NaN where not observed.
        bins: how many at most.
    """
    there = ~np.isnan(label)
    predicted, label = predicted[there], label[there]
    if not len(label) or not np.isfinite(predicted).all():
        return float("nan")
    order = np.sort(predicted)
    rank = np.searchsorted(order, predicted)  # of the first row with the same prediction
    gap = np.bincount(rank * bins // len(order), weights=predicted - label, minlength=bins)
    return float(np.abs(gap).sum() / len(order))


def calibration_errors(frame: pl.DataFrame, tasks: Sequence[Task], column: str) -> dict[str, float]:
    """``ece/<task>`` of the binary tasks of a predictions file; ``column`` as of ``measure``."""
    return {
        f"ece/{task.name}": expected_calibration_error(
            frame[f"{column}_{task.name}"].to_numpy().astype(np.float64),
            frame[task.column].to_numpy().astype(np.float64),
        )
        for task in tasks
        if task.kind == TaskKind.BINARY
    }


def _newton(
    columns: NDArray[np.float64], label: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic regression [R, P] → [P], with the penalty ½ |found − start|²; steps are halved
    until the loss falls.
    """

    def loss(weights: NDArray[np.float64]) -> float:
        score = columns @ weights
        apart = np.logaddexp(0, score) - label * score
        return float(apart.sum() + 0.5 * np.square(weights - start).sum())

    found, best = start, loss(start)
    for _ in range(_STEPS):
        probability = 0.5 * (1 + np.tanh(0.5 * (columns @ found)))
        slope = columns.T @ (probability - label) + found - start
        spread = probability * (1 - probability)
        curvature = (columns * spread[:, None]).T @ columns + np.eye(len(start))
        step = np.linalg.solve(curvature, slope)
        while (now := loss(found - step)) > best and np.abs(step).max() > _ENOUGH:
            step = step / 2
        if np.abs(step).max() <= _ENOUGH:
            break
        found, best = found - step, now
    return found


def _unusable(predicted: NDArray[np.float64], label: NDArray[np.float64]) -> str:
    """Why no curve can be fitted; empty where one can."""
    if not np.isfinite(predicted).all():
        return "its predictions are not all finite"
    if not (label > 0).any():
        return "no choose row is positive"
    if not (label < 1).any():
        return "every choose row is positive"
    return ""


def _curve(content: Mapping[str, Any]) -> Curve:
    lists = {name: tuple(content[name]) for name in ("knots", "values")}
    return Curve(**{**content, **lists})

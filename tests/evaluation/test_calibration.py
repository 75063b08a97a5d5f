"""Curves of calibration, and the error they are to lower, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError
from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.calibration import (
    CALIBRATION_FILE,
    Calibration,
    calibrate,
    expected_calibration_error,
    isotonic,
    platt,
)
from recsys.evaluation.identity import CheckpointUsed
from recsys.nn.calibrators import Calibrators, Curve

USED = CheckpointUsed("best.ckpt", "lowest val/ne/mean", 7)
CLICKED, WATCHED = Task("clicked", TaskKind.BINARY), Task("watched", TaskKind.REGRESSION)


def applied(curve: Curve, at: list[float]) -> list[float]:
    found = Calibrators([curve])(torch.tensor(at, dtype=torch.float64).unsqueeze(1))
    return found[:, 0].tolist()


def rows(*blocks: tuple[float, int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predictions and labels of blocks of (prediction, rows, positives)."""
    predicted = np.repeat([one[0] for one in blocks], [one[1] for one in blocks])
    labels = [np.arange(number) < positive for _, number, positive in blocks]
    return predicted, np.concatenate(labels).astype(np.float64)


def test_isotonic_pools_what_falls() -> None:
    # means 0.25, 0.75, 0.5 and 1: the middle two are pooled to 5 of 8, the last is 1 - 0.5 / 5
    curve = isotonic(*rows((0.1, 4, 1), (0.2, 4, 3), (0.4, 4, 2), (0.8, 4, 4)))
    assert curve.knots == (0.1, 0.2, 0.4, 0.8)
    assert curve.values == pytest.approx((0.25, 0.625, 0.625, 0.9))
    at = applied(curve, [0.05, 0.15, 0.3, 0.6, 0.9])
    assert at == pytest.approx([0.25, 0.4375, 0.625, 0.7625, 0.9])


def test_isotonic_never_says_never() -> None:
    curve = isotonic(*rows((0.1, 9, 0), (0.5, 2, 1)))
    assert curve.values == pytest.approx((0.05, 0.5))
    narrow = isotonic(*rows((0.1, 1, 0), (0.5, 100, 1), (0.7, 1, 1)))
    assert narrow.values == pytest.approx((0.01, 0.01, 0.75))


def test_platt_finds_the_line_that_the_labels_follow() -> None:
    # predictions of 1/2 and 9/10 whose rates are 3/4 and 27/28: logit' = logit + ln 3
    curve = platt(*rows((0.5, 400_000, 300_000), (0.9, 280_000, 270_000)))
    assert (curve.slope, curve.offset) == pytest.approx((1, np.log(3)), abs=1e-3)
    assert applied(curve, [0.5]) == pytest.approx([0.75], abs=1e-3)


def test_platt_is_flat_where_the_model_is_upside_down() -> None:
    curve = platt(*rows((0.2, 1000, 800), (0.8, 1000, 200)))
    assert curve.slope == 0
    assert applied(curve, [0.2, 0.8]) == pytest.approx([0.5, 0.5], abs=1e-3)


@pytest.mark.parametrize("method", [isotonic, platt])
def test_what_is_calibrated_stays(method) -> None:
    curve = method(*rows((0.25, 8, 2), (0.5, 4, 2), (0.75, 8, 6)))
    assert applied(curve, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40).filter(
        lambda drawn: len({label for _, label in drawn}) == 2
    ),
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.sampled_from([isotonic, platt]),
)
def test_curves_rise_and_stay_within_0_and_1(drawn, at, method) -> None:
    predicted, label = (np.array(one, np.float64) for one in zip(*drawn, strict=True))
    found = np.array(applied(method(predicted, label), sorted(at)))
    assert np.isfinite(found).all()
    assert (found >= 0).all() and (found <= 1).all()
    assert (np.diff(found) >= -1e-12).all()


def test_error_is_the_gap_of_each_bin_by_its_rows() -> None:
    # two bins of two: |0.2 - 0| and |0.7 - 1|
    predicted, label = np.array([0.3, 0.6, 0.1, 0.8]), np.array([0.0, 1.0, 0.0, 1.0])
    assert expected_calibration_error(predicted, label, bins=2) == pytest.approx(0.25)
    assert expected_calibration_error(predicted, label, bins=1) == pytest.approx(0.05)
    some = np.array([0.0, np.nan, 0.0, 1.0])
    assert expected_calibration_error(predicted, some, bins=1) == pytest.approx(0.2 / 3)


def test_rows_of_one_prediction_are_in_one_bin() -> None:
    assert expected_calibration_error(*rows((0.5, 4, 2))) == 0
    assert np.isnan(expected_calibration_error(np.array([0.5]), np.array([np.nan])))
    assert np.isnan(expected_calibration_error(np.array([np.nan]), np.array([1.0])))


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_tasks_that_cannot_be_calibrated_stay_and_say_so(method: str, tmp_path: Path) -> None:
    tasks = [CLICKED, WATCHED, Task("bought", TaskKind.BINARY), Task("broken", TaskKind.BINARY)]
    draw = np.random.default_rng(0)
    predictions = draw.random((20, 4))
    labels = np.stack([draw.random(20) < 0.5, draw.random(20) * 9, np.zeros(20), np.ones(20)], 1)
    predictions[3, 3] = np.nan
    made = calibrate(method, tasks, predictions, labels.astype(float), USED, "print")
    assert made.why == {
        "bought": "no choose row is positive",
        "broken": "its predictions are not all finite",
    }
    found = made.apply(predictions)
    np.testing.assert_array_equal(found[:, 1:], predictions[:, 1:])
    assert (found[:, 0] != predictions[:, 0]).any()
    made.save(tmp_path)
    assert Calibration.read(tmp_path) == made


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    assert Calibration.read(tmp_path) is None
    calibrate("platt", [CLICKED], np.full((2, 1), 0.5), np.eye(2)[:, :1], USED, "").save(tmp_path)
    file = tmp_path / CALIBRATION_FILE
    file.write_text(file.read_text().replace('"rows": 2', '"rows": 3'))
    with pytest.raises(ArtifactError, match=r"calibration.json is damaged"):
        Calibration.read(tmp_path)

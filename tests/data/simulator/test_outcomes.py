from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys.data.simulator.outcomes import dwell_truth, expected_sigmoid, sigmoid

DRAWS = 400_000


def test_quadrature_equals_monte_carlo():
    rng = np.random.default_rng(0)
    for mean, sd in ((-6.0, 1.2), (-2.0, 2.0), (0.5, 0.3), (3.0, 1.0)):
        draws = sigmoid(rng.normal(mean, sd, DRAWS))
        error = draws.std() / np.sqrt(DRAWS)
        value = expected_sigmoid(np.array([mean]), np.array([sd**2]))[0]
        assert value == pytest.approx(draws.mean(), abs=5 * error)


def test_quadrature_without_variance_is_the_sigmoid():
    logits = np.linspace(-8, 8, 9).astype(np.float32)
    value = expected_sigmoid(logits, np.zeros(9, np.float32))
    np.testing.assert_allclose(value, sigmoid(logits), rtol=1e-5)


@pytest.mark.parametrize("variance", [0.0, 0.5])
def test_dwell_truth_equals_monte_carlo(small_config, variance):
    dwell = dataclasses.replace(small_config.dwell, max_seconds=60.0, skip_seconds=2.0)
    rng = np.random.default_rng(1)
    mean, duration = 2.5, 20.0
    logs = rng.normal(mean, np.sqrt(dwell.noise_sd**2 + variance), DRAWS)
    seconds = np.minimum(np.exp(logs), dwell.max_seconds)
    truth = dwell_truth(
        dwell, np.array([mean], np.float32), variance, np.array([duration], np.float32)
    )
    for name, drawn in (
        ("skip", seconds < 2.0),
        ("video_complete", seconds >= duration),
        ("watch_time", seconds),
    ):
        error = drawn.std() / np.sqrt(DRAWS)
        assert truth[name][0] == pytest.approx(drawn.mean(), abs=5 * error), name


def test_completion_is_unknown_without_a_duration_and_impossible_beyond_the_cut(small_config):
    duration = np.array([np.nan, 2 * small_config.dwell.max_seconds], np.float32)
    truth = dwell_truth(small_config.dwell, np.array([2.0, 8.0], np.float32), 0.0, duration)
    assert np.isnan(truth["video_complete"][0])
    assert truth["video_complete"][1] == 0

"""How latents become labels, and the true probabilities of a request row.

The response of task k to an impression is linear in its latents,

    η_k = b_k + u_k + offsets + w_k^interest (stable + short-term) + w_k^author affinity
          + w_k^quality quality + w_k^mood mood,

a logit for the actions of ``LOGIT_TASKS`` and the mean of ln(dwell) for the dwell time (which also
grows with ln(duration)). Given what happened more than a gap ago, short-term interest, mood and
the quality of items published since are Gaussian, so η_k is Gaussian with a known mean and
variance, and the probabilities within reach are one-dimensional integrals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from recsys.data.simulator.config import (
    TASKS,
    DwellConfig,
    ResponseConfig,
    SimulatorConfig,
)

Floats = NDArray[np.float32]

QUADRATURE_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
QUADRATURE_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def responses(config: SimulatorConfig) -> list[ResponseConfig]:
    """The responses in the order of a population's propensities: logits, then ln(dwell)."""
    return [config.actions[task] for task in config.logit_tasks] + [config.dwell.response]


def linear_response(
    response: ResponseConfig,
    propensity: Floats,
    offset: Floats,
    interest: Floats,
    author: Floats,
    quality: Floats,
    mood: Floats | float,
) -> Floats:
    """η of one task, [impressions]; ``mood`` is 0 where it is unknown."""
    result = propensity + offset
    result += np.float32(response.intercept)
    result += np.float32(response.interest) * interest
    result += np.float32(response.author) * author
    result += np.float32(response.quality) * quality
    result += np.float32(response.mood) * mood
    return result


def response_variance(
    response: ResponseConfig, interest: Floats, quality: Floats, mood: float
) -> Floats:
    """Variance of η of one task, [rows], from the variances of its unknown parts."""
    variance: Floats = np.float32(response.interest**2) * interest
    variance = variance + np.float32(response.quality**2) * quality
    variance += np.float32(response.mood**2 * mood)
    return variance


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit))."""
    result: Floats = np.reciprocal(1 + np.exp(-logit))
    return result


def expected_sigmoid(mean: Floats, variance: Floats) -> Floats:
    """E[sigmoid(η)] for Gaussian η by Gauss-Hermite quadrature, [rows]."""
    sd: Floats = np.sqrt(variance)
    result = np.zeros_like(mean)
    for node, weight in zip(QUADRATURE_NODES, QUADRATURE_WEIGHTS, strict=True):
        shifted: Floats = mean + np.float32(node) * sd
        result += np.float32(weight) * sigmoid(shifted)
    return result


def dwell_truth(
    dwell: DwellConfig, mean: Floats, variance: Floats | float, duration: Floats
) -> dict[str, Floats]:
    """True values of the tasks that are functions of the dwell time, [rows] each.

    ln(dwell) is Gaussian given the latents, with ``noise_sd``, and Gaussian around its mean
    given the past, so both truths are the same formulas with another variance v:
    P(skip) = Φ((ln s - m)/√v), P(complete) = Φ((m - ln duration)/√v) and, cut at c,
    E[dwell] = exp(m + v/2) Φ((ln c - m - v)/√v) + c Φ((m - ln c)/√v).

    Args:
        dwell: thresholds and noise.
        mean: [rows] mean of ln(dwell).
        variance: [rows] variance of that mean, 0 where it is known.
        duration: [rows] seconds, NaN for media without one: their completion is NaN.
    """
    m = mean.astype(np.float64)
    v = dwell.noise_sd**2 + np.asarray(variance, np.float64)
    sd = np.sqrt(v)
    limit = np.log(dwell.max_seconds)
    watch = np.exp(m + v / 2) * ndtr((limit - m - v) / sd)
    watch += dwell.max_seconds * ndtr((m - limit) / sd)
    complete = ndtr((m - np.log(duration)) / sd)
    complete = np.where(duration > dwell.max_seconds, 0, complete)
    return {
        "video_complete": np.where(np.isnan(duration), np.nan, complete).astype(np.float32),
        "skip": ndtr((np.log(dwell.skip_seconds) - m) / sd).astype(np.float32),
        "watch_time": watch.astype(np.float32),
    }


def stack_tasks(by_task: dict[str, Floats]) -> Floats:
    """Columns in the order of ``TASKS``, [rows, K]."""
    return np.stack([by_task[task.name] for task in TASKS], axis=1)

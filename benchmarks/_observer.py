"""The Gaussian posterior of one simulated user's latents given a finite history.

The latents z of a user are the propensities, the affinity to the authors and topics met, the mood
of every session, and the moving affinity to the own topics at the moments of the grid that matter.
A priori they are Gaussian. Every response is linear in them, so that

* ln dwell is an exact linear-Gaussian observation (a censored one where dwell was cut),
* an action is a logistic observation,
* the topic of the shown author is a choice by softmax among the own topics, mixed with sources
  that say nothing.

The posterior is approximated by a Gaussian: for the actions the one closest in KL divergence
(Opper and Archambeau, *The variational Gaussian approximation revisited*, 2009), whose mean and
precision are those of Newton's method with the expected sigmoid in place of the sigmoid; for
choices and cut dwell times Laplace's. With ln dwell alone it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._beliefs import Beliefs, Recommender
from recsys.data.simulator.config import LOGIT_TASKS, SimulatorConfig
from recsys.data.simulator.outcomes import responses
from recsys.data.simulator.population import gap_cells, survival

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

RESPONSES = len(LOGIT_TASKS) + 1
#: A latent that is always 0: the author affinity of an ordinary author, the mood to come.
_NOTHING = RESPONSES
_TINY_VARIANCE = 1e-8

#: Newton's steps with the sigmoid at the mean, then with the expected one.
_PLAIN_STEPS = 3
_MOST_STEPS = 20
_TOLERANCE = 0.05
#: A step moves no latent further: far from the mode the logistic curvature says too little.
_LONGEST_STEP = 1.5
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(12)


@dataclass(frozen=True)
class Shown:
    """Impressions of one user, [n] each.

    Attributes:
        topic: of the item.
        author: of the item.
        session: any number that tells sessions apart.
        cell: moment of the short-term grid.
        known: [n, RESPONSES] the part of the responses that is no latent of the user.
        actions: [n, RESPONSES - 1] labels of ``LOGIT_TASKS``.
        log_dwell: ln seconds, cut ones at the cut.
    """

    topic: Integers
    author: Integers
    session: Integers
    cell: Integers
    known: Array
    actions: Array
    log_dwell: Array

    def select(self, chosen: NDArray[np.bool_] | Integers) -> Shown:
        """Some of the impressions."""
        return Shown(**{name: column[chosen] for name, column in vars(self).items()})


class Observer:
    """Beliefs of a user updated by a history.

    Args:
        recommender: how authors came to be shown.
        beliefs: before any outcome.
        history: what the user was shown and did.
        rows: what will be asked about; only moments, topics and authors matter.
    """

    def __init__(
        self, recommender: Recommender, beliefs: Beliefs, history: Shown, rows: Shown
    ) -> None:
        self.config, self.recommender, self.beliefs = recommender.config, recommender, beliefs
        weights = responses(self.config)
        # [RESPONSES, 3]: weights of interest, author affinity and mood.
        self.weights = np.array([[w.interest, w.author, w.mood] for w in weights])
        self._lay_out(history, rows)
        prior_precision, self.mean = self._prior()
        self.covariance = self._update(prior_precision, history)

    def responses_of(self, rows: Shown) -> tuple[Array, Array]:
        """Mean and variance of the responses to ``rows`` in a session to come, [rows, RESPONSES].

        That an item was shown is itself news about the interests a gap before; it moves the mean
        to first order.
        """
        columns = self._columns(rows)  # [rows, 3]
        mean = rows.known + self.mean[:RESPONSES] + self.mean[columns] @ self.weights.T
        variance = self._variance(columns)
        slot, through_topic, other = self._exposure(rows.author)
        chosen = np.flatnonzero(slot >= 0)
        if len(chosen):
            before = self._moving(rows.cell[chosen] - gap_cells(self.config))  # [chosen, J]
            share = self._topic_shares(before)
            picked = np.zeros_like(share)
            picked[np.arange(len(chosen)), slot[chosen]] = 1
            by_topic = through_topic[chosen] * (share * picked).sum(axis=1)
            sure = by_topic / (by_topic + other[chosen])
            score = self.config.exposure.sharpness * sure[:, None] * (picked - share)
            related = self.covariance[:RESPONSES][:, before].swapaxes(0, 1)  # [chosen, K, J]
            shared = self.covariance[columns[chosen][:, :, None], before[:, None, :]]
            related = related + np.einsum("ka,raj->rkj", self.weights, shared)
            mean[chosen] += np.einsum("rkj,rj->rk", related, score)
        return mean, variance

    # The order of the latents.

    def _lay_out(self, history: Shown, rows: Shown) -> None:
        gap, beliefs = gap_cells(self.config), self.beliefs
        cells = np.concatenate([history.cell, rows.cell])
        self.cells = np.unique(np.concatenate([cells, cells - gap]))
        self.sessions = np.unique(history.session)
        self.slot = np.full(len(beliefs.topic_mean), -1)
        self.slot[beliefs.own_topics] = np.arange(len(beliefs.own_topics))
        topics = np.unique(np.concatenate([history.topic, rows.topic]))
        self.still_topics = topics[self.slot[topics] < 0]
        authors = np.unique(np.concatenate([history.author, rows.author]))
        self.authors = authors[beliefs.author_variance[authors] > 0]

        first = _NOTHING + 1
        self.still_position = np.full(len(beliefs.topic_mean), -1)
        self.still_position[self.still_topics] = first + np.arange(len(self.still_topics))
        first += len(self.still_topics)
        self.author_position = np.full(len(beliefs.author_mean), _NOTHING)
        self.author_position[self.authors] = first + np.arange(len(self.authors))
        first += len(self.authors)
        self.first_session = first
        self.first_moving = first + len(self.sessions)
        self.size = self.first_moving + len(beliefs.own_topics) * len(self.cells)

    def _moving(self, cell: Integers) -> Integers:
        """Where the affinities to the own topics at some moments are, [n] → [n, J]."""
        moment = np.searchsorted(self.cells, cell)
        own = np.arange(len(self.beliefs.own_topics))
        return self.first_moving + own * len(self.cells) + moment[:, None]

    def _columns(self, shown: Shown, with_mood: bool = False) -> Integers:
        """Where interest, author affinity and mood of impressions are, [n, 3]."""
        slot = self.slot[shown.topic]
        moving = self._moving(shown.cell)[np.arange(len(slot)), np.maximum(slot, 0)]
        interest = np.where(slot >= 0, moving, self.still_position[shown.topic])
        author = self.author_position[shown.author]
        mood = np.full(len(slot), _NOTHING)
        if with_mood:
            mood = self.first_session + np.searchsorted(self.sessions, shown.session)
        return np.stack([interest, author, mood], axis=1)

    def _prior(self) -> tuple[Array, Array]:
        """Precision and mean before the history, [size, size] and [size]."""
        beliefs, config = self.beliefs, self.config
        variance = np.full(self.size, _TINY_VARIANCE)
        mean = np.zeros(self.size)
        variance[:RESPONSES] = [response.user_sd**2 for response in responses(config)]
        still = self.still_position[self.still_topics]
        variance[still] = beliefs.topic_variance[self.still_topics]
        mean[still] = beliefs.topic_mean[self.still_topics]
        authors = self.author_position[self.authors]
        variance[authors] = beliefs.author_variance[self.authors]
        mean[authors] = beliefs.author_mean[self.authors]
        variance[self.first_session : self.first_moving] = config.interests.mood_sd**2
        precision = np.diag(1 / np.maximum(variance, _TINY_VARIANCE))

        lag = np.abs(self.cells[:, None] - self.cells)
        left = survival(config) ** lag
        for own, topic in enumerate(beliefs.own_topics):
            first = self.first_moving + own * len(self.cells)
            block = slice(first, first + len(self.cells))
            covariance = beliefs.topic_variance[topic] + beliefs.short_variance[own] * left
            precision[block, block] = np.linalg.inv(covariance)
            mean[block] = beliefs.topic_mean[topic]
        return precision, mean

    # The update.

    def _update(self, prior_precision: Array, history: Shown) -> Array:
        """Move the mean to that of the posterior; returns the covariance."""
        columns, group = np.unique(
            self._columns(history, with_mood=True), axis=0, return_inverse=True
        )
        group = group.reshape(-1)
        prior_mean = self.mean.copy()
        self.covariance = np.zeros_like(prior_precision)
        for step in range(_MOST_STEPS):
            expected = step >= _PLAIN_STEPS
            variance = self._variance(columns)[group] if expected else None
            gradient, precision = self._outcomes(history, columns, group, variance)
            self._add_exposure(history, gradient, precision)
            precision += prior_precision
            gradient -= prior_precision @ (self.mean - prior_mean)
            # Single precision is enough for a step: the gradient is double.
            factor = torch.linalg.cholesky(torch.from_numpy(precision).float())
            slope = torch.from_numpy(gradient).float()[:, None]
            move = torch.cholesky_solve(slope, factor)[:, 0].double().numpy()
            longest = np.abs(move).max()
            self.mean = self.mean + move * _LONGEST_STEP / max(longest, _LONGEST_STEP)
            if step >= _PLAIN_STEPS - 1:
                self.covariance = torch.cholesky_inverse(factor).double().numpy()
            if expected and longest < _TOLERANCE:
                break
        return self.covariance

    def _variance(self, columns: Integers) -> Array:
        """Variance of the user's part of the responses, [n, 3] → [n, RESPONSES]."""
        shared = self.covariance[columns[:, :, None], columns[:, None, :]]  # [n, 3, 3]
        result = np.einsum("ka,nab,kb->nk", self.weights, shared, self.weights, optimize=True)
        propensity = np.arange(RESPONSES)
        result += self.covariance[propensity, propensity]
        crossed = self.covariance[:RESPONSES][:, columns]  # [K, n, 3]
        result += 2 * np.einsum("ka,kna->nk", self.weights, crossed)
        return result

    def _outcomes(
        self, history: Shown, columns: Integers, group: Integers, variance: Array | None
    ) -> tuple[Array, Array]:
        """Gradient and precision that actions and dwell times add, [size], [size, size]."""
        linear = self.mean[:RESPONSES] + self.mean[columns] @ self.weights.T  # [groups, K]
        eta = history.known + linear[group]
        slope, curvature = np.empty_like(eta), np.empty_like(eta)
        tasks = slice(0, RESPONSES - 1)
        spread = None if variance is None else variance[:, tasks]
        chance, curvature[:, tasks] = _expected_sigmoid(eta[:, tasks], spread)
        slope[:, tasks] = history.actions - chance
        slope[:, -1], curvature[:, -1] = _dwell_slope(self.config, eta[:, -1], history.log_dwell)

        sums = np.zeros((2, len(columns), RESPONSES))
        np.add.at(sums[0], group, slope)
        np.add.at(sums[1], group, curvature)
        slopes, curvatures = sums
        gradient, precision = np.zeros(self.size), np.zeros((self.size, self.size))
        gradient[:RESPONSES] = slopes.sum(axis=0)
        np.add.at(gradient, columns, slopes @ self.weights)
        own = np.arange(RESPONSES)
        precision[own, own] = curvatures.sum(axis=0)
        pairs = np.einsum(
            "gk,ka,kb->gab", curvatures, self.weights, self.weights, optimize=True
        )  # [groups, 3, 3]
        np.add.at(precision, (columns[:, :, None], columns[:, None, :]), pairs)
        crossed = curvatures[:, :, None] * self.weights  # [groups, K, 3]
        np.add.at(precision, (own[:, None], columns[:, None, :]), crossed)
        np.add.at(precision, (columns[:, None, :], own[:, None]), crossed)
        return gradient, precision

    # What exposure says.

    def _exposure(self, author: Integers) -> tuple[Integers, Array, Array]:
        """Per shown author: slot among the own topics, and chance by topic and otherwise, [n]."""
        recommender, exposure = self.recommender, self.config.exposure
        first = recommender.first_topic[author]
        slot = np.where(first >= 0, self.slot[first], -1)
        other = recommender.other_sources(self.beliefs.favourite)[author]
        return slot, exposure.topic_share * recommender.by_topic[author], other

    def _topic_shares(self, moving: Integers) -> Array:
        """Chances of the own topics at the mean, [n, J]."""
        weights = np.exp(self.config.exposure.sharpness * self.mean[moving])
        result: Array = weights / weights.sum(axis=1, keepdims=True)
        return result

    def _add_exposure(self, history: Shown, gradient: Array, precision: Array) -> None:
        """Add gradient and expected information of the choice of topics, in place."""
        slot, through_topic, other = self._exposure(history.author)
        known = slot >= 0
        if not known.any():
            return
        slot, through_topic, other = slot[known], through_topic[known], other[known]
        cells, moment = np.unique(history.cell[known], return_inverse=True)
        before = self._moving(cells - gap_cells(self.config))  # [cells, J]
        share = self._topic_shares(before)
        by_topic = through_topic * share[moment, slot]
        sure = by_topic / (by_topic + other)  # [n] chance that the topic was the source

        own, sharpness = share.shape[1], self.config.exposure.sharpness
        chosen = np.zeros_like(share)
        np.add.at(chosen, (moment, slot), sure)
        total = chosen.sum(axis=1, keepdims=True)
        np.add.at(gradient, before, sharpness * (chosen - share * total))
        # An impression informs by its score, of which an unsure source keeps the share `sure`.
        sure_sum = np.bincount(slot, sure, own)
        kept = np.bincount(slot, sure**2, own) / np.maximum(sure_sum, _TINY_VARIANCE)
        score = np.eye(own) - share[:, None, :]  # [cells, J chosen, J]
        informed = sharpness**2 * total * share * kept
        information = np.einsum("cj,cja,cjb->cab", informed, score, score, optimize=True)
        np.add.at(precision, (before[:, :, None], before[:, None, :]), information)


def _expected_sigmoid(mean: Array, variance: Array | None) -> tuple[Array, Array]:
    """E[σ(η)] and E[σ'(η)] of Gaussian η; at the mean without a variance. Any shape."""
    if variance is None:
        chance = torch.sigmoid(torch.from_numpy(mean)).numpy()
        return chance, chance * (1 - chance)
    sd = np.sqrt(np.maximum(variance, 0))
    expected, slope = np.zeros_like(mean), np.zeros_like(mean)
    for node, weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
        chance = torch.sigmoid(torch.from_numpy(mean + node * sd)).numpy()
        expected += weight * chance
        slope += weight * chance * (1 - chance)
    return expected, slope


def _dwell_slope(config: SimulatorConfig, mean: Array, log_dwell: Array) -> tuple[Array, Array]:
    """Slope and curvature of the log-likelihood of ln dwell, [n] each; of a cut one, censored."""
    noise, limit = config.dwell.noise_sd, np.log(config.dwell.max_seconds)
    slope = (log_dwell - mean) / noise**2
    curvature = np.full_like(mean, noise**-2)
    cut = log_dwell >= limit - 1e-5  # float32 seconds
    beyond = (mean[cut] - limit) / noise
    log_chance = torch.special.log_ndtr(torch.from_numpy(beyond)).numpy()
    hazard = np.exp(-0.5 * beyond**2 - 0.5 * np.log(2 * np.pi) - log_chance)
    slope[cut] = hazard / noise
    curvature[cut] = hazard * (hazard + beyond) / noise**2
    return slope, curvature

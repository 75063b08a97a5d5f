"""What an observer believes of a simulated user before any outcome, and what exposure says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.simulator.catalogue import Catalogue, zipf
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.population import Population

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Authors less likely than this to be favourites count as ordinary ones.
_SMALLEST_CHANCE = 0.01
#: Share of the short-term variance a topic taken for one's own has at least: a covariance of
#: moments in time without any cannot be inverted.
_SMALLEST_MOVEMENT = 0.05
#: Keeps the logarithm of a rate finite.
_SMALLEST_RATE = 1e-9
#: Numbers of favourites that one own topic lends, from 0.
_LENT = np.arange(8)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(12)


@dataclass(frozen=True)
class Recommender:
    """How the recommender that made the log comes to an author.

    Attributes:
        first_topic: [authors] the topic through which an author is found, -1 for none.
        by_topic: [authors] chance of the author given that topic.
        by_popularity: [authors] chance of the author given the popularity source.
        config: with the shares of the sources and the sharpness.
    """

    first_topic: Integers
    by_topic: Array
    by_popularity: Array
    config: SimulatorConfig

    @classmethod
    def of(cls, config: SimulatorConfig, catalogue: Catalogue) -> Recommender:
        """Read off the tables that authors are drawn from."""
        authors = len(catalogue.author_quality)
        first_topic, by_topic = np.full(authors, -1), np.zeros(authors)
        for topic, table in enumerate(catalogue.topic_authors):
            found, times = np.unique(table, return_counts=True)
            first_topic[found], by_topic[found] = topic, times / len(table)
        popular = catalogue.popular_authors
        by_popularity = np.bincount(popular, minlength=authors) / len(popular)
        return cls(first_topic, by_topic, by_popularity, config)

    def other_sources(self, favourite: Array) -> Array:
        """Chance of each author not through a topic, [authors], given that of being a favourite."""
        exposure, interests = self.config.exposure, self.config.interests
        popular = 1 - exposure.author_share - exposure.topic_share
        through_favourites = exposure.author_share / interests.favourite_authors
        return popular * self.by_popularity + through_favourites * favourite


@dataclass(frozen=True)
class Beliefs:
    """Independent Gaussians about one user's affinities.

    Attributes:
        own_topics: [J] the topics whose interest moves and that exposure chooses among.
        topic_mean: [topics] of the stable affinity.
        topic_variance: [topics] of the stable affinity.
        short_variance: [J] of the short-term affinity.
        author_mean: [authors].
        author_variance: [authors], 0 for an affinity known to be the mean.
        favourite: [authors] chance of being a favourite.
    """

    own_topics: Integers
    topic_mean: Array
    topic_variance: Array
    short_variance: Array
    author_mean: Array
    author_variance: Array
    favourite: Array


def told_beliefs(config: SimulatorConfig, population: Population, user: int) -> Beliefs:
    """Beliefs of an observer who was told the user's own topics and favourite authors."""
    own = np.zeros(config.catalogue.topics)
    own[population.own_topics[user]] = 1
    favourite = np.zeros(config.catalogue.authors)
    favourite[population.favourites[user]] = 1
    return _mixed_beliefs(config, population.own_topics[user], own, favourite)


def inferred_beliefs(
    config: SimulatorConfig, recommender: Recommender, author: Integers
) -> Beliefs:
    """Beliefs of an observer who sees only which authors the user was shown, [n].

    How often a topic's authors came is Poisson with one rate if the topic is the user's own and
    another if not; an author's count likewise. What either chance leaves open enters the Gaussian
    of the affinity by its mean and variance.
    """
    own = _own_topic_chance(config, recommender, author)
    favourite = _favourite_chance(config, recommender, author, own)
    likeliest = np.argsort(-own)[: config.interests.topics_per_user]
    return _mixed_beliefs(config, likeliest, own, favourite)


def _mixed_beliefs(
    config: SimulatorConfig, own_topics: Integers, own: Array, favourite: Array
) -> Beliefs:
    """Mean and variance of mixtures with chances ``own`` [topics] and ``favourite`` [authors]."""
    interests = config.interests
    mean, short = own * interests.stable_mean, interests.short_term_sd**2
    variance = own * (interests.stable_sd**2 + interests.stable_mean**2) - mean**2
    variance += (1 - own) * interests.other_sd**2
    moving = np.zeros(len(own), bool)
    moving[own_topics] = True
    variance[~moving] += own[~moving] * short
    author_mean = favourite * interests.author_mean
    second_moment = favourite * (interests.author_sd**2 + interests.author_mean**2)
    return Beliefs(
        own_topics=np.asarray(own_topics, np.int64),
        topic_mean=mean,
        topic_variance=variance,
        short_variance=np.maximum(own[own_topics], _SMALLEST_MOVEMENT) * short,
        author_mean=author_mean,
        author_variance=second_moment - author_mean**2,
        favourite=favourite,
    )


def _own_topic_chance(config: SimulatorConfig, recommender: Recommender, author: Integers) -> Array:
    """Chance that each topic is the user's own, [topics], given the authors shown, [n]."""
    interests, exposure, topics = config.interests, config.exposure, config.catalogue.topics
    first = recommender.first_topic
    known = first >= 0
    topic_of_shown = first[author]
    counts = np.bincount(topic_of_shown[topic_of_shown >= 0], minlength=topics)
    popularity = np.bincount(first[known], recommender.by_popularity[known], topics)
    popular = (1 - exposure.author_share - exposure.topic_share) * popularity.astype(float)

    # An own topic is chosen by exp(sharpness · affinity) and lends some of the favourites.
    own = interests.topics_per_user
    sd = exposure.sharpness * interests.stable_sd
    through_topic = exposure.topic_share / own * np.exp(sd * _NODES - sd**2 / 2)
    per_topic = interests.favourite_authors / own
    log_lent = (
        _LENT * np.log(per_topic) - torch.lgamma(torch.tensor(_LENT + 1.0)).numpy() - per_topic
    )
    through_favourites = exposure.author_share / interests.favourite_authors * _LENT
    rate = popular[:, None, None] + through_topic[:, None] + through_favourites
    log_own = _log_poisson(counts[:, None, None], len(author) * rate) + log_lent
    weights = _WEIGHTS[:, None] / _WEIGHTS.sum()
    highest = log_own.max(axis=(1, 2), keepdims=True)
    evidence = np.log((weights * np.exp(log_own - highest)).sum(axis=(1, 2))) + highest[:, 0, 0]
    without = _log_poisson(counts, len(author) * popular)
    prior = _inclusion(np.sqrt(zipf(topics, config.catalogue.topic_zipf)), own)
    return _posterior_chance(prior, evidence - without)


def _favourite_chance(
    config: SimulatorConfig, recommender: Recommender, author: Integers, own: Array
) -> Array:
    """Chance that each author is a favourite, [authors]; 0 for authors never shown."""
    interests, exposure = config.interests, config.exposure
    shown, counts = np.unique(author, return_counts=True)
    topic = recommender.first_topic[shown]
    chance_of_own = np.where(topic >= 0, own[topic], 0)
    through_topic = chance_of_own * recommender.by_topic[shown] / interests.topics_per_user
    rate = (1 - exposure.author_share - exposure.topic_share) * recommender.by_popularity[shown]
    rate += exposure.topic_share * through_topic
    extra = exposure.author_share / interests.favourite_authors
    evidence = _log_poisson(counts, len(author) * (rate + extra))
    evidence -= _log_poisson(counts, len(author) * rate)
    prior = -np.expm1(-interests.favourite_authors * through_topic)
    chance = _posterior_chance(prior, evidence)
    result = np.zeros(config.catalogue.authors)
    result[shown] = np.where(chance > _SMALLEST_CHANCE, chance, 0)
    return result


def _inclusion(weights: Array, chosen: int) -> Array:
    """Chance of each to be among ``chosen`` drawn by weight without replacement, approximately.

    Draws by weight are the first arrivals of exponential clocks: 1 − exp(−λ w) at the moment λ at
    which as many as are drawn have arrived on average.
    """
    low, high = 0.0, 1e6 / weights.sum()
    for _ in range(100):
        middle = (low + high) / 2
        arrived = -np.expm1(-middle * weights)
        low, high = (middle, high) if arrived.sum() < chosen else (low, middle)
    return arrived


def _log_poisson(count: Integers, rate: Array) -> Array:
    """Log-likelihood of a Poisson rate, up to what depends on the count alone."""
    rate = np.maximum(rate, _SMALLEST_RATE)
    result: Array = count * np.log(rate) - rate
    return result


def _posterior_chance(prior: Array, log_ratio: Array) -> Array:
    """Chance after evidence with this log-likelihood ratio."""
    prior = np.clip(prior, 1e-12, 1 - 1e-12)
    logit = np.log(prior) - np.log1p(-prior) + log_ratio
    return torch.sigmoid(torch.from_numpy(logit)).numpy()

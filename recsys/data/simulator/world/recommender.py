"""The recommender that makes a world's log: popular in the region, and the user's topics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.simulator.world.counters import ItemCounters, engaged
from recsys.data.simulator.world.play import Recommended, Requests
from recsys.data.simulator.world.viewing import NOTHING, Shown
from recsys.data.simulator.world.world import World

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Random draws per slot of a list: enough to pass over what is seen or in the list.
_SPARE = 4


class LoggingRecommender:
    """Draws every slot of a list, and says how likely what it drew was.

    A slot is random with probability ε (``random_share``): any item that is alive, not seen by the
    user and not yet in the list, uniformly over those R items. Otherwise it is drawn from what is
    left of the region's shortlist with probability in proportion to w = exp(sharpness ·
    (ln rate of the item + topic_weight · ln rate of the user in its topic)). So the propensity of
    the item i in a slot is

        ε / R + (1 − ε) w_i / Σ_left w,

    where w_i = 0 outside the shortlist. It knows what it has observed and nothing else.

    Args:
        world: to be played.
        seed: of its draws.
    """

    name = "logging"

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._settings = world, world.world.recommender
        self._rng = np.random.default_rng(seed)
        self._items = ItemCounters(world, self._settings.half_life_hours)
        self._shape = len(world.users), world.config.catalogue.topics
        self._topic_shown, self._topic_engaged = np.zeros(self._shape), np.zeros(self._shape)

    def observe(self, shown: Shown) -> None:
        """Count items, and topics of users."""
        self._items.add(shown)
        at = shown.user, self._world.catalogue.item_topic[shown.item]
        np.add.at(self._topic_shown, at, 1)
        np.add.at(self._topic_engaged, at, engaged(self._world, shown))

    def recommend(self, requests: Requests, k: int) -> Recommended:
        """A drawn list for each request, with propensities."""
        self._items.advance(int(requests.time[0]))
        if not len(requests.alive):
            nothing = np.full((len(requests), k), NOTHING)
            return Recommended(nothing, np.full(nothing.shape, np.nan, np.float32))
        shortlist, weight = self._shortlists(requests)
        weight[requests.seen.has(requests.user[:, None], shortlist)] = 0
        ranked = self._in_drawn_order(shortlist, weight, k)
        uniform = self._uniform(requests, k)
        drawn = np.concatenate([ranked, uniform], axis=1)
        weight_drawn = self._weights_of(drawn, requests.user, shortlist, weight)
        left = len(requests.alive) - requests.seen.count[requests.user]
        items, propensity = self._merged(drawn, weight_drawn, weight.sum(axis=1), left, k)
        return Recommended(items, propensity.astype(np.float32))

    def _shortlists(self, requests: Requests) -> tuple[Integers, Doubles]:
        """Items of the users' regions and their weights, [B, P] each."""
        settings, world = self._settings, self._world
        rate = np.log(self._items.rates(requests.alive, settings.prior_impressions))
        size = min(settings.shortlist, rate.shape[1])
        best = np.argpartition(-rate, size - 1, axis=1)[:, :size]
        region, user = world.users.region[requests.user], requests.user
        shortlist = requests.alive[best][region]
        topic = world.catalogue.item_topic[shortlist]
        prior = settings.prior_impressions
        mean = (self._topic_engaged.sum() + 1) / (self._topic_shown.sum() + 10)
        own = (self._topic_engaged[user] + prior * mean) / (self._topic_shown[user] + prior)
        liking = np.take_along_axis(np.log(own / mean), topic.astype(np.int64), axis=1)
        score = np.take_along_axis(rate, best, axis=1)[region] + settings.topic_weight * liking
        score -= score.max(axis=1, keepdims=True)
        return shortlist, np.exp(settings.sharpness * score)

    def _in_drawn_order(self, shortlist: Integers, weight: Doubles, k: int) -> Integers:
        """What is drawn one after the other without replacement, [B, k].

        Items arrive after exponential times with rates w: the first k of them are such draws, also
        once others are taken out, since the times have no memory.
        """
        with np.errstate(divide="ignore"):
            arrival = self._rng.standard_exponential(weight.shape) / weight
        size = min(k, arrival.shape[1])
        first = np.argpartition(arrival, size - 1, axis=1)[:, :size]
        order = np.take_along_axis(first, np.argsort(np.take_along_axis(arrival, first, 1), 1), 1)
        drawn = np.full((len(weight), k), NOTHING)
        there = np.isfinite(np.take_along_axis(arrival, order, axis=1))
        drawn[:, :size] = np.where(there, np.take_along_axis(shortlist, order, axis=1), NOTHING)
        return drawn

    def _uniform(self, requests: Requests, k: int) -> Integers:
        """Items alive that were not seen, in a random order with repetitions, [B, k · spare]."""
        shape = len(requests), k * _SPARE
        drawn = requests.alive[self._rng.integers(0, len(requests.alive), shape)]
        seen = requests.seen.has(requests.user[:, None], drawn)
        return np.where(seen, NOTHING, drawn)

    def _weights_of(
        self, drawn: Integers, user: Integers, shortlist: Integers, weight: Doubles
    ) -> Doubles:
        """The weights of drawn items, 0 outside the shortlist, [B, drawn]."""
        region = self._world.users.region[user]
        place = np.full((len(self._world.world.regions.shares), len(self._world.items.rank)), -1)
        for code in np.unique(region):
            listed = shortlist[np.argmax(region == code)]
            place[code, listed] = np.arange(len(listed))
        found = place[region[:, None], drawn]
        listed = (found >= 0) & (drawn != NOTHING)
        return np.where(listed, np.take_along_axis(weight, np.maximum(found, 0), axis=1), 0)

    def _merged(
        self, drawn: Integers, weight: Doubles, weight_left: Doubles, left: Integers, k: int
    ) -> tuple[Integers, Doubles]:
        """Slot by slot the next of one stream or the other that is not in the list yet, [B, k].

        Args:
            drawn: [B, k + M] the ranked stream, then the uniform one.
            weight: [B, k + M] of them.
            weight_left: [B] of all that may be drawn.
            left: [B] items that are alive and were not seen.
            k: length of the list.
        """
        rows, share = np.arange(len(drawn)), self._settings.random_share
        is_random = self._rng.random((len(drawn), k)) < share
        there = drawn != NOTHING
        items, propensity = np.full((len(drawn), k), NOTHING), np.full((len(drawn), k), np.nan)
        for slot in range(k):
            has_ranked, has_uniform = there[:, :k].any(axis=1), there[:, k:].any(axis=1)
            random = (is_random[:, slot] | ~has_ranked) & has_uniform
            ahead = np.where(random, k + there[:, k:].argmax(axis=1), there[:, :k].argmax(axis=1))
            found = has_ranked | has_uniform
            item = np.where(found, drawn[rows, ahead], NOTHING)
            own = np.where(found, weight[rows, ahead], 0)
            epsilon = np.where(has_ranked, share, 1.0)
            by_weight = (1 - epsilon) * own / np.maximum(weight_left, np.finfo(float).tiny)
            chance = epsilon / np.maximum(left - slot, 1) + by_weight
            items[:, slot], propensity[:, slot] = item, np.where(found, chance, np.nan)
            weight_left = weight_left - own
            there &= drawn != item[:, None]
        return items, propensity

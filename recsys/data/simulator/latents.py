"""What lies behind the impressions of a block, and what of it is known a gap before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.simulator.catalogue import Catalogue
from recsys.data.simulator.config import LOGIT_TASKS, SimulatorConfig
from recsys.data.simulator.outcomes import (
    Floats,
    dwell_truth,
    expected_sigmoid,
    linear_response,
    response_variance,
    responses,
)
from recsys.data.simulator.population import Population, cell_of, survival

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Impressions:
    """Impressions of a block in the order they were shown, user by user, [n] each.

    Attributes:
        user: position in the block.
        session: position in the block's sessions.
        request: position in the block's requests.
        position: position in the request, 0 the first.
        item: index of the item.
        start: start of the session, ms since the start of the log.
        surface: code.
    """

    user: Integers
    session: Integers
    request: Integers
    position: Integers
    item: Integers
    start: Integers
    surface: NDArray[np.int8]

    def select(self, keep: NDArray[np.bool_]) -> Impressions:
        """The impressions where ``keep`` holds."""
        return Impressions(**{name: column[keep] for name, column in vars(self).items()})


class Latents:
    """The latents behind the impressions, gathered once and combined twice (truth and reach)."""

    def __init__(
        self,
        config: SimulatorConfig,
        catalogue: Catalogue,
        population: Population,
        impressions: Impressions,
    ) -> None:
        self.config, self.population, self.impressions = config, population, impressions
        user, item = impressions.user, impressions.item
        topic = catalogue.item_topic[item]
        self.stable = population.stable[user, topic]
        self.slot = population.slot[user, topic]
        self.author = population.author_affinity[user, catalogue.item_author[item]]
        surface = np.array([config.surface_offsets[name] for name in config.surfaces], np.float32)
        media = np.array([config.media_offsets[name] for name in config.media_types], np.float32)
        self.offset = surface[impressions.surface] + media[catalogue.item_media[item]]
        self.log_length = catalogue.item_log_length[item]

    def take(self, rows: Integers) -> Latents:
        """The latents of some impressions."""
        taken = object.__new__(Latents)
        taken.config, taken.population = self.config, self.population
        taken.impressions = Impressions(
            **{name: column[rows] for name, column in vars(self.impressions).items()}
        )
        for name in ("stable", "slot", "author", "offset", "log_length"):
            setattr(taken, name, getattr(self, name)[rows])
        return taken

    def short_term(self, cell: Integers) -> Floats:
        """Short-term interest in the impression's topic as it was in a cell of the grid."""
        _, cells, own = self.population.short_term.shape
        index = (self.impressions.user * cells + cell - self.population.first_cell) * own
        value = self.population.short_term.ravel()[index + np.maximum(self.slot, 0)]
        return np.where(self.slot >= 0, value, np.float32(0))

    def responses(
        self, interest: Floats, quality: Floats, mood: Floats | float
    ) -> dict[str, Floats]:
        """η per task of ``LOGIT_TASKS`` and of ``dwell``."""
        result = {}
        names = (*LOGIT_TASKS, "dwell")
        exponent = np.float32(self.config.dwell.duration_exponent)
        for column, (name, response) in enumerate(zip(names, responses(self.config), strict=True)):
            offset = self.offset
            if name == "dwell":
                offset = offset + exponent * self.log_length
            propensity = self.population.propensity[:, column][self.impressions.user]
            result[name] = linear_response(
                response, propensity, offset, interest, self.author, quality, mood
            )
        return result


def within_reach(
    config: SimulatorConfig,
    catalogue: Catalogue,
    latents: Latents,
    rows: Integers,
    request_time: Integers,
) -> dict[str, Floats]:
    """True probabilities given the past a gap ago and what a ranker sees of the item, [rows].

    Short-term interest: its value in the last cell that had begun, shrunk by a^lag. Quality of an
    item published since: the posterior given its author's quality and its content score. Mood: 0.
    """
    interests = config.interests
    then = request_time[rows] - config.gap_hours * MILLISECONDS_PER_HOUR
    part = latents.take(rows)
    item = part.impressions.item
    now = cell_of(part.impressions.start, config)
    last_known = np.minimum(cell_of(then, config), now)
    kept = np.float32(survival(config)) ** (now - last_known).astype(np.float32)
    short_term = kept * part.short_term(last_known)
    own = part.slot >= 0
    short_variance = np.where(own, np.float32(interests.short_term_sd**2) * (1 - kept**2), 0)

    quality, quality_variance = known_quality(config, catalogue, item, then)
    means = part.responses(part.stable + short_term, quality, 0.0)
    variances = {
        name: response_variance(response, short_variance, quality_variance, interests.mood_sd**2)
        for name, response in zip((*LOGIT_TASKS, "dwell"), responses(config), strict=True)
    }
    reach = {task: expected_sigmoid(means[task], variances[task]) for task in LOGIT_TASKS}
    duration = catalogue.item_duration[item]
    return reach | dwell_truth(config.dwell, means["dwell"], variances["dwell"], duration)


def known_quality(
    config: SimulatorConfig, catalogue: Catalogue, item: Integers, then: Integers
) -> tuple[Floats, Floats]:
    """Mean and variance of the items' quality given what had happened at a moment, [rows] each.

    An item that was out already is known; of a later one its author's quality and its content
    score leave a Gaussian posterior.

    Args:
        config: the simulator's configuration.
        catalogue: with the items.
        item: [rows].
        then: [rows] ms since the start of the log.
    """
    c = config.catalogue
    author_quality = catalogue.author_quality[catalogue.item_author[item]]
    shrink = c.item_quality**2 / (c.item_quality**2 + c.content_noise**2)
    posterior = author_quality + np.float32(shrink) * (
        catalogue.content_score[item] - author_quality
    )
    is_new = catalogue.item_published[item] > then
    quality = np.where(is_new, posterior, catalogue.item_quality[item])
    variance = np.where(is_new, np.float32(c.item_quality**2 * (1 - shrink)), 0)
    return quality, variance

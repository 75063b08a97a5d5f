"""One block of users from latents to events, request rows and true probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import ACTION_TYPES, MILLISECONDS_PER_SECOND, Split
from recsys.data.simulator.catalogue import Catalogue
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.latents import Impressions, Integers, Latents, within_reach
from recsys.data.simulator.outcomes import Floats, dwell_truth, sigmoid
from recsys.data.simulator.population import Population, cell_of, make_population
from recsys.data.simulator.sessions import Sessions, choose_items, make_sessions

#: Users are drawn in blocks of this many, each block from a generator of its own. The log depends
#: on it, so it is no setting; how many blocks go into a file does not change the log.
USERS_PER_BLOCK = 64

#: Pause between two sessions of a user that would otherwise overlap.
SESSION_PAUSE_MS = 60_000

#: Actions that happen at the end of the dwell time; the others happen during it.
ENDING_ACTIONS: tuple[str, ...] = ("video_complete", "skip")


def generator_of(config: SimulatorConfig, stream: int) -> np.random.Generator:
    """Stream 0 draws the catalogue, stream b + 1 the users of block b."""
    seed = np.random.SeedSequence(config.seed, spawn_key=(stream,))
    return np.random.Generator(np.random.SFC64(seed))


@dataclass(frozen=True)
class UserBlock:
    """What one block of users adds to the log; times are ms since the start of the log.

    Attributes:
        impressions: what was shown.
        time: [n] when each impression was shown.
        request_time: [n] when its request was made.
        dwell: [n] seconds.
        labels: per binary task [n], 0 or 1 (video_complete is NaN without a duration).
        rows: positions of the impressions that become request rows.
        best_absolute: per task [rows] the probability the label was drawn with.
        best_within_reach: per task [rows] the same given what happened a gap before the request.
        action_impression: [a] the impression of each explicit action.
        action_code: [a] position in ``schema.ACTION_TYPES``.
        action_time: [a].
        population: the users' latents.
    """

    impressions: Impressions
    time: Integers
    request_time: Integers
    dwell: Floats
    labels: dict[str, Floats]
    rows: Integers
    best_absolute: dict[str, Floats]
    best_within_reach: dict[str, Floats]
    action_impression: Integers
    action_code: NDArray[np.int8]
    action_time: Integers
    population: Population


def simulate_block(
    config: SimulatorConfig, catalogue: Catalogue, count: int, rng: np.random.Generator
) -> UserBlock:
    """Simulate ``count`` users.

    Everything depends on ``rng`` alone, so blocks can be made in any order.
    """
    population = make_population(config, catalogue, count, rng)
    sessions = make_sessions(config, population, rng)
    impressions = _impressions(config, catalogue, population, sessions, rng)
    known = Latents(config, catalogue, population, impressions)
    mood = rng.standard_normal(len(sessions.user), dtype=np.float32)
    mood = mood[impressions.session] * np.float32(config.interests.mood_sd)
    quality = catalogue.item_quality[impressions.item]
    short_term = known.short_term(cell_of(impressions.start, config))
    eta = known.responses(known.stable + short_term, quality, mood)

    dwell_mean = eta.pop("dwell")
    noise = rng.standard_normal(len(dwell_mean), dtype=np.float32)
    dwell = np.exp(dwell_mean + np.float32(config.dwell.noise_sd) * noise)
    dwell = np.minimum(dwell, np.float32(config.dwell.max_seconds))
    duration = catalogue.item_duration[impressions.item]
    labels = {
        "video_complete": np.where(np.isnan(duration), np.nan, dwell >= duration),
        "skip": dwell < config.dwell.skip_seconds,
    }
    chance = {task: sigmoid(logit) for task, logit in eta.items()}
    for task, probability in chance.items():
        labels[task] = rng.random(len(dwell), dtype=np.float32) < probability
    labels = {task: label.astype(np.float32) for task, label in labels.items()}

    time, request_time = _times(config, sessions, impressions, dwell, rng)
    rows = _choose_rows(config, impressions, request_time, rng)
    absolute = {task: probability[rows] for task, probability in chance.items()}
    absolute |= dwell_truth(config.dwell, dwell_mean[rows], 0.0, duration[rows])
    action_impression, action_code = _actions(labels)
    action_time = _action_times(time, dwell, action_impression, action_code, rng)
    return UserBlock(
        impressions=impressions,
        time=time,
        request_time=request_time,
        dwell=dwell,
        labels=labels,
        rows=rows,
        best_absolute=absolute,
        best_within_reach=within_reach(config, catalogue, known, rows, request_time),
        action_impression=action_impression,
        action_code=action_code,
        action_time=action_time,
        population=population,
    )


def _impressions(
    config: SimulatorConfig,
    catalogue: Catalogue,
    population: Population,
    sessions: Sessions,
    rng: np.random.Generator,
) -> Impressions:
    """Spread sessions and requests over their impressions; no item twice in one request."""
    request = np.repeat(np.arange(len(sessions.request_items)), sessions.request_items)
    offsets = np.cumsum(sessions.request_items) - sessions.request_items
    session = sessions.request_session[request]
    user, start = sessions.user[session], sessions.start[session]
    item = choose_items(config, catalogue, population, user, start, rng)
    repeated = np.zeros(len(item), bool)
    for lag in range(1, config.sessions.max_items):
        repeated[lag:] |= (item[lag:] == item[:-lag]) & (request[lag:] == request[:-lag])
    position = np.arange(len(item)) - offsets[request]
    surface = sessions.surface[session]
    shown = Impressions(user, session, request, position, item, start, surface)
    return shown.select(~repeated)


def _times(
    config: SimulatorConfig,
    sessions: Sessions,
    impressions: Impressions,
    dwell: Floats,
    rng: np.random.Generator,
) -> tuple[Integers, Integers]:
    """When every impression was shown and when its request was made.

    An item is shown once the one before has been watched; sessions of a user that would overlap
    are pushed back. The request is made 1 ms before its first item is shown.
    """
    think = rng.standard_exponential(len(dwell), dtype=np.float32)
    think *= np.float32(config.sessions.think_seconds)
    spent = ((dwell + think) * MILLISECONDS_PER_SECOND).astype(np.int64) + 2
    total = np.cumsum(spent)
    first = np.flatnonzero(np.diff(impressions.session, prepend=-1))
    session = impressions.session[first]  # every session of the block that was not dropped
    before = (total - spent)[first]
    length = np.diff(np.append(before, total[-1])) + SESSION_PAUSE_MS

    # start'_i = max over the user's j <= i of (start_j + the lengths of j ... i-1).
    elapsed = np.cumsum(length) - length
    user = sessions.user[session]
    user_offset = user * (elapsed[-1] + length[-1] + (config.end_ms - config.start_ms)) * 2
    lead = np.maximum.accumulate(sessions.start[session] - elapsed + user_offset)
    start = lead - user_offset + elapsed

    run = np.cumsum(np.diff(impressions.session, prepend=-1) != 0) - 1
    time = start[run] + (total - spent) - before[run] + 1
    first_of_request = np.diff(impressions.request, prepend=-1) != 0
    request_run = np.cumsum(first_of_request) - 1
    return time, (time[first_of_request] - 1)[request_run]


def _choose_rows(
    config: SimulatorConfig,
    impressions: Impressions,
    request_time: Integers,
    rng: np.random.Generator,
) -> Integers:
    """Impressions of a seeded share of the requests of the last days."""
    requests = int(impressions.request[-1]) + 1
    chosen = rng.random(requests) < config.request_share
    first = config.split_bounds[Split.FIT.value][0] - config.start_ms
    last = config.end_ms - config.start_ms
    in_time = (request_time >= first) & (request_time < last)
    return np.flatnonzero(in_time & chosen[impressions.request])


def _actions(labels: dict[str, Floats]) -> tuple[Integers, NDArray[np.int8]]:
    """Explicit events: the impression and the code of the action of every positive label."""
    impressions, codes = [], []
    for task, label in labels.items():
        found = np.flatnonzero(label == 1)
        impressions.append(found)
        codes.append(np.full(len(found), ACTION_TYPES.index(task), np.int8))
    return np.concatenate(impressions), np.concatenate(codes)


def _action_times(
    time: Integers,
    dwell: Floats,
    impression: Integers,
    code: NDArray[np.int8],
    rng: np.random.Generator,
) -> Integers:
    """Actions happen while the item is watched; skip and completion end the watching."""
    fraction = rng.random(len(impression), dtype=np.float32)
    fraction[np.isin(code, [ACTION_TYPES.index(task) for task in ENDING_ACTIONS])] = 1
    watched = fraction * dwell[impression] * MILLISECONDS_PER_SECOND
    return time[impression] + 1 + watched.astype(np.int64)

"""Report rows of a simulated log as an ideal observer predicts them (benchmarks/reach.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from benchmarks._beliefs import Beliefs, Recommender, inferred_beliefs, told_beliefs
from benchmarks._observer import Observer, Shown
from recsys.core.progress import track
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split
from recsys.data.simulator.block import (
    USERS_PER_BLOCK,
    UserBlock,
    generator_of,
    simulate_block,
)
from recsys.data.simulator.catalogue import Catalogue, make_catalogue
from recsys.data.simulator.config import LOGIT_TASKS, TASKS, SimulatorConfig
from recsys.data.simulator.latents import Impressions, Latents, known_quality
from recsys.data.simulator.outcomes import (
    Floats,
    dwell_truth,
    expected_sigmoid,
    response_variance,
    responses,
    stack_tasks,
)
from recsys.data.simulator.population import cell_of

Integers = NDArray[np.int64]

OBSERVERS = ("inferring", "told")


def observe(config: SimulatorConfig, users: int) -> pl.DataFrame:
    """Report rows of the first users with both truths and both observers' predictions.

    Returns:
        ``user``, ``request_time``, and for each task ``best_absolute_<task>``,
        ``best_within_reach_<task>``, ``told_<task>`` and ``inferring_<task>``.
    """
    catalogue = make_catalogue(config, generator_of(config, 0))
    recommender = Recommender.of(config, catalogue)
    frames = []
    with torch.inference_mode():
        for user, block, rows in track(_users(config, catalogue, users), "Observing", users):
            frames.append(_observe_user(recommender, catalogue, block, user, rows))
    return pl.concat(frames)


def _users(
    config: SimulatorConfig, catalogue: Catalogue, users: int
) -> Iterator[tuple[int, UserBlock, Integers]]:
    """Each user with their block and the positions of their report rows among its rows."""
    report = np.array(config.split_bounds[Split.REPORT.value]) - config.start_ms
    for first in range(0, users, USERS_PER_BLOCK):
        count = min(USERS_PER_BLOCK, config.users - first)
        generator = generator_of(config, first // USERS_PER_BLOCK + 1)
        block = simulate_block(config, catalogue, count, generator)
        time, owner = block.request_time[block.rows], block.impressions.user[block.rows]
        reported = (time >= report[0]) & (time < report[1])
        for user in range(min(count, users - first)):
            yield first + user, block, np.flatnonzero(reported & (owner == user))


def _observe_user(
    recommender: Recommender,
    catalogue: Catalogue,
    block: UserBlock,
    user: int,
    rows: Integers,
) -> pl.DataFrame:
    """The rows of one user with truths and predictions."""
    config = recommender.config
    in_block = user % USERS_PER_BLOCK
    impression = block.rows[rows]
    columns: dict[str, object] = {
        "user": np.full(len(rows), user),
        "request_time": block.request_time[impression] + config.start_ms,
    }
    values = {
        "best_absolute": stack_tasks(block.best_absolute)[rows],
        "best_within_reach": stack_tasks(block.best_within_reach)[rows],
    } | {name: np.empty((len(rows), len(TASKS)), np.float32) for name in OBSERVERS}
    own = np.flatnonzero(block.impressions.user == in_block)
    session = block.impressions.session[impression]
    for number in np.unique(session):
        asked = np.flatnonzero(session == number)
        moments = block.request_time[impression[asked]]
        for name, moment in zip(OBSERVERS, (moments.min(), moments.max()), strict=True):
            then = moment - config.gap_hours * MILLISECONDS_PER_HOUR
            past = own[block.time[own] < then]
            authors = catalogue.item_author[block.impressions.item[past]].astype(np.int64)
            beliefs = (
                told_beliefs(config, block.population, in_block)
                if name == "told"
                else inferred_beliefs(config, recommender, authors)
            )
            values[name][asked] = _predict(
                recommender, catalogue, block, beliefs, past, impression[asked]
            )
    for name, table in values.items():
        columns |= {f"{name}_{task.name}": table[:, k] for k, task in enumerate(TASKS)}
    return pl.DataFrame(columns)


def _predict(
    recommender: Recommender,
    catalogue: Catalogue,
    block: UserBlock,
    beliefs: Beliefs,
    past: Integers,
    rows: Integers,
) -> Floats:
    """Predictions of an observer who knows the past impressions, [rows, tasks]."""
    config = recommender.config
    history, _ = _shown(config, catalogue, block, past, block.time[past])
    then = block.request_time[rows] - config.gap_hours * MILLISECONDS_PER_HOUR
    asked, quality_variance = _shown(config, catalogue, block, rows, then)
    observer = Observer(recommender, beliefs, history, asked)
    mean, variance = (part.astype(np.float32) for part in observer.responses_of(asked))
    nothing, mood = np.zeros(len(rows), np.float32), config.interests.mood_sd**2
    for k, response in enumerate(responses(config)):
        variance[:, k] += response_variance(response, nothing, quality_variance, mood)
    predictions = {
        task: expected_sigmoid(mean[:, k], variance[:, k]) for k, task in enumerate(LOGIT_TASKS)
    }
    duration = catalogue.item_duration[block.impressions.item[rows]]
    predictions |= dwell_truth(config.dwell, mean[:, -1], variance[:, -1], duration)
    return stack_tasks(predictions)


def _shown(
    config: SimulatorConfig,
    catalogue: Catalogue,
    block: UserBlock,
    chosen: Integers,
    then: Integers,
) -> tuple[Shown, Floats]:
    """Impressions as the observer sees them, and the variance of their items' quality, [n]."""
    impressions = Impressions(
        **{name: column[chosen] for name, column in vars(block.impressions).items()}
    )
    quality, quality_variance = known_quality(config, catalogue, impressions.item, then)
    # What is left of the responses when every latent of the user is 0.
    nobody = replace(
        block.population,
        propensity=np.zeros_like(block.population.propensity),
        author_affinity=np.zeros(block.population.author_affinity.shape, np.float32),
    )
    known = Latents(config, catalogue, nobody, impressions).responses(
        np.zeros(len(chosen), np.float32), quality, 0.0
    )
    shown = Shown(
        topic=catalogue.item_topic[impressions.item].astype(np.int64),
        author=catalogue.item_author[impressions.item].astype(np.int64),
        session=impressions.session,
        cell=cell_of(impressions.start, config),
        known=np.stack([known[name] for name in (*LOGIT_TASKS, "dwell")], axis=1).astype(float),
        actions=np.stack([block.labels[task][chosen] for task in LOGIT_TASKS], axis=1),
        log_dwell=np.log(block.dwell[chosen]).astype(float),
    )
    return shown, quality_variance

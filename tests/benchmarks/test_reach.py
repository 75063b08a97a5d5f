"""The ideal observer: its posterior against references, its NE between its bounds."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli import bench
from recsys.cli.simulate import configure
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import Split
from recsys.data.simulator.config import LOGIT_TASKS, TASKS, ResponseConfig, SimulatorConfig
from recsys.data.simulator.population import survival
from recsys.evaluation.identity import CheckpointUsed, RunIdentity
from recsys.evaluation.predictions import write_predictions

reach = bench._load("reach")
beliefs_module = importlib.import_module("benchmarks._beliefs")
observed = importlib.import_module("benchmarks._observed")
observer_module = importlib.import_module("benchmarks._observer")
Beliefs, Recommender = beliefs_module.Beliefs, beliefs_module.Recommender
Observer, Shown = observer_module.Observer, observer_module.Shown

TASK_NAMES = [task.name for task in TASKS]
NO_RESPONSE = ResponseConfig(
    intercept=0.0, user_sd=0.0, interest=0.0, author=0.0, quality=0.0, mood=0.0
)
DWELL = len(LOGIT_TASKS)


def load_config(*overrides: str) -> SimulatorConfig:
    names = (f"simulator.{override}" for override in overrides)
    return configure(["simulator=demo", "out=unused", *names]).simulator


def dwell_only(config: SimulatorConfig, response: ResponseConfig, **dwell: float):
    """The configuration with actions that say nothing and exposure that says nothing."""
    return replace(
        config,
        actions=dict.fromkeys(LOGIT_TASKS, NO_RESPONSE),
        dwell=replace(config.dwell, response=response, **dwell),
        exposure=replace(config.exposure, sharpness=0.0),
    )


def recommender_of(config: SimulatorConfig, authors: int) -> Recommender:
    """Author a belongs to topic a; each is the topic's only one."""
    chances = np.ones(authors)
    return Recommender(np.arange(authors), chances, chances / authors, config)


def beliefs_about(topics: int, own: list[int], favourites: tuple[int, ...] = ()) -> Beliefs:
    """Stable N(0.2, 1) and short-term N(0, 0.36) of own topics, N(0, 0.16) of others."""
    favourite = np.zeros(topics)
    favourite[list(favourites)] = 1
    is_own = np.isin(np.arange(topics), own)
    return Beliefs(
        own_topics=np.array(own),
        topic_mean=np.where(is_own, 0.2, 0.0),
        topic_variance=np.where(is_own, 1.0, 0.16),
        short_variance=np.full(len(own), 0.36),
        author_mean=0.6 * favourite,
        author_variance=0.25 * favourite,
        favourite=favourite,
    )


def shown(topic, author, session, cell, log_dwell=None, actions=None) -> Shown:
    n = len(topic)
    return Shown(
        topic=np.array(topic),
        author=np.array(author),
        session=np.array(session),
        cell=np.array(cell),
        known=np.zeros((n, len(LOGIT_TASKS) + 1)),
        actions=np.zeros((n, len(LOGIT_TASKS))) if actions is None else actions,
        log_dwell=np.zeros(n) if log_dwell is None else np.array(log_dwell),
    )


def test_two_dwell_times_of_one_topic_by_hand() -> None:
    config = dwell_only(load_config(), replace(NO_RESPONSE, interest=1.0), noise_sd=1.0)
    history = shown([0, 0], [0, 0], [0, 1], [0, 6], log_dwell=[1.0, 2.0])
    row = shown([0], [0], [2], [12])
    posterior = Observer(recommender_of(config, 1), beliefs_about(1, [0]), history, row)
    mean, variance = posterior.responses_of(row)

    # 24 hours leave e^-1 of the short-term part: covariances 1 + 0.36 e^-days.
    one, two = 1 + 0.36 * np.exp(-1), 1 + 0.36 * np.exp(-2)
    observed_variance = 1 + 0.36 + 1  # with noise 1
    determinant = observed_variance**2 - one**2
    weights = np.array([two, one]) @ np.array(
        [[observed_variance, -one], [-one, observed_variance]]
    )
    weights /= determinant
    assert mean[0, DWELL] == pytest.approx(0.2 + weights @ [0.8, 1.8], abs=1e-5)
    assert variance[0, DWELL] == pytest.approx(1.36 - weights @ [two, one], abs=1e-5)


def test_dwell_alone_is_the_regression_on_all_its_gaussians() -> None:
    response = ResponseConfig(
        intercept=0.0, user_sd=0.7, interest=0.5, author=0.3, quality=0.0, mood=0.4
    )
    config = dwell_only(load_config(), response, max_seconds=1e9)
    rng, topics, own, favourites = np.random.default_rng(0), 5, [1, 3], (2, 3)
    n, asked = 60, 8
    topic, author = rng.integers(0, topics, (2, n + asked))
    session = np.sort(rng.integers(0, 9, n + asked))
    session[n:] += 100  # sessions to come
    cell, log_dwell = session % 100 * 4, rng.normal(0, 2, n)

    same_session = (session[:, None] == session) & (session < 100)
    is_own = np.isin(topic, own)
    same_topic = topic[:, None] == topic
    left = survival(config) ** np.abs(cell[:, None] - cell)
    stable = np.where(is_own, 1.0, 0.16) + np.where(is_own, 0.36, 0.0) * left
    same_author = (author[:, None] == author) & np.isin(author, favourites)
    covariance = 0.7**2 + 0.5**2 * same_topic * stable + 0.3**2 * 0.25 * same_author
    covariance += 0.4**2 * config.interests.mood_sd**2 * same_session
    prior = 0.5 * 0.2 * is_own + 0.3 * 0.6 * np.isin(author, favourites)
    noisy = covariance[:n, :n] + config.dwell.noise_sd**2 * np.eye(n)
    gain = covariance[n:, :n] @ np.linalg.inv(noisy)
    expected_mean = prior[n:] + gain @ (log_dwell - prior[:n])
    expected_variance = np.diag(covariance[n:, n:] - gain @ covariance[:n, n:])

    columns = (topic, author, session, cell)
    history = shown(*(column[:n] for column in columns), log_dwell=log_dwell)
    rows = shown(*(column[n:] for column in columns))
    beliefs = beliefs_about(topics, own, favourites)
    posterior = Observer(recommender_of(config, topics), beliefs, history, rows)
    mean, variance = posterior.responses_of(rows)
    np.testing.assert_allclose(mean[:, DWELL], expected_mean, atol=1e-4)
    np.testing.assert_allclose(variance[:, DWELL], expected_variance, atol=1e-4)


@pytest.mark.parametrize("positives", [0, 1, 10])
def test_the_chance_of_an_action_is_near_the_integral(positives: int) -> None:
    config = dwell_only(load_config(), replace(NO_RESPONSE, user_sd=0.01))
    config = replace(config, actions=config.actions | {"liked": replace(NO_RESPONSE, user_sd=2.0)})
    n, column, intercept = 300, LOGIT_TASKS.index("liked"), -5.0
    actions = np.zeros((n, len(LOGIT_TASKS)))
    actions[:positives, column] = 1
    history = shown(*[np.zeros(n, int)] * 4, actions=actions)
    history.known[:, column] = intercept
    row = shown([0], [0], [1], [6])
    row.known[:, column] = intercept
    posterior = Observer(recommender_of(config, 1), beliefs_about(1, [0]), history, row)
    mean, variance = posterior.responses_of(row)
    grid = np.linspace(-12, 12, 4001)
    gaussian = np.exp(-0.5 * (grid - (mean[0, column] - intercept)) ** 2 / variance[0, column])
    chance = 1 / (1 + np.exp(-intercept - grid))
    exact = np.exp(-0.5 * (grid / 2) ** 2) * chance**positives * (1 - chance) ** (n - positives)
    expected = (chance * exact).sum() / exact.sum()
    assert (chance * gaussian).sum() / gaussian.sum() == pytest.approx(expected, rel=0.1)


def test_cut_dwell_times_are_censored() -> None:
    config = load_config()
    limit, mean, step = np.log(config.dwell.max_seconds), np.array([4.0, 7.0]), 1e-4
    noise = config.dwell.noise_sd

    def log_chance(m: np.ndarray) -> np.ndarray:
        beyond = np.linspace(0, 30, 200_001)[:, None]
        density = np.exp(-0.5 * ((limit + beyond - m) / noise) ** 2)
        return np.log(density.sum(axis=0))

    values = [log_chance(mean + shift) for shift in (-step, 0, step)]
    slope, curvature = observer_module._dwell_slope(config, mean, np.full(2, limit))
    np.testing.assert_allclose(slope, (values[2] - values[0]) / (2 * step), rtol=1e-3)
    expected = -(values[2] - 2 * values[1] + values[0]) / step**2
    np.testing.assert_allclose(curvature, expected, rtol=1e-2)


def test_exposure_pulls_along_its_likelihood() -> None:
    config = load_config()
    rng = np.random.default_rng(3)
    topics, n = 6, 40
    author, cell = rng.integers(0, topics, n), rng.integers(0, 3, n) * 2
    history = shown(author, author, cell, cell)
    row = shown([0], [0], [9], [8])
    recommender = recommender_of(config, topics)
    observer = Observer(recommender, beliefs_about(topics, [0, 2, 5], (2,)), history, row)
    gradient = np.zeros(observer.size)
    observer._add_exposure(history, gradient, np.zeros((observer.size, observer.size)))

    def log_chance() -> float:
        slot, through_topic, other = observer._exposure(author)
        share = observer._topic_shares(observer._moving(cell - 6))
        by_topic = np.where(slot >= 0, through_topic * share[np.arange(n), slot], 0)
        return float(np.log(by_topic + other).sum())

    start = observer.mean.copy()
    for position in np.flatnonzero(gradient)[:6]:
        values = []
        for shift in (-1e-5, 1e-5):
            observer.mean = start.copy()
            observer.mean[position] += shift
            values.append(log_chance())
        assert gradient[position] == pytest.approx((values[1] - values[0]) / 2e-5, abs=1e-4)


def test_without_a_history_the_prior_answers() -> None:
    config = load_config()
    row = shown([0, 1], [0, 1], [0, 0], [3, 3])
    beliefs = beliefs_about(2, [0])
    observer = Observer(recommender_of(config, 2), beliefs, row.select(np.array([], int)), row)
    mean, variance = observer.responses_of(row)
    response = config.dwell.response
    expected = response.user_sd**2 + response.interest**2 * np.array([1.36, 0.16])
    np.testing.assert_allclose(variance[:, DWELL], expected, rtol=1e-5)
    assert mean[1, DWELL] == pytest.approx(0.0)


#: Few latents, so that a posterior is quick.
TINY = (
    "days=12",
    "fit_days=3",
    "report_days=1",
    "request_share=0.9",
    "catalogue.topics=20",
    "catalogue.authors=300",
    "catalogue.items=6000",
    "interests.topics_per_user=4",
    "interests.favourite_authors=5",
    "interests.grid_hours=12",
)
USERS = 16


@pytest.fixture(scope="module")
def short_and_long() -> list[pl.DataFrame]:
    """The same world with 230 and with 1,150 impressions per user."""
    scales = (0.02, 0.1)
    return [observed.observe(load_config(*TINY, f"activity.scale={s}"), USERS) for s in scales]


def losses(frame: pl.DataFrame, tasks: list[str]) -> dict[str, float]:
    names = ("inferring", "told", "best_within_reach")
    chosen = [task for task in TASKS if task.name in tasks]
    measured = [reach.measure(frame, task, list(names))["loss"] for task in chosen]
    return {name: float(np.mean([loss[name] for loss in measured])) for name in names}


@pytest.mark.parametrize("tasks", [["video_complete", "skip"], ["liked", "save", "profile_visit"]])
def test_the_observer_lies_between_reach_and_constant(
    short_and_long: list[pl.DataFrame], tasks: list[str]
) -> None:
    short, long = (losses(frame, tasks) for frame in short_and_long)
    for loss in (short, long):
        assert loss["best_within_reach"] < min(loss["told"], loss["inferring"])
        assert max(loss["told"], loss["inferring"]) < 1

    def distance(loss: dict[str, float]) -> float:
        return (loss["told"] - loss["best_within_reach"]) / (1 - loss["best_within_reach"])

    assert distance(long) < 0.7 * distance(short)


def test_the_observers_are_calibrated(short_and_long: list[pl.DataFrame]) -> None:
    for task in (task for task in TASKS if task.name in ("video_complete", "skip", "watch_time")):
        measured = reach.measure(short_and_long[1], task, ["told", "inferring", reach.REACH])
        for ratio in measured["calibration"].values():
            assert ratio == pytest.approx(1, abs=0.1)


def write_run(folder: Path, frame: pl.DataFrame, shrink: float) -> Path:
    """Predictions as a run leaves them: the truth within reach, moved towards its mean."""
    columns = {"row_id": pl.int_range(pl.len())}
    for name in TASK_NAMES:
        best = pl.col(f"best_within_reach_{name}")
        known = best.fill_nan(None)
        columns[f"prediction_{name}"] = known.mean() + (best - known.mean()) * shrink
    folder.mkdir()
    predicted = frame.sample(fraction=1, shuffle=True, seed=0).with_columns(**columns)
    used = CheckpointUsed("best.ckpt", "lowest", 1)
    run = RunIdentity(folder, "dv365", "small", "fingerprint", 0, used)
    write_predictions(run, Split.REPORT, predicted)
    return folder


def test_runs_are_set_beside_the_observers(
    short_and_long: list[pl.DataFrame], tmp_path: Path
) -> None:
    frame = short_and_long[0]
    without = write_run(tmp_path / "without", frame, 0.0)
    perfect = write_run(tmp_path / "with", frame, 1.0)
    joined = reach._join(reach._join(frame, "without", without), "with", perfect)
    assert joined.height == frame.height
    predictors = ["without", "with", "inferring", "told", reach.REACH]
    shares = reach.measure(joined, TASKS[0], predictors)["gain_captured"]
    assert shares["with"][0] == pytest.approx(1, abs=1e-6)
    assert 0 < shares["told"][0] < 1
    with pytest.raises(DataError, match="not evaluated on the report rows"):
        reach._join(short_and_long[1], "with", perfect)


def test_a_run_needs_one_to_be_compared_with() -> None:
    with pytest.raises(ConfigError, match="against="):
        reach.run(reach.Config(run_dir="runs/with"))

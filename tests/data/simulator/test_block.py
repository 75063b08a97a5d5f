from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys.data.contract.schema import ACTION_TYPES, MILLISECONDS_PER_HOUR
from recsys.data.simulator.block import USERS_PER_BLOCK, simulate_block
from recsys.data.simulator.config import TASKS
from recsys.data.simulator.latents import Latents, within_reach
from recsys.data.simulator.population import cell_of

BINARY = [task.name for task in TASKS if task.name != "watch_time"]


def gather(blocks, field: str, task: str) -> np.ndarray:
    return np.concatenate([getattr(block, field)[task] for block in blocks]).astype(np.float64)


def labels_of(blocks, task: str) -> np.ndarray:
    if task == "watch_time":
        return np.concatenate([block.dwell[block.rows] for block in blocks]).astype(np.float64)
    return np.concatenate([block.labels[task][block.rows] for block in blocks]).astype(np.float64)


def user_of_rows(blocks) -> np.ndarray:
    return np.concatenate(
        [block.impressions.user[block.rows] + n * USERS_PER_BLOCK for n, block in enumerate(blocks)]
    )


def clustered_error(residual: np.ndarray, cluster: np.ndarray) -> float:
    """Standard error of the sum of ``residual``, whose parts of one cluster may hang together."""
    return float(np.sqrt((np.bincount(cluster, weights=residual) ** 2).sum()))


@pytest.mark.parametrize("task", [task.name for task in TASKS])
@pytest.mark.parametrize("truth", ["best_absolute", "best_within_reach"])
def test_labels_are_as_likely_as_the_truth_says(blocks, truth, task):
    expected, label = gather(blocks, truth, task), labels_of(blocks, task)
    seen = ~np.isnan(label)
    expected, label, user = expected[seen], label[seen], user_of_rows(blocks)[seen]
    assert np.isnan(gather(blocks, truth, task)).sum() == (~seen).sum()
    edges = np.quantile(expected, [0.2, 0.4, 0.6, 0.8])
    bins = np.searchsorted(edges, expected)
    for number in range(5):
        inside = bins == number
        residual = label[inside] - expected[inside]
        assert abs(residual.sum()) < 4.5 * clustered_error(residual, user[inside]) + 5, number


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_the_mean_absolute_truth_given_the_past_is_the_truth_within_reach(blocks, task):
    absolute, reach = (
        gather(blocks, "best_absolute", task),
        gather(blocks, "best_within_reach", task),
    )
    seen = ~np.isnan(reach)
    absolute, reach, user = absolute[seen], reach[seen], user_of_rows(blocks)[seen]
    bins = np.searchsorted(np.quantile(reach, [0.25, 0.5, 0.75]), reach)
    for number in range(4):
        inside = bins == number
        residual = absolute[inside] - reach[inside]
        assert abs(residual.sum()) < 4.5 * clustered_error(residual, user[inside]), number
    assert absolute.std() > reach.std()


@pytest.mark.parametrize("task", ["liked", "skip", "video_complete", "profile_visit"])
def test_best_entropies_are_in_order(blocks, task):
    label = labels_of(blocks, task)
    seen = ~np.isnan(label)
    label = label[seen]

    def entropy(p: np.ndarray) -> float:
        return float(-np.mean(label * np.log(p) + (1 - label) * np.log1p(-p)))

    absolute, reach = (
        np.clip(gather(blocks, name, task)[seen], 1e-9, 1 - 1e-9)
        for name in ("best_absolute", "best_within_reach")
    )
    constant = entropy(np.full_like(label, label.mean()))
    assert entropy(absolute) < entropy(reach) < constant


def test_what_happens_in_the_gap_does_not_change_the_truth_within_reach(small_config, catalogue):
    block = simulate_block(small_config, catalogue, 64, np.random.default_rng(5))
    gap = small_config.gap_hours * MILLISECONDS_PER_HOUR
    last_known = cell_of(block.request_time[block.rows] - gap, small_config)
    cell = int(np.median(last_known))
    rows = block.rows[last_known <= cell]

    def reach(population):
        latents = Latents(small_config, catalogue, population, block.impressions)
        return within_reach(small_config, catalogue, latents, rows, block.request_time)

    before = reach(block.population)
    later = block.population.short_term.copy()
    later[:, cell - block.population.first_cell + 1 :] += 10
    after = reach(dataclasses.replace(block.population, short_term=later))
    earlier = block.population.short_term.copy()
    earlier[:, : cell - block.population.first_cell + 1] += 10
    changed = reach(dataclasses.replace(block.population, short_term=earlier))
    for task in before:
        np.testing.assert_array_equal(before[task], after[task])
    assert (changed["liked"] != before["liked"]).any()


def test_times_follow_from_request_to_impression_to_action(blocks):
    for block in blocks:
        assert (block.time > block.request_time).all()
        assert (block.action_time > block.time[block.action_impression]).all()
        watched = block.dwell[block.action_impression] * 1000 + 2
        assert (block.action_time - block.time[block.action_impression] <= watched).all()
        same_user = np.diff(block.impressions.user) == 0
        assert (np.diff(block.time)[same_user] > 0).all()
        same_request = np.diff(block.impressions.request) == 0
        assert (np.diff(block.request_time)[same_request] == 0).all()
        assert (np.diff(block.request_time)[same_user & ~same_request] > 0).all()


def test_every_positive_label_has_its_action(blocks):
    for block in blocks:
        for task in BINARY:
            actions = block.action_impression[block.action_code == ACTION_TYPES.index(task)]
            assert np.array_equal(np.sort(actions), np.flatnonzero(block.labels[task] == 1))


def test_items_are_out_when_they_are_shown_and_once_per_request(blocks, catalogue):
    for block in blocks:
        shown = block.impressions
        assert (catalogue.item_published[shown.item] <= shown.start).all()
        pairs = np.stack([shown.request, shown.item], axis=1)
        assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_dwell_grows_with_duration(blocks, catalogue):
    for block in blocks:
        duration = catalogue.item_duration[block.impressions.item]
        long, short = duration > 150, duration < 20
        assert np.median(block.dwell[long]) > 1.2 * np.median(block.dwell[short])

"""Tasks, hard negatives and the loss of the two-tower model, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from recsys.data.batches.sequences.shown import ShownItems
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.engagements.taken import actions_taken, pair_keys
from recsys.nn.interaction.mixture_of_logits import MixtureOfLogits, MixtureOfLogitsConfig
from recsys.nn.softmax.exclusions import Owned
from recsys.systems.two_tower.similarity import OneUserScores, mixed_scores
from recsys.systems.two_tower.tasks import log_shares


def store(user: list[int], item: list[int], action: list[int], time: list[int]) -> EngagementStore:
    arrays = {"user": user, "item": item, "action_type": action, "timestamp": time}
    return cast(Any, SimpleNamespace(**{name: np.array(value) for name, value in arrays.items()}))


def test_a_task_has_what_a_user_did_with_an_item_by_the_end() -> None:
    every = store([1, 1, 1, 2, 2], [5, 5, 6, 5, 6], [3, 4, 3, 4, 3], [10, 20, 30, 40, 99])
    pairs = pair_keys(np.array([1, 1, 2, 2]), np.array([5, 6, 5, 6]))
    taken = actions_taken(pairs, every, [3, 4], 99)
    assert taken.tolist() == [[True, True], [True, False], [False, True], [False, False]]


def test_hard_negatives_are_of_the_user_and_the_same_for_the_same_draw() -> None:
    shown = ShownItems(np.array([0, 0, 2, 2, 3]), np.array([7, 8, 9], np.int32))
    users = np.array([3, 2, 1, 0])
    drawn = shown.draw(users, 50, np.random.default_rng(0))
    assert len(drawn) == 100  # users 0 and 2 have nothing
    assert set(drawn[:50]) == {9} and set(drawn[50:]) == {7, 8}
    np.testing.assert_array_equal(drawn, shown.draw(users, 50, np.random.default_rng(0)))
    none = ShownItems(np.zeros(5, np.int64), np.zeros(0, np.int32))
    assert not len(none.draw(users, 50, np.random.default_rng(0)))


def test_shares_are_of_labels_and_of_hard_negatives() -> None:
    every = store([1, 1, 2, 2], [1, 1, 2, 3], [1] * 4, [1, 2, 3, 9])
    plain = log_shares(every, (0, 9), 4, None, 0.0).exp()
    np.testing.assert_allclose(plain, np.array([1, 3, 2, 1]) / 7, rtol=1e-6)
    shown = ShownItems(np.array([0, 0, 4]), np.array([3, 3, 3, 1], np.int32))
    mixed = log_shares(every, (0, 9), 4, shown, 2.0).exp()
    expected = (np.array([1, 3, 2, 1]) / 7 + 2 * np.array([0, 1, 0, 3]) / 4) / 3
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


def test_the_mask_of_owned_items() -> None:
    owned = Owned.from_pairs(torch.tensor([1, 0, 1]), torch.tensor([2, -1, 0]), 3)
    assert owned.mask(3).tolist() == [[False] * 3, [True, False, True], [False] * 3]


@pytest.mark.parametrize("size", [1, 7, 300])
def test_a_mixture_scores_an_item_the_same_whatever_is_beside_it(size: int) -> None:
    torch.manual_seed(0)
    mixture = MixtureOfLogits(8, 8, MixtureOfLogitsConfig(width=4, gate_hidden_size=8))
    user, items = torch.randn(8), torch.randn(600, 8)
    one = OneUserScores(mixture)
    together = one(user, items)
    place = torch.randperm(600)[:size]
    assert torch.equal(one(user, items[place]), together[place])
    found = mixed_scores(mixture, user.unsqueeze(0), items)[0]
    torch.testing.assert_close(found, together, atol=1e-4, rtol=1e-4)

"""Similarity baselines by hand; stale histories."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys.evaluation.baselines import similarity
from recsys.evaluation.baselines.similarity import last_item_embeddings, mean_history_embeddings
from recsys.evaluation.queries import EvaluationQueries
from tests.evaluation.engagements import DAY, store_of

ITEMS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
EVENTS = [(1, 1, 0), (1, 1, 1), (1, 2, DAY), (1, 3, 2 * DAY), (2, 3, 2 * DAY)]


def test_embeddings_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "MOST_QUERIES", 1)
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, 2 * DAY, 3 * DAY)
    assert queries.history_events.tolist() == [3, 0]
    assert last_item_embeddings(store, queries, ITEMS).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    mean = mean_history_embeddings(store, queries, ITEMS)
    # items 1, 1 and 2: (2, 1) / 3, normalised
    torch.testing.assert_close(mean, torch.tensor([[2.0, 1.0], [0.0, 0.0]]) / 5**0.5)


def test_a_stale_history_has_its_own_last_item(tmp_path: Path) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, 2 * DAY, 3 * DAY)
    stale = queries.as_of(store, queries.time - DAY)
    assert last_item_embeddings(store, stale, ITEMS).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    torch.testing.assert_close(mean_history_embeddings(store, stale, ITEMS), ITEMS[[1, 0]])

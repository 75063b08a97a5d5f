"""What the report computes from ranks, by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.evaluation.ranking import OUTSIDE_CORPUS
from recsys.evaluation.retrieval_metrics import RetrievalMetric
from recsys.reports import rank_numbers
from recsys.reports.rank_numbers import by_history_length, hits_curve, ranked_candidates

FRAME = pl.DataFrame(
    {
        "history_events": [0, 0, 1, 3, 4, 120],
        "rank_all": [1, 2, 1, 40, OUTSIDE_CORPUS, 1],
        "rank_batch": [1, None, None, 3, 1, None],
        "rank_unseen_batch": pl.Series([None] * 6, dtype=pl.Int64),
    }
)


def test_candidates_without_a_query_are_not_shown() -> None:
    assert ranked_candidates(FRAME) == ["all", "batch"]


def test_the_curve_over_k() -> None:
    k, hits = hits_curve(FRAME, "all")
    share = dict(zip(k, hits, strict=True))
    assert share[1] == 3 / 6 and share[2] == 4 / 6
    assert share[max(k)] == 5 / 6  # a target outside the corpus is found at no K
    assert dict(zip(*hits_curve(FRAME, "batch"), strict=True))[1] == 2 / 3  # of the ranked ones
    assert np.all(np.diff(hits) >= 0)


def test_by_history_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_numbers, "FEWEST_QUERIES", 1)
    labels, lines = by_history_length(FRAME, ["all", "batch"], RetrievalMetric("hits", 2))
    assert labels == ["0\nn=2", "1\nn=1", "2 to 4\nn=2", "100 or more\nn=1"]
    assert lines["all"] == [1, 1, 0, 1]
    np.testing.assert_array_equal(lines["batch"], [1, np.nan, 0.5, np.nan])
    monkeypatch.setattr(rank_numbers, "FEWEST_QUERIES", 2)
    labels, _ = by_history_length(FRAME, ["all"], RetrievalMetric("hits", 2))
    assert labels == ["0\nn=2", "2 to 4\nn=2"]

"""What the candidates of a split's queries are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.contract.schema import Split
from recsys.evaluation.retrieval import ALL, RetrievalEvaluationConfig, RetrievalProtocol
from tests.evaluation.engagements import store_of

#: User 1 goes back to item 1 after 2 and 3; user 2 has seen 4.
EVENTS = [(1, 1, 10), (1, 2, 20), (1, 3, 30), (2, 4, 10), (1, 1, 110)]


class _ByNumber:
    """Scores item n as −n: item 1 is best but for 0, which is no item."""

    def score(self, queries: slice) -> Tensor:
        return -torch.arange(5.0).repeat(queries.stop - queries.start, 1)


@pytest.mark.parametrize("repeats", [False, True])
def test_history_stays_among_the_candidates_where_repeats_count(
    tmp_path: Path, repeats: bool
) -> None:
    events = [*EVENTS, (2, 4, 120)] if repeats else EVENTS
    store = store_of(tmp_path, [*events, (1, 4, 130)], repeats=repeats)
    bounds = {Split.FIT: (0, 50), Split.CHOOSE: (50, 100), Split.REPORT: (100, 200)}
    dataset = SimpleNamespace(manifest=SimpleNamespace(split_bounds=bounds, name="log"))
    known = np.array([False, True, True, True, True])
    config = RetrievalEvaluationConfig(candidates=[ALL], max_queries=None)
    protocol = RetrievalProtocol(config, dataset, store, known, Split.REPORT)
    ranks = protocol.rank(_ByNumber(), protocol.candidates())[ALL]
    rank = dict(zip(protocol.queries.time.tolist(), ranks.rank.tolist(), strict=True))
    # the last query of user 1 asks for item 4, whose betters 1, 2 and 3 are all history
    assert rank[130] == (4 if repeats else 1)
    # what a user goes back to is ranked among everything
    assert rank[110] == 1
    expected = "the user's history stays" if repeats else "the user's history is removed"
    assert ranks.candidates.endswith(expected)

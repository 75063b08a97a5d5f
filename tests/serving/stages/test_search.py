"""The search of one index, which keeps to what it may give."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.core.errors import ArtifactError
from recsys.serving.pipeline import Restriction
from recsys.serving.stages.search import NearestItems
from tests.serving.corpus import embeddings, ids_at, index_of, step


def test_each_user_gets_his_nearest_items_of_those_he_may_get() -> None:
    index = index_of(range(20))
    source, users = NearestItems(index, k=3), step([1, 2])
    free = source.find(users, embeddings(20)[[4, 7]], Restriction())
    assert free.slot.shape == (2, 3) and free.slot[:, 0].tolist() == [4, 7]
    ranking = [
        ids_at(index, row)
        for row in NearestItems(index, 20).find(users, embeddings(20)[[4, 7]], Restriction()).slot
    ]
    eligible = np.arange(20) != 7
    exclude = [np.array([4, 7]), np.array([], np.int64)]
    found = source.find(users, embeddings(20)[[4, 7]], Restriction(eligible, exclude))
    assert ids_at(index, found.slot[0]) == [one for one in ranking[0] if one not in (4, 7)][:3]
    assert ids_at(index, found.slot[1]) == [one for one in ranking[1] if one != 7][:3]


def test_embeddings_of_another_width_are_refused() -> None:
    with pytest.raises(ArtifactError, match="come from different models"):
        NearestItems(index_of([1]), 1).find(step([1]), np.ones((1, 3), np.float32), Restriction())

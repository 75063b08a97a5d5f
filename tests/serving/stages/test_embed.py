"""Users as a tower sees them at a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.artifacts.sequence_tower import load_sequence_tower
from recsys.core.errors import ArtifactError
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore
from recsys.serving.histories import Histories
from recsys.serving.stages.embed import UserEmbedder
from tests.index.conftest import ITEMS, START, WIDTH
from tests.serving.corpus import step


@pytest.fixture
def histories(dataset: PreparedDataset) -> Histories:
    known = np.arange(ITEMS + 1) > 0
    store = EngagementStore.open(dataset, SequenceConfig(), known)
    return Histories(SequenceReader(dataset, store, 5))


def test_embeddings_rest_on_what_was_engaged_with_before_the_moment(
    artifact: Path, histories: Histories
) -> None:
    items = np.random.default_rng(1).standard_normal((ITEMS + 1, WIDTH)).astype(np.float32)
    stage = UserEmbedder(load_sequence_tower(artifact).embed, histories, items)
    late = stage.embed(step([1, 2, 3, 0], START + 91))
    assert late.embedding.shape == (4, WIDTH) and late.events.tolist() == [2, 1, 1, 0]
    early = stage.embed(step([1, 2, 3, 0], START + 20))
    assert early.events.tolist() == [1, 1, 0, 0]
    alone = stage.embed(step([3], START + 91))
    np.testing.assert_allclose(alone.embedding[0], late.embedding[2], atol=1e-6)


def test_a_tower_that_diverged_is_named(histories: Histories) -> None:
    def tower(batch: object, items: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0], [float("nan")]])

    stage = UserEmbedder(tower, histories, np.zeros((ITEMS + 1, 1), np.float32))
    with pytest.raises(ArtifactError, match=r"for 1 of 2 users \(user index 3 is the first\)"):
        stage.embed(step([1, 3], START))

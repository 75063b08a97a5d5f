"""A table whose slices are all empty on a data set does not stand in the way of the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from recsys.data.batches.requests import JaggedTimeline
from recsys.data.contract.schema import ACTION_TYPES, EXPLICIT_COLUMNS, IMPLICIT_COLUMNS, LENGTHS
from recsys.data.slices.families import ActionFamily, SliceConfig
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.pooling.slice_pooling import SlicePooling
from recsys.optim.fused import FusedOptimizerConfig, fuse_tables


def timeline(columns: dict[str, np.dtype], events: int) -> JaggedTimeline:
    filled = {name: torch.from_numpy(np.ones(events, dtype)) for name, dtype in columns.items()}
    return {LENGTHS: torch.tensor([events]), **filled}


@pytest.fixture
def slice_set() -> SliceSet:
    """Likes of videos, which a log of articles lacks, and of anything."""
    family = ActionFamily(
        actions=["liked"], media_types=["video", "any"], ids=["item"], windows=["all"]
    )
    expanded = SliceSet.from_config(SliceConfig(actions=[family]), ("feed",), ("article",))
    assert [table.name.endswith("video") for table in expanded.tables] == [True, False]
    return expanded


def test_slices_of_a_media_type_the_log_lacks_pool_to_zero(slice_set: SliceSet) -> None:
    model = nn.ModuleDict({"pooling": CellPooling(slice_set, {"item": 5}, 4)})
    fuse_tables(model, FusedOptimizerConfig())
    explicit = timeline(EXPLICIT_COLUMNS, 1)
    explicit["action_type"][:] = ACTION_TYPES.index("liked")

    pooled = model["pooling"](explicit, timeline(IMPLICIT_COLUMNS, 0), torch.tensor([1000]))

    weight = model["pooling"].state_dict()
    [row] = [table[1] for name, table in weight.items() if "embedding_bags" in name]
    torch.testing.assert_close(pooled, torch.stack([torch.zeros(4), row]).unsqueeze(0))


def test_weights_load_into_the_reference_which_pools_the_same(slice_set: SliceSet) -> None:
    cell, reference = (
        pooling(slice_set, {"item": 5}, 4) for pooling in (CellPooling, SlicePooling)
    )
    reference.load_state_dict(cell.state_dict())
    explicit = timeline(EXPLICIT_COLUMNS, 1)
    explicit["action_type"][:] = ACTION_TYPES.index("liked")
    batch = (explicit, timeline(IMPLICIT_COLUMNS, 0), torch.tensor([1000]))
    torch.testing.assert_close(reference(*batch), cell(*batch))

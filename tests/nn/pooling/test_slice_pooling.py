from __future__ import annotations

import math

import torch

from recsys.data.slices.families import DebiasedScoreFamily, Range, SliceConfig, WatchTimeFamily
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.pooling.slice_pooling import SlicePooling
from tests.nn.pooling.slice_samples import NOW, ROWS, SMALL, expand, timelines

DAY = 86_400_000


def test_weighted_and_plain_means_by_hand():
    """Two events of one request with scores 1 and ln(31)/ln(11) at gamma 1."""
    config = SliceConfig(
        watch_time=[WatchTimeFamily(ranges=[Range(0, 11), Range(0)], ids=["item"], windows=["3d"])],
        debiased_score=[DebiasedScoreFamily(gammas=[1.0], thresholds=[0.5, 1.0], ids=["item"])],
    )
    pooling = SlicePooling(expand(config), ROWS, 2)
    with torch.no_grad():
        for weight in pooling.parameters():
            weight.copy_(torch.arange(60.0).view(30, 2))
    _, implicit, request_time = timelines([2], seed=0)
    implicit["item"] = torch.tensor([1, 35], dtype=torch.int32)  # rows 1 and 5: [2, 3], [10, 11]
    implicit["dwell_time"] = torch.tensor([10.0, 30.0])
    implicit["video_duration"] = torch.tensor([10.0, 10.0])
    implicit["timestamp"] = torch.tensor([NOW - 3 * DAY, NOW - DAY])
    pooled = pooling(timelines([0], seed=0)[0], implicit, request_time)[0]
    score = math.log(31) / math.log(11)
    both = (2 + score * 10) / (1 + score)
    expected = torch.tensor([[2.0, 3.0], [6.0, 7.0], [both, both + 1], [10.0, 11.0]])
    torch.testing.assert_close(pooled, expected)


def test_tables_have_the_names_and_shapes_of_cell_pooling():
    slice_set = expand(SMALL)
    cell, reference = CellPooling(slice_set, ROWS, 4), SlicePooling(slice_set, ROWS, 4)
    shapes = [
        {name: tuple(weight.shape) for name, weight in pooling.state_dict().items()}
        for pooling in (cell, reference)
    ]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == len(slice_set.tables)

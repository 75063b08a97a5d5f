"""On CUDA the events of timelines come into the cells, and in the order, that they do on a CPU."""

from __future__ import annotations

import pytest
import torch

from recsys.nn.pooling.cell_pooling import CellPooling
from tests.nn.pooling.slice_samples import SMALL, expand, timelines

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("lengths", [[0, 1, 60, 20], [3000] * 40])
def test_lookups_are_those_of_the_cpu(lengths: list[int]) -> None:
    explicit, implicit, request_time = timelines(lengths, seed=0)
    rows = {"item": 1000, "author": 100, "topic": 20}
    pooling = CellPooling(expand(SMALL), rows, dimension=8)
    expected = pooling.lookups(explicit, implicit, request_time)
    on_gpu = [{name: column.cuda() for name, column in one.items()} for one in (explicit, implicit)]
    found = pooling.cuda().lookups(*on_gpu, request_time.cuda())
    for ours, reference in zip(found[:2], expected[:2], strict=True):
        assert ours is not None and reference is not None
        assert torch.equal(ours.lengths().cpu(), reference.lengths())
        assert torch.equal(ours.values().cpu(), reference.values())
    torch.testing.assert_close(found[2].cpu(), expected[2])

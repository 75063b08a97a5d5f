from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from recsys.data.contract.schema import MILLISECONDS_PER_DAY, TimelineKind
from recsys.data.slices.families import (
    ActionFamily,
    EventKinds,
    Range,
    SliceConfig,
    WatchTimeFamily,
)
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.pooling import cells
from recsys.nn.pooling.cell_pooling import TimelineCells, events_of_cells
from recsys.nn.pooling.cells import partition_cells
from tests.nn.pooling.slice_samples import SMALL, SURFACES, configs, expand, timelines

FULL = Path(__file__).parents[3] / "conf" / "slices" / "full.yaml"


def test_nested_ranges_and_windows_by_hand():
    """Two nested ranges x two windows: 4 slices, 4 cells (which range x which window)."""
    family = WatchTimeFamily(ranges=[Range(3), Range(15)], ids=["item"], windows=["3d", "all"])
    (partition,) = partition_cells(
        expand(SliceConfig(watch_time=[family])), TimelineKind.IMPLICIT
    ).partitions
    # Slices: [3,inf) 3d, [3,inf) all, [15,inf) 3d, [15,inf) all.
    expected = {(1, 1, 0, 0), (0, 1, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1)}
    assert {tuple(column) for column in partition.incidence.T.astype(int)} == expected


def test_the_full_set_has_few_cells():
    schema = OmegaConf.structured(SliceConfig)
    config = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(FULL)))
    slice_set = expand(config)
    looked_up = 0
    for timeline in TimelineKind:
        partitions = partition_cells(slice_set, timeline)
        looked_up += sum(partitions.partitions[one.partition].cells for one in partitions.lookups)
    assert looked_up <= 3 * len(slice_set.slices)


def test_id_types_of_a_group_share_one_partition():
    family = WatchTimeFamily(ranges=[Range(3)])
    partitions = partition_cells(expand(SliceConfig(watch_time=[family])), TimelineKind.IMPLICIT)
    assert len(partitions.partitions) == 1
    assert [one.column for one in partitions.lookups] == [0, 1, 2]


@pytest.mark.parametrize("window", ["3d", "7d", "400d"])
def test_a_window_ends_at_the_millisecond(window: str):
    """An age of years in ms is no float32: neighbours of the edge must not be rounded onto it."""
    family = WatchTimeFamily(ranges=[Range()], ids=["item"], windows=[window, "all"])
    slice_set = expand(SliceConfig(watch_time=[family]))
    _, implicit, request_time = timelines([9], seed=0)
    implicit["dwell_time"][:] = 1.0
    edge = int(window.removesuffix("d")) * MILLISECONDS_PER_DAY
    implicit["timestamp"] = request_time - edge + torch.arange(-4, 5)
    assert_cells_are_members(slice_set, TimelineKind.IMPLICIT, implicit, request_time)


@given(configs(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_cells_hold_exactly_the_members_of_their_slices(config: SliceConfig, seed: int):
    slice_set = expand(config)
    explicit, implicit, request_time = timelines([0, 1, 60, 20], seed)
    for timeline, events in (
        (TimelineKind.EXPLICIT, explicit),
        (TimelineKind.IMPLICIT, implicit),
    ):
        assert_cells_are_members(slice_set, timeline, events, request_time)


def test_cells_of_media_that_a_log_has_not_are_torchscript_too():
    """Their attribute has no bound: an empty list, of a type that TorchScript must be told."""
    family = ActionFamily(actions=["liked"], media_types=["video"], ids=["item"], windows=["all"])
    config = SliceConfig(actions=[family], watch_time=[WatchTimeFamily(ranges=[Range(3)])])
    slice_set = SliceSet.from_config(config, SURFACES, ["photo"], EventKinds(undwelled=True))
    explicit, implicit, request_time = timelines([0, 5, 20], seed=0)
    for timeline, events in ((TimelineKind.EXPLICIT, explicit), (TimelineKind.IMPLICIT, implicit)):
        cells_of = TimelineCells(partition_cells(slice_set, timeline))
        expected = cells_of(events, request_time)
        found = torch.jit.script(cells_of)(events, request_time)
        for one, other in zip(expected, found, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_cells_are_members(
    slice_set: SliceSet,
    timeline: TimelineKind,
    events: dict[str, torch.Tensor],
    request_time: torch.Tensor,
) -> None:
    columns = {name: column.numpy() for name, column in events.items()}
    moments = np.repeat(request_time.numpy(), columns["lengths"])
    request = np.repeat(np.arange(len(request_time)), columns["lengths"])
    member = slice_set.membership(timeline, columns, moments)
    partitions = partition_cells(slice_set, timeline)
    all_orders, lengths, weights = TimelineCells(partitions)(events, request_time)
    orders, _ = events_of_cells(all_orders, lengths, weights)
    for one in partitions.lookups:
        order, length = orders[one.partition].numpy(), lengths[one.partition].numpy()
        incidence = partitions.partitions[one.partition].incidence
        asked = member[list(one.slices)]
        # Every event of any slice is looked up once, no other one is.
        assert sorted(order) == np.flatnonzero(asked.any(axis=0)).tolist()
        cell = np.repeat(np.arange(len(length)), length.sum(axis=1))
        assert (incidence[:, cell] == asked[:, order]).all()
        # Sorted by (cell, request), then by time.
        keys = list(zip(cell, request[order], order, strict=True))
        assert keys == sorted(keys)
        counted = np.zeros_like(length)
        np.add.at(counted, (cell, request[order]), 1)
        assert (counted == length).all()


def test_too_many_combinations_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cells, "MAX_CODES", 8)
    with pytest.raises(cells.ConfigError, match="fewer ranges"):
        partition_cells(expand(SMALL), TimelineKind.IMPLICIT)


def test_many_cells_are_sorted_by_wider_keys():
    family = WatchTimeFamily(
        ranges=[Range(k, k + 1) for k in range(120)], ids=["item"], windows=["3d", "7d", "all"]
    )
    slice_set = expand(SliceConfig(watch_time=[family]))
    _, implicit, request_time = timelines([40, 40], 0)
    implicit["dwell_time"] = torch.arange(80) * 1.5
    assert_cells_are_members(slice_set, TimelineKind.IMPLICIT, implicit, request_time)


@pytest.mark.parametrize("events", [0, 5_999, 6_000, 20_000, 32_767, 32_768, 40_000])
def test_events_lie_by_cell_however_many_there_are(events: int):
    """Fewer than torch sorts by bytes are filled up to that."""
    family = WatchTimeFamily(ranges=[Range(3), Range(15)], ids=["item"], windows=["3d", "all"])
    made = partition_cells(expand(SliceConfig(watch_time=[family])), TimelineKind.IMPLICIT)
    assignment = cells.CellAssignment(made.partitions[0], made.bins)
    cell = torch.from_numpy(np.random.default_rng(events).integers(0, 5, events).astype(np.uint8))
    expected = np.argsort(cell.numpy(), kind="stable")
    assert torch.equal(assignment._by_cell(cell), torch.from_numpy(expected))

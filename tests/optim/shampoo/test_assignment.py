"""Who works on which blocks, and when their roots are due."""

from __future__ import annotations

import pytest

from recsys.optim.shampoo.assignment import RootSchedule, assign, block_cost
from recsys.optim.shampoo.blocks import WeightBlock, blocks_of
from recsys.optim.shampoo.settings import GroupSettings


def test_the_largest_first_to_who_has_least() -> None:
    loads = [0.0, 0.0]
    assert assign([3, 7, 4, 4], loads) == [0, 0, 1, 1]
    assert loads == [10, 8]
    assert assign([1, 5], loads) == [0, 1]


def test_more_workers_than_pieces() -> None:
    assert assign([1, 2], [0.0] * 4) == [1, 0]


def test_cost_by_hand() -> None:
    """Factor matrices and preconditioning: 2·m·n·(m + n); roots: 10·(m³ + n³) each 100 steps."""
    block = WeightBlock(0, 0, (), (3, 2), (3, 2), (3, 2))
    settings = GroupSettings(precondition_frequency=100)
    assert block_cost(block, settings) == pytest.approx(60 + 10 * (27 + 8) / 100)


def due_of(settings: GroupSettings, steps: int) -> list[list[int]]:
    schedule = RootSchedule([blocks_of(0, (4, 4), 2)])
    return [schedule.due(settings, step)[0] for step in range(1, steps + 1)]


def test_all_at_once_from_the_start_on() -> None:
    settings = GroupSettings(precondition_frequency=3, start_preconditioning_step=5)
    all_blocks = [0, 1, 2, 3]
    assert due_of(settings, 9) == [[], [], [], [], all_blocks, all_blocks, [], [], all_blocks]


def test_a_share_at_every_step() -> None:
    settings = GroupSettings(
        precondition_frequency=2, start_preconditioning_step=4, spread_root_inverse=True
    )
    due = due_of(settings, 6)
    assert due[:2] == [[], []]
    assert sorted(due[2] + due[3]) == [0, 1, 2, 3] and len(due[2]) == len(due[3]) == 2
    assert due[4:] == due[2:4]


def test_a_changed_frequency_deals_the_shares_anew() -> None:
    """As a loaded state may change it; no block may be left without a turn."""
    schedule = RootSchedule([blocks_of(0, (4, 4), 2)])
    for frequency in (8, 2, 4):
        settings = GroupSettings(precondition_frequency=frequency, spread_root_inverse=True)
        due = [schedule.due(settings, step)[0] for step in range(1, frequency + 1)]
        assert sorted(row for rows in due for row in rows) == [0, 1, 2, 3]

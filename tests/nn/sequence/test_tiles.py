from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.nn.sequence.tiles import Tile, TiledAttention, cut_tiles, length_order


def tiles_of(lengths: list[int], max_scores: int) -> list[Tile]:
    return cut_tiles(torch.tensor(lengths, dtype=torch.int64), lengths, max_scores)


def test_order_by_length_worked_example():
    # users of 1, 0, 3 and 3 steps: the third comes first, then the fourth, then the first
    order = length_order(torch.tensor([1, 0, 3, 3]), 7)
    assert order.tolist() == [1, 2, 3, 4, 5, 6, 0]


def test_tiles_worked_example():
    # scores of two users of 3 steps fit in 20, a third one of any length does not
    tiles = tiles_of([3, 3, 2, 1, 0], max_scores=20)
    assert [(tile.users, tile.length, tile.num_steps) for tile in tiles] == [(2, 3, 6), (3, 2, 3)]
    assert tiles[1].slots.tolist() == [0, 1, 2]


def test_a_user_too_long_for_a_tile_has_one_alone():
    tiles = tiles_of([9, 9, 1], max_scores=20)
    assert [(tile.users, tile.length) for tile in tiles] == [(1, 9), (1, 9), (1, 1)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=15), st.integers(1, 200))
def test_tiles_cover_every_step_once(lengths, max_scores):
    lengths = torch.tensor(lengths, dtype=torch.int64)
    order = length_order(lengths, int(lengths.sum()))
    assert sorted(order.tolist()) == list(range(int(lengths.sum())))
    # the steps of each user stay together and in order
    user = torch.repeat_interleave(lengths)[order]
    step = torch.cat([torch.arange(n) for n in lengths.tolist()] or [lengths])[order]
    new_user = torch.ones(len(user), dtype=torch.bool)
    new_user[1:] = user[1:] != user[:-1]
    assert int(new_user.sum()) == int((lengths > 0).sum())
    assert torch.equal(step == 0, new_user)

    tiles = tiles_of(lengths.sort(descending=True).values.tolist(), max_scores)
    assert sum(tile.num_steps for tile in tiles) == lengths.sum()
    for tile in tiles:
        assert len(tile.slots) == tile.num_steps
        assert len(set(tile.slots.tolist())) == tile.num_steps
        assert int(tile.slots.max()) < tile.users * tile.length
        assert tile.users == 1 or tile.users * tile.length**2 <= max_scores


@pytest.mark.parametrize("heads", [0, 3])
def test_refuses_heads_that_do_not_divide_the_width(heads):
    with pytest.raises(ConfigError, match=rf"heads={heads} .* width 8 .* \[1, 2, 4, 8\]"):
        TiledAttention(8, heads)

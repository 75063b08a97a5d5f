"""Pools: items once, who owns which, samples, accidental hits."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.nn.softmax.exclusions import Exclusions, Owned, expand_ranges
from recsys.nn.softmax.pool import sample_pool
from recsys.nn.softmax.pool_softmax import pool_softmax_loss


def owned_lists(owned: Owned) -> list[list[int]]:
    bounds = owned.offsets.tolist()
    return [owned.items[first:last].tolist() for first, last in itertools.pairwise(bounds)]


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=12)


@settings(max_examples=50, deadline=None)
@given(pairs=pairs)
def test_owned_from_pairs(pairs: list[tuple[int, int]]) -> None:
    owner, position = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    owned = Owned.from_pairs(owner, position, num_owners=4)
    expected = [[item for user, item in pairs if user == u] for u in range(4)]
    assert owned_lists(owned) == expected


def test_owned_of_an_empty_pool() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    owned = Owned.from_pairs(nothing, nothing, num_owners=2)
    assert owned.offsets.tolist() == [0, 0, 0]
    owned = Owned.from_pairs(nothing, nothing + 1, num_owners=2).in_pool(nothing)
    assert owned_lists(owned.among(nothing).without_others()) == [[], []]


def test_owned_items_by_their_ids() -> None:
    owner, item = torch.tensor([1, 0, 0, 2]), torch.tensor([50, 60, 99, 10])
    owned = Owned.from_pairs(owner, item, num_owners=4).in_pool(torch.tensor([50, 60, 70]))
    assert owned_lists(owned) == [[1, -1], [0], [-1], []]
    assert owned_lists(owned.without_others()) == [[1], [0], [], []]
    of_nothing = Owned.from_pairs(owner, item, num_owners=3).in_pool(torch.arange(0))
    assert owned_lists(of_nothing) == [[-1, -1], [-1], [-1]]
    assert owned_lists(of_nothing.among(torch.arange(0))) == [[-1, -1], [-1], [-1]]


def test_owned_among_some_columns() -> None:
    owned = Owned(torch.tensor([0, 2, 2, 5]), torch.tensor([0, 3, 1, 3, -1]))
    column = torch.tensor([-1, 0, -1, 1])
    assert owned_lists(owned.among(column)) == [[-1, 1], [], [0, 1, -1]]
    assert owned_lists(owned.among(column).without_others()) == [[1], [], [0, 1]]


def test_excluded_pairs_of_some_rows() -> None:
    owned = Owned(torch.tensor([0, 1, 3]), torch.tensor([4, 0, 2]))
    exclusions = Exclusions(torch.tensor([4, 0, -1]), torch.tensor([0, 1, 1]), owned)
    row, column = exclusions.pairs(slice(1, 3))
    pairs = set(zip(row.tolist(), column.tolist(), strict=True))
    assert pairs == {(0, 0), (0, 2), (1, 0), (1, 2)}


def test_expand_ranges() -> None:
    of_range, number = expand_ranges(torch.tensor([5, 0, 8]), torch.tensor([2, 0, 1]))
    assert of_range.tolist() == [0, 0, 2]
    assert number.tolist() == [5, 6, 8]


def test_accidental_hits_are_ruled_out() -> None:
    """A pool with copies and its copies masked loses as the pool without them does."""
    label_items = torch.tensor([3, 8, 3, 5])  # the first and third query have the same item
    embeddings = torch.randn(9, 4, dtype=torch.float64)
    queries = torch.randn(4, 4, dtype=torch.float64)
    target = torch.arange(4)
    items, owner = label_items.unique(return_inverse=True)  # each target's item owns its copies
    owned = Owned.from_pairs(owner, target, len(items))
    first = slice(0, 1)
    with_copies = pool_softmax_loss(
        queries[first], embeddings[label_items], target[first], owner=owner[first], owned=owned
    )
    pool_items, position = label_items.unique(return_inverse=True)
    without = pool_softmax_loss(queries[first], embeddings[pool_items], position[first])
    torch.testing.assert_close(with_copies, without)
    hit = pool_softmax_loss(queries[first], embeddings[label_items], target[first])
    assert hit > with_copies


def test_a_sample_is_uniform_and_without_repetition() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(2000):
        positions = sample_pool(10, 3, generator=generator)
        assert len(set(positions.tolist())) == 3
        counts[positions] += 1
    assert (counts / 2000 - 0.3).abs().max() < 0.04  # four standard deviations
    assert sorted(sample_pool(4, 9).tolist()) == [0, 1, 2, 3]

"""Trees of items, and the descent against the best of all items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.index.hierarchy.descent import Allowed, Scores, descend
from recsys.index.hierarchy.tree import LevelHealth, Occupancy, Tree, tree_occupancy


def test_items_lie_below_their_nodes() -> None:
    tree = Tree.of(np.array([[1, 0], [0, 2], [1, 0]]))
    assert [one.tolist() for one in tree.codes] == [[[0], [1]], [[0, 2], [1, 0]]]
    assert [one.tolist() for one in tree.offsets] == [[0, 1, 2], [0, 1, 3]]
    assert tree.items.tolist() == [1, 0, 2]
    assert [one.tolist() for one in tree.nodes] == [[1, 0, 1], [1, 0, 1]]
    assert tree.below(0, np.array([1, 0, 1])).tolist() == [0, 2]


@given(st.integers(0, 3), st.integers(0, 40), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_every_item_is_below_one_node_of_each_level(levels: int, items: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, (items, levels))
    tree = Tree.of(codes)
    assert sorted(tree.items.tolist()) == list(range(items))
    for level in range(levels):
        np.testing.assert_array_equal(tree.codes[level][tree.nodes[level]], codes[:, : level + 1])
        below = len(tree.codes[level + 1]) if level + 1 < levels else items
        assert tree.offsets[level][0] == 0 and tree.offsets[level][-1] == below


def test_health_says_how_even_nodes_are() -> None:
    even = LevelHealth.of(np.array([0, 1, 2, 3]), 4)
    assert (even.used, even.largest_over_mean, even.largest_share) == (4, 1, 0.25)
    assert even.entropy == pytest.approx(1)
    collapsed = LevelHealth.of(np.array([2, 2, 2, 2]), 4)
    assert (collapsed.used, collapsed.entropy, collapsed.largest_share) == (1, 0, 1)
    assert collapsed.has_collapsed and not even.has_collapsed
    assert not LevelHealth.of(np.array([0, 0, 0, 0]), 2).has_collapsed
    uneven = LevelHealth.of(np.array([0, 0, 0, 1]), 2)
    assert uneven.entropy == pytest.approx(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))
    assert uneven.largest_over_mean == 1.5
    # ten of a thousand nodes, used alike: no largest one, and a collapse
    few = LevelHealth.of(np.arange(5_000) % 10, 1_000)
    assert few.largest_share == 0.1 and few.has_collapsed
    assert not LevelHealth.of(np.arange(5_000) % 100, 1_000).has_collapsed
    assert few.collapse(2, "do something").startswith(
        "Level 2 has collapsed: 10% of the items are in the largest of its 10 nodes, of 1,000 that "
        "there could be; do something, or"
    )


def test_occupancy_is_of_nodes_from_the_fullest_on() -> None:
    tree = Tree.of(np.array([[1, 0], [0, 2], [1, 0], [1, 1]]))
    first, second = tree_occupancy(tree, [2, 3])
    assert first == Occupancy(2, 4, [1, 2], [3, 1])
    assert second == Occupancy(4, 4, [1, 2, 3], [2, 1, 1])
    large = Occupancy.of(np.repeat(np.arange(3_000), 2), 5_000)
    assert len(large.rank) <= 400 and large.rank[0] == 1 and large.rank[-1] == 3_000
    assert set(large.size) == {2}


class Tables:
    """Scores of nodes and items from a table: items' own alone count for them."""

    def __init__(self, nodes: list[np.ndarray], items: np.ndarray) -> None:
        self.of_nodes, self.of_items = nodes, items
        self.asked = 0

    def nodes(self, level: int, user: np.ndarray, node: np.ndarray, above: Scores | None) -> Scores:
        assert (above is None) == (level == 0)
        assert above is None or above.shape == (len(user), level, 1)
        return self._with(self.of_nodes[level][user, node], above)

    def items(self, user: np.ndarray, item: np.ndarray, above: Scores | None) -> Scores:
        assert (np.diff(user) >= 0).all()
        self.asked += len(user)
        return self._with(self.of_items[user, item], above)

    def value(self, scores: Scores) -> np.ndarray:
        return scores[:, -1, 0].astype(np.float64)

    def _with(self, own: np.ndarray, above: Scores | None) -> Scores:
        own = own.astype(np.float32)[:, None, None]
        return own if above is None else np.concatenate([above, own], axis=1)


def world(seed: int, levels: int, users: int = 4, items: int = 50) -> tuple[Tree, Tables]:
    """A node is worth the best of its items, so that a beam of one finds a user's best."""
    draw = np.random.default_rng(seed)
    tree = Tree.of(draw.integers(0, 4, (items, levels)))
    of_items = draw.permuted(np.tile(np.arange(items), (users, 1)), axis=1)
    of_nodes = []
    for level in range(levels):
        best = np.full((users, len(tree.codes[level])), -1)
        for item in range(items):
            node = tree.nodes[level][item]
            best[:, node] = np.maximum(best[:, node], of_items[:, item])
        of_nodes.append(best)
    return tree, Tables(of_nodes, of_items)


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_a_beam_of_all_nodes_is_every_item(levels: int) -> None:
    tree, tables = world(0, levels)
    found = descend(tree, 4, tables, None, 10, Allowed())
    for user in range(4):
        expected = np.argsort(-tables.of_items[user])
        np.testing.assert_array_equal(found.item[found.user == user], expected)
    assert found.scored.tolist() == [[*map(len, tree.codes), 50]] * 4


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_narrow_beam_finds_what_the_nodes_promise(levels: int) -> None:
    tree, tables = world(1, levels)
    found = descend(tree, 4, tables, 1, 1, Allowed())
    for user in range(4):
        assert found.item[found.user == user][0] == tables.of_items[user].argmax()
    assert found.scored.sum(axis=1).max() < 50 + sum(len(one) for one in tree.codes)
    assert (found.scored[:, 0] == len(tree.codes[0])).all()


@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 60), st.integers(0, 2**16))
@settings(max_examples=80, deadline=None)
def test_as_many_are_found_as_may_be_given(levels: int, beam: int, k: int, seed: int) -> None:
    tree, tables = world(seed, levels)
    draw = np.random.default_rng(seed)
    eligible = draw.random(50) < 0.6
    exclude = [np.flatnonzero(draw.random(50) < share) for share in (0.0, 0.3, 0.8, 1.0)]
    found = descend(tree, 4, tables, beam, k, Allowed(eligible, exclude))
    for user in range(4):
        may = eligible.copy()
        may[exclude[user]] = False
        items = found.item[found.user == user]
        assert may[items].all() and len(set(items.tolist())) == len(items)
        assert len(items) >= min(k, may.sum())
        values = found.value[found.user == user]
        assert (np.diff(values) <= 0).all()
    assert (found.scored[3] == 0).all()


def test_no_item_and_nobody() -> None:
    tree = Tree.of(np.zeros((0, 2), np.int64))
    tables = Tables([np.zeros((2, 0))] * 2, np.zeros((2, 0)))
    assert len(descend(tree, 2, tables, 3, 5, Allowed()).item) == 0
    tree, tables = world(0, 2)
    assert len(descend(tree, 0, tables, 3, 5, Allowed()).item) == 0

"""Draws belong to events: of any order and company, spread as they should be."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.simulator.world.draws import Stream, normals, uniforms, words

KEYS = st.lists(
    st.tuples(st.integers(0, 10**5), st.integers(0, 10**6), st.integers(0, 2 * 10**12)),
    min_size=1,
    max_size=40,
)


@given(KEYS, st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_draw_is_the_same_alone_in_a_batch_and_in_any_order(keys, seed, random):
    columns = np.array(keys, np.int64).T
    together = uniforms(words(seed, Stream.OUTCOME, *columns), 3)
    order = list(range(len(keys)))
    random.shuffle(order)
    shuffled = uniforms(words(seed, Stream.OUTCOME, *columns[:, order]), 3)
    np.testing.assert_array_equal(shuffled, together[order])
    for place in range(len(keys)):
        alone = uniforms(words(seed, Stream.OUTCOME, *columns[:, place : place + 1]), 3)
        assert alone[0] == together[place]


def test_draws_are_uniform_and_normal():
    grid = np.arange(200)
    event = words(7, Stream.STAY, grid[:, None], grid[None, :]).ravel()
    drawn = uniforms(event)
    assert drawn.min() > 0 and drawn.max() < 1
    counts = np.histogram(drawn, 50, (0, 1))[0]
    expected = len(drawn) / 50
    assert ((counts - expected) ** 2 / expected).sum() < 100  # 49 degrees of freedom
    normal = normals(event)
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02


def test_neighbours_streams_numbers_and_seeds_have_nothing_to_do_with_each_other():
    keys = np.arange(40_000)
    first = uniforms(words(0, Stream.OUTCOME, keys))
    others = (
        uniforms(words(0, Stream.OUTCOME, keys + 1)),
        uniforms(words(0, Stream.OUTCOME, keys), 1),
        uniforms(words(0, Stream.STAY, keys)),
        uniforms(words(1, Stream.OUTCOME, keys)),
        uniforms(words(0, Stream.OUTCOME, keys, np.zeros(1, np.int64))),
    )
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.02

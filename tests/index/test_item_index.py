"""The index of items against brute force, whatever was added and removed before."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.data.content.usable_rows import DUPLICATE, NOT_FINITE, ZERO_NORM
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig, IndexKind
from recsys.index.faiss.search import NONE

WIDTH = 8
MODEL = "a" * 64
EXACT = (IndexKind.FLAT, IndexKind.HNSW)


def embeddings(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def table(ids: list[int] | list[str] | range, **columns: list) -> pl.DataFrame:
    return pl.DataFrame({"post_id": list(ids), **columns})


def built(kind: str = "flat", count: int = 300, seed: int = 0) -> ItemIndex:
    items = table(range(count), last_seen=list(range(count)))
    return ItemIndex.build(items, embeddings(count, seed), MODEL, IndexConfig(kind=kind))[0]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ids_of(index: ItemIndex, slots: np.ndarray) -> list[int]:
    return index.at(slots[slots != NONE])["post_id"].to_list()


def test_scores_are_cosines_computed_by_hand() -> None:
    items = table([7, 8, 9], title=["up", "right", "between"])
    index, _ = ItemIndex.build(items, [[0, 2], [5, 0], [3, 4]], MODEL, IndexConfig())
    found = index.search([[0.0, 10.0]], k=3)
    assert ids_of(index, found.slot[0]) == [7, 9, 8]
    np.testing.assert_allclose(found.score[0], [1.0, 0.8, 0.0], atol=1e-6)
    assert index.at(found.slot[0])["title"].to_list() == ["up", "between", "right"]


@pytest.mark.parametrize("kind", list(IndexKind))
def test_an_item_finds_itself(kind: str) -> None:
    index = built(kind, count=400)
    found = index.search(embeddings(400)[::7], k=1)
    hits = np.mean([ids_of(index, row) for row in found.slot] == np.arange(0, 400, 7)[:, None])
    assert hits > (0.999 if kind in EXACT else 0.9)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(list(IndexKind)),
    st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, 340), min_size=1, max_size=40)),
        max_size=6,
    ),
    st.integers(1, 400),
)
def test_after_any_changes_exactly_the_items_that_are_left_are_found(
    kind: IndexKind, changes: list[tuple[bool, list[int]]], k: int
) -> None:
    """A model of the index as a dictionary; whole rankings for the kinds whose scores are exact."""
    index = built(kind, count=300)
    expected = dict(enumerate(unit(embeddings(300))))
    for step, (is_addition, ids) in enumerate(changes):
        if is_addition:
            rows = embeddings(len(ids), seed=step + 1)
            report = index.add(table(ids), rows)
            assert report.replaced == len(set(ids) & set(expected))
            assert report.added == len(set(ids) - set(expected))
            assert len(report.rejected) == len(ids) - len(set(ids))
            expected |= dict(zip(ids[::-1], unit(rows)[::-1], strict=True))  # the first counts
        else:
            removed = index.remove(pl.Series(ids))
            assert removed.removed == len(set(ids) & set(expected))
            assert removed.unknown == len(set(ids)) - removed.removed
            expected = {one: row for one, row in expected.items() if one not in ids}
    queries = embeddings(3, seed=99)
    found = index.search(queries, k)
    assert len(index) == len(expected)
    matrix, names = np.array(list(expected.values())), np.array(list(expected))
    for query, slots, scores in zip(unit(queries), found.slot, found.score, strict=True):
        ids = ids_of(index, slots)
        assert len(ids) == min(k, len(expected)) == len(set(ids))
        assert set(ids) <= set(expected)
        assert (np.diff(scores[: len(ids)]) <= 0).all()
        if kind is IndexKind.FLAT or k >= len(expected):
            truth = np.sort(matrix @ query)[::-1][: len(ids)]
            if kind in EXACT:
                np.testing.assert_allclose(scores[: len(ids)], truth, atol=1e-5)
        if kind in EXACT:
            scored = dict(zip(names.tolist(), matrix @ query, strict=True))
            np.testing.assert_allclose(scores[: len(ids)], [scored[one] for one in ids], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(list(IndexKind)),
    st.lists(st.sets(st.integers(0, 299), max_size=250), min_size=1, max_size=4),
    st.integers(1, 310),
)
def test_excluded_items_are_left_out_and_made_up_for(
    kind: IndexKind, exclusions: list[set[int]], k: int
) -> None:
    index = built(kind, count=300)
    queries = embeddings(len(exclusions), seed=5)
    exclude = [index.slots(pl.Series(sorted(one), dtype=pl.Int64)) for one in exclusions]
    found = index.search(queries, k, exclude=exclude)
    everything = index.search(queries, 300)
    for row, one in enumerate(exclusions):
        ids = ids_of(index, found.slot[row])
        assert not set(ids) & one
        assert len(ids) == min(k, 300 - len(one))
        if kind in (IndexKind.FLAT, IndexKind.SCALAR_QUANTISED):
            ranking = ids_of(index, everything.slot[row])
            assert ids == [item for item in ranking if item not in one][:k]


@pytest.mark.parametrize("kind", list(IndexKind))
def test_nobody_s_items_depend_on_who_is_searched_for_beside_him(kind: str) -> None:
    """Also of items with equal scores, and beside one for whom much more is asked for."""
    generator = np.random.default_rng(7)
    rows = embeddings(3_000)[generator.integers(0, 2_000, 3_000)]
    index, _ = ItemIndex.build(table(range(3_000)), rows, MODEL, IndexConfig(kind=kind))
    queries = embeddings(30, seed=6)
    sizes = [0, 5, 60] * 9 + [0, 900, 2_990]
    exclude = [generator.choice(3_000, size, replace=False) for size in sizes]
    together = index.search(queries, 10, exclude=exclude)
    for user in range(30):
        alone = index.search(queries[[user]], 10, exclude=exclude[user : user + 1])
        np.testing.assert_array_equal(alone.slot[0], together.slot[user])
        np.testing.assert_array_equal(alone.score[0], together.score[user])


def test_an_approximate_index_searches_on_until_it_has_k() -> None:
    """One list of many is searched at first; what is asked for lies in all of them."""
    config = IndexConfig(kind="ivf_pq", lists=16, probes=1)
    index, _ = ItemIndex.build(table(range(700)), embeddings(700), MODEL, config)
    assert index.manifest.config.lists == 16
    seen_by_one_list = 700 // 8
    found = index.search(embeddings(2, seed=3), k=600)
    assert seen_by_one_list < 600 == (found.slot[0] != NONE).sum()


@pytest.mark.parametrize("kind", list(IndexKind))
def test_only_eligible_items_are_found(kind: str) -> None:
    index = built(kind, count=300)
    index.remove(pl.Series([290, 291]))
    eligible = np.arange(index.slots_given) >= 280
    exclude = [index.slots(pl.Series([299, 5])), index.slots(pl.Series([], dtype=pl.Int64))]
    found = index.search(embeddings(2, seed=4), 300, exclude=exclude, eligible=eligible)
    left = set(range(280, 300)) - {290, 291}
    assert set(ids_of(index, found.slot[0])) == left - {299}
    assert set(ids_of(index, found.slot[1])) == left


def test_items_last_seen_before_a_moment() -> None:
    items = table([1, 2, 3], first_seen=[None, 5, 5], last_seen=[None, None, 9])
    index, _ = ItemIndex.build(items, embeddings(3), MODEL, IndexConfig())
    assert index.last_seen_before(9).to_list() == [2]


def test_more_items_than_there_are() -> None:
    found = built(count=3).search(embeddings(2, seed=1), k=5)
    assert (found.slot[:, 3:] == NONE).all() and np.isnan(found.score[:, 3:]).all()
    assert (found.slot[:, :3] != NONE).all()


@pytest.mark.parametrize("kind", list(IndexKind))
def test_an_index_may_be_emptied_and_filled_again(kind: str) -> None:
    index = built(kind, count=300)
    index.remove(index.items["post_id"])
    assert len(index) == 0
    assert (index.search(embeddings(1), k=2).slot == NONE).all()
    index.add(table([5]), embeddings(1, seed=8))
    assert ids_of(index, index.search(embeddings(1), k=2).slot[0]) == [5]


def test_tombstones_advise_building_anew() -> None:
    index = built("hnsw", count=100)
    index.remove(pl.Series(range(29)))
    assert index.tombstone_share == pytest.approx(0.29) and not index.rebuild_advised
    index.remove(pl.Series([29]))
    assert index.rebuild_advised
    flat = built("flat", count=100)
    flat.remove(pl.Series(range(90)))
    assert flat.tombstone_share == 0


def test_unusable_rows_are_named_with_their_reason() -> None:
    rows = embeddings(5)
    rows[1, 2] = np.nan
    rows[2] = 0
    rows[3, 0] = np.inf
    index, report = ItemIndex.build(table([10, 11, 12, 13, 10]), rows, MODEL, IndexConfig())
    assert report.added == 1
    reasons = dict(report.rejected.iter_rows())
    assert reasons == {10: DUPLICATE, 11: NOT_FINITE, 12: ZERO_NORM, 13: NOT_FINITE}
    np.testing.assert_allclose(index.search(rows[:1], k=1).score, 1, atol=1e-6)  # the first one


def test_an_unusable_row_does_not_push_out_a_usable_one() -> None:
    rows = embeddings(2)
    rows[0] = np.nan
    index, report = ItemIndex.build(table([1, 1]), rows, MODEL, IndexConfig())
    assert len(index) == 1 and report.rejected["reason"].to_list() == [NOT_FINITE]


def test_a_replaced_item_keeps_what_nothing_is_said_of() -> None:
    items = table([1, 2], title=["one", "two"], last_seen=[10, 20])
    index, _ = ItemIndex.build(items, embeddings(2), MODEL, IndexConfig())
    index.add(table([2, 3], last_seen=[30, 40]), embeddings(2, seed=1))
    kept = index.items.select("post_id", "title", "last_seen").rows()
    assert kept == [(1, "one", 10), (2, "two", 30), (3, None, 40)]


def test_ids_may_be_text() -> None:
    index, _ = ItemIndex.build(table(["a", "b"]), embeddings(2), MODEL, IndexConfig())
    assert index.remove(pl.Series(["b", "c"])).unknown == 1
    assert index.items["post_id"].to_list() == ["a"]
    assert index.remove(pl.Series([1])).unknown == 1
    assert index.add(table([1]), embeddings(1)).added == 1
    assert index.remove(pl.Series(["1", "01"])).removed == 1


def test_ids_of_an_index_of_numbers_are_matched_as_they_are_written() -> None:
    index, _ = ItemIndex.build(table([7, 8]), embeddings(2), MODEL, IndexConfig())
    for named in (["007", "+7"], ["seven"]):
        with pytest.raises(DataError, match="ids as they are in the log"):
            index.remove(pl.Series(named))
    with pytest.raises(DataError, match="have the id '007', those of the index are whole"):
        index.add(table(["9", "007"]), embeddings(2))
    large = pl.Series([2**63], dtype=pl.UInt64)
    with pytest.raises(DataError, match="have the id 9223372036854775808"):
        index.add(pl.DataFrame({"post_id": large}), embeddings(1))
    removed = index.remove(pl.Series(["7", "007", "7.0"]))
    assert (removed.removed, removed.unknown) == (1, 2)
    assert index.items["post_id"].to_list() == [8]


def test_unsigned_ids_above_those_with_a_sign_are_ids() -> None:
    ids = pl.Series("post_id", [2**63, 2**64 - 1, 5], dtype=pl.UInt64)
    index, _ = ItemIndex.build(ids.to_frame(), embeddings(3), MODEL, IndexConfig())
    assert index.items["post_id"].to_list() == ids.to_list()
    assert index.remove(pl.Series([str(2**63), "-5"])).removed == 1
    assert index.add(pl.DataFrame({"post_id": [5, 6]}), embeddings(2)).replaced == 1


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.ones((2, WIDTH + 1)), "width 8: they come from different models"),
        (np.ones(WIDTH), "shape"),
        (np.array([[1.0] * WIDTH, [np.nan] * WIDTH]), "1 of 2 user embeddings hold NaN"),
        (np.zeros((1, WIDTH)), "zeros alone"),
    ],
)
def test_queries_that_have_no_direction_are_refused(queries: np.ndarray, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        built().search(queries, k=1)


def test_what_cannot_be_built_is_a_sentence() -> None:
    rows, flat = embeddings(3), IndexConfig()
    with pytest.raises(DataError, match="one row of numbers per item"):
        ItemIndex.build(table([1, 2]), rows, MODEL, flat)
    with pytest.raises(DataError, match=f"No item has .*given: 3; {ZERO_NORM}: 3"):
        ItemIndex.build(table([1, 2, 3]), np.zeros((3, 4)), MODEL, flat)
    with pytest.raises(DataError, match="no column post_id"):
        ItemIndex.build(pl.DataFrame({"id": [1, 2, 3]}), rows, MODEL, flat)
    with pytest.raises(ConfigError, match="needs as many items, not 3"):
        ItemIndex.build(table([1, 2, 3]), rows, MODEL, IndexConfig(kind="ivf_pq"))
    with pytest.raises(ConfigError, match="does not divide the embeddings' width of 8"):
        config = IndexConfig(kind="ivf_pq", code_bytes=3)
        ItemIndex.build(table(range(300)), embeddings(300), MODEL, config)
    with pytest.raises(ConfigError, match="ask for at least 1"):
        built().search(rows, k=0)
    with pytest.raises(ConfigError, match="one of auto, flat"):
        IndexConfig(kind="annoy")


def test_embeddings_of_another_width_or_model_are_refused() -> None:
    index = built()
    with pytest.raises(DataError, match="have width 9, those of the index 8"):
        index.add(table([1]), embeddings(1, width=9))
    index.check_model(MODEL, "this")
    with pytest.raises(ArtifactError, match="runs/mine belongs to bbbbbbbbbbbb"):
        index.check_model("b" * 64, "runs/mine")


@pytest.mark.parametrize(("items", "kind"), [(100_000, "flat"), (100_001, "ivf_pq")])
def test_the_kind_follows_the_size_of_the_corpus(items: int, kind: str) -> None:
    assert IndexConfig().resolve(items, 64).kind == kind


def test_sizes_of_ivf_pq_follow_the_corpus_and_the_width() -> None:
    config = IndexConfig(kind="ivf_pq").resolve(1_000_000, 64)
    assert (config.lists, config.probes, config.code_bytes) == (4000, 125, 32)
    small = IndexConfig(kind="ivf_pq").resolve(4_097, 250)
    assert (small.lists, small.probes, small.code_bytes) == (105, 8, 125)
    assert IndexConfig(kind="ivf_pq").resolve(300, 7).code_bytes == 1

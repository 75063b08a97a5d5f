from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.stores.vocabulary import NEVER, FirstSeen, IdMode, Vocabulary, stable_hash

SIGHTINGS = st.lists(st.tuples(st.integers(-5, 30), st.integers(0, 50)), max_size=40)


def first_seen(*chunks: list[tuple[int, int]]) -> pl.DataFrame:
    seen = FirstSeen()
    for chunk in chunks:
        seen.add(
            pl.Series([raw for raw, _ in chunk], dtype=pl.Int64),
            pl.Series([moment for _, moment in chunk], dtype=pl.Int64),
        )
    return seen.table()


def test_indices_go_by_first_appearance_and_zero_is_unknown() -> None:
    vocabulary = Vocabulary.build(first_seen([(7, 30), (9, 10)], [(7, 20), (5, 20)]))
    assert vocabulary.table["raw"].to_list() == [9, 5, 7]
    assert vocabulary.indices(pl.Series([5, 7, 9, 1, None])).to_list() == [2, 3, 1, 0, 0]
    assert vocabulary.size == 4
    assert vocabulary.known_before(20) == 2
    assert vocabulary.known_before(21) == 4
    assert vocabulary.known_before(0) == 1


@settings(max_examples=50, deadline=None)
@given(SIGHTINGS, SIGHTINGS)
def test_growth_appends_and_never_moves_an_index(
    old: list[tuple[int, int]], new: list[tuple[int, int]]
) -> None:
    before = Vocabulary.build(first_seen(old))
    after = before.grow(first_seen(new))
    ids = pl.Series(range(-5, 31), dtype=pl.Int64)
    earlier, later = before.indices(ids).to_numpy(), after.indices(ids).to_numpy()
    assert (later[earlier > 0] == earlier[earlier > 0]).all()
    distinct = {raw for raw, _ in old} | {raw for raw, _ in new}
    assert sorted(later[later > 0]) == list(range(1, len(distinct) + 1))
    assert after.collisions == 0
    fresh_moments = {raw: min(t for r, t in new if r == raw) for raw, _ in new}
    fresh = [fresh_moments[raw] for raw in after.table["raw"].to_list()[before.size - 1 :]]
    assert fresh == sorted(fresh)


@settings(max_examples=50, deadline=None)
@given(SIGHTINGS, st.integers(2, 40))
def test_hashed_indices_are_bounded_and_collisions_are_counted(
    sightings: list[tuple[int, int]], buckets: int
) -> None:
    vocabulary = Vocabulary.build(first_seen(sightings), IdMode.HASHED, buckets)
    ids = pl.Series(sorted({raw for raw, _ in sightings}), dtype=pl.Int64)
    indices = vocabulary.indices(ids).to_list()
    assert all(1 <= index < buckets for index in indices)
    assert vocabulary.collisions == len(indices) - len(set(indices))
    assert vocabulary.size == buckets
    grown = vocabulary.grow(first_seen([(99, 1)], sightings))
    assert grown.indices(ids).to_list() == indices


def test_strings_are_mapped_in_both_modes_and_come_back_from_the_file(tmp_path: Path) -> None:
    seen = pl.DataFrame({"raw": ["søren", "anna"], "first_seen": [1, 2]})
    for mode, buckets in ((IdMode.DICTIONARY, 0), (IdMode.HASHED, 100)):
        vocabulary = Vocabulary.build(seen, mode, buckets)
        vocabulary.save(tmp_path / f"{mode}.parquet")
        loaded = Vocabulary.load(tmp_path / f"{mode}.parquet")
        assert loaded.mode is mode
        assert loaded.size == vocabulary.size
        assert loaded.table.equals(vocabulary.table)
        ids = pl.Series(["anna", "søren", "nobody", None])
        assert loaded.indices(ids).to_list() == vocabulary.indices(ids).to_list()
        assert loaded.indices(ids).to_list()[2:] == [0, 0]


def test_the_hash_is_the_same_in_every_release() -> None:
    # the first outputs of SplitMix64 with seeds 0 and 1 (Steele et al., 2014), upper 63 bits
    expected = [0xE220A8397B1DCDAF >> 1, 0x910A2DEC89025CC1 >> 1]
    assert stable_hash(pl.Series([0, 1])).tolist() == expected
    # BLAKE2b-64 of the empty string, little-endian, upper 63 bits
    digest = int.from_bytes(bytes.fromhex("e4a6a0577479b2b4"), "little") >> 1
    assert stable_hash(pl.Series([""])).tolist() == [digest]


def test_first_seen_over_many_chunks_equals_one_group_by() -> None:
    generator = np.random.default_rng(0)
    chunks = [
        list(zip(generator.integers(0, 500, 300), generator.integers(0, 10_000, 300), strict=True))
        for _ in range(20)
    ]
    together = pl.DataFrame(
        {"raw": [r for c in chunks for r, _ in c], "t": [t for c in chunks for _, t in c]}
    )
    expected = together.group_by("raw").agg(first_seen=pl.col("t").min()).sort("first_seen", "raw")
    assert first_seen(*chunks).equals(expected)


def test_a_damaged_vocabulary_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "item.parquet"
    Vocabulary.build(pl.DataFrame({"raw": [1, 2], "first_seen": [1, 2]})).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="missing or damaged"):
        Vocabulary.load(path)


def test_the_moment_an_index_was_first_seen_is_the_earliest_of_its_ids() -> None:
    table = pl.DataFrame(
        {"raw": ["a", "b", "c"], "index": [2, 1, 2], "first_seen": [7, 9, 5]}
    ).with_columns(pl.col("index").cast(pl.Int32))
    assert Vocabulary(table).first_seen(4).tolist() == [NEVER, 9, 5, NEVER]

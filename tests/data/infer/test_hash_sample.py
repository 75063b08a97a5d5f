from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.infer.hash_sample import HashSample, hashes_of


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=5))
def test_few_values_are_all_counted(chunks: list[list[int]]) -> None:
    sample = HashSample()
    for chunk in chunks:
        sample.add(hashes_of(pl.Series(chunk, dtype=pl.Int64)))
    counts = Counter(value for chunk in chunks for value in chunk)
    assert sample.share == 1
    assert sample.distinct == len(counts)
    assert sorted(sample.counts.to_list()) == sorted(counts.values())
    assert sample.repeated() == sum(counts.values()) - len(counts)


def test_of_many_values_a_share_is_kept_with_exact_counts() -> None:
    sample = HashSample(kept=1_000)
    values = pl.Series(range(20_000))
    for _ in range(3):
        sample.add(hashes_of(values))
    assert sample.share <= 1 / 16
    assert len(sample.counts) <= 1_000
    assert sample.counts.unique().to_list() == [3]
    assert sample.distinct == pytest.approx(20_000, rel=0.15)
    assert sample.repeated() == pytest.approx(40_000, rel=0.15)


def test_overlap_of_ids_as_they_are_written() -> None:
    log, table = HashSample(), HashSample()
    log.add(hashes_of(pl.Series([1, 1, 1, 2, 3])))
    table.add(hashes_of(pl.Series(["1", "2", "03"])))
    ids, rows = log.found_in(table)
    assert ids == pytest.approx(2 / 3)
    assert rows == pytest.approx(4 / 5)
    assert HashSample().found_in(table) == (0, 0)


def test_overlap_of_samples_of_different_shares() -> None:
    log, table = HashSample(kept=500), HashSample(kept=5_000)
    log.add(hashes_of(pl.Series(range(10_000))))
    table.add(hashes_of(pl.Series(range(5_000, 20_000))))
    ids, _ = log.found_in(table)
    assert ids == pytest.approx(0.5, abs=0.1)

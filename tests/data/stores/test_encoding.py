from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide
from recsys.data.stores.encoding import FeatureEncoding, Moments, side_arrays

COLOUR = Feature("colour", FeatureSide.ITEM, FeatureKind.CATEGORICAL)
PRICE = Feature("price", FeatureSide.ITEM, FeatureKind.DENSE)
ITEM = Feature("item_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL)


@pytest.fixture
def encoding() -> FeatureEncoding:
    learned = FeatureEncoding()
    frames = [
        pl.DataFrame({"colour": ["red", None], "price": [1.0, None]}),
        pl.DataFrame({"colour": ["blue", "red"], "price": [3.0, float("nan")]}),
    ]
    learned.fit([COLOUR, PRICE], frames)
    return learned


def test_categories_the_fit_period_does_not_have_are_unknown(encoding: FeatureEncoding) -> None:
    column = pl.Series("colour", ["blue", "red", "green", None])
    assert encoding.encode(column, COLOUR).to_list() == [1, 2, 0, 0]
    assert encoding.cardinality("colour") == 3


def test_numbers_are_standardised_and_unknown_ones_are_the_mean(encoding: FeatureEncoding) -> None:
    # mean 2, population standard deviation 1
    column = pl.Series("price", [1.0, 2.0, 5.0, None, float("nan"), float("inf")])
    assert encoding.dense["price"] == (2.0, 1.0)
    assert encoding.encode(column, PRICE).to_list() == [-1.0, 0.0, 3.0, 0.0, 0.0, 0.0]


def test_a_constant_number_and_one_without_values_are_not_divided_by_zero() -> None:
    constant, empty = Moments(), Moments()
    constant.add(pl.Series([0.1] * 1000))
    empty.add(pl.Series([None], dtype=pl.Float64))
    assert constant.mean_and_std == (pytest.approx(0.1), 1.0)
    assert empty.mean_and_std == (0.0, 1.0)


def test_moments_in_chunks_equal_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(5, 2, 1000)
    moments = Moments()
    for chunk in np.array_split(values, 7):
        moments.add(pl.Series(chunk))
    assert moments.mean_and_std == (pytest.approx(values.mean()), pytest.approx(values.std()))


def test_numbers_beyond_float32_are_unknown_and_spoil_no_others() -> None:
    moments = Moments()
    moments.add(pl.Series([1.0, 1e300, 3.0, -1e300]))
    assert moments.mean_and_std == (2.0, 1.0)
    encoding = FeatureEncoding(dense={"price": moments.mean_and_std})
    assert encoding.encode(pl.Series("price", [3.0, 1e300]), PRICE).to_list() == [1.0, 0.0]


def test_integer_categories_are_ordered_by_value() -> None:
    encoding = FeatureEncoding()
    encoding.fit([COLOUR], [pl.DataFrame({"colour": [10, 2, -1, 2]})])
    assert encoding.categories["colour"] == ["-1", "2", "10"]


def test_arrays_have_a_row_per_index_and_zeros_for_the_unknown(encoding: FeatureEncoding) -> None:
    table = pl.DataFrame({"index": [2, 1], "colour": ["red", "green"], "price": [3.0, None]})
    arrays = side_arrays(table, 4, [(ITEM, table["index"])], [COLOUR, PRICE], encoding)
    assert arrays[FeatureKind.CATEGORICAL].tolist() == [[0, 0], [1, 0], [2, 2], [0, 0]]
    assert arrays[FeatureKind.CATEGORICAL].dtype == np.int32
    assert arrays[FeatureKind.DENSE].tolist() == [[0.0], [0.0], [1.0], [0.0]]
    assert arrays[FeatureKind.DENSE].dtype == np.float32


def test_an_encoding_comes_back_from_its_file(tmp_path: Path, encoding: FeatureEncoding) -> None:
    encoding.save(tmp_path)
    assert FeatureEncoding.load(tmp_path) == encoding
    assert all(math.isfinite(number) for pair in encoding.dense.values() for number in pair)


def test_what_only_resembles_a_number_is_ordered_as_a_word() -> None:
    encoding = FeatureEncoding()
    long = "9" * 5_000
    frame = pl.DataFrame({"version": ["--5", "10", long, "-3", "²", "2", "-"]})
    encoding.fit([Feature("version", FeatureSide.CONTEXT, FeatureKind.CATEGORICAL)], [frame])
    assert encoding.categories["version"] == ["-3", "2", "10", "-", "--5", long, "²"]
    encoding.fit_list(pl.Series("tags", [["--5", long], ["1"]]))
    assert encoding.lists["tags"] == ["1", "--5", long]


@pytest.mark.parametrize("values", [[], [None, None], [[], []]])
def test_a_list_without_a_value_becomes_no_feature(values: list[list[str] | None]) -> None:
    encoding = FeatureEncoding()
    encoding.fit_list(pl.Series("tags", values, pl.List(pl.String)))
    assert encoding.lists == {"tags": []} and encoding.dense == {}
    later = pl.Series("tags", [["new"], None])
    assert encoding.encode_list(later).shape == (2, 0)

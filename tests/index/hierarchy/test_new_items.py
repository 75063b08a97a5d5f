"""What a table says of items, read as the data set has read the log's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset
from recsys.index.hierarchy.new_items import read_given_features
from tests.evaluation.baselines.planted import ITEMS, impressions, own_log

COLOURS = ["red", "blue", None, "green"]


def table() -> pl.DataFrame:
    """A table of items with all kinds of columns, one of which is called as one of the log's."""
    number = np.arange(ITEMS)
    return pl.DataFrame(
        {
            "item_id": number,
            "maker": number % 7,
            "kind": [f"k{one % 3}" for one in number],
            "name": [f"item {one}" for one in number],
            "surface": [COLOURS[one % 4] for one in number],
            "price": [None if one % 5 == 0 else one * 1.5 for one in number],
            "tags": ["|".join("abc"[: one % 4]) or None for one in number],
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("items")
    table().write_csv(folder / "items.csv")
    shown = impressions(3).drop("author_id").with_columns(surface=pl.lit("feed"))
    log = own_log(np.random.default_rng(0).random(len(shown)) < 0.3, shown)
    items = {
        "path": str(folder / "items.csv"),
        "author": "maker",
        "topic": "kind",
        "title": "name",
        "categorical": ["surface"],
        "dense": ["price"],
        "lists": ["tags"],
    }
    prepare(
        PrepareConfig(name="items", out=str(folder / "out"), options={"items": items}), frame=log
    )
    return PreparedDataset.open(folder / "out")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_logs_own_table_is_read_as_it_was(
    dataset: PreparedDataset, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"items.{ending}"
    twice = pl.concat([table(), table().head(3).with_columns(price=pl.lit(-1.0))])
    getattr(twice, f"write_{ending}")(path)
    given = read_given_features(str(path), dataset)
    index = dataset.vocabulary("item").indices(given.ids).to_numpy()
    assert sorted(given.ids) == list(range(ITEMS)) and (index > 0).all()
    features = dataset.item_features
    assert features.dense.shape[1] > 3  # the price, and a number for each tag
    np.testing.assert_array_equal(given.categorical, features.categorical[index])
    np.testing.assert_array_equal(given.dense, features.dense[index])
    assert given.titles.to_list() == [f"item {one}" for one in given.ids]


def test_what_a_table_lacks_is_not_known(dataset: PreparedDataset, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("item_id,item_surface,topic_id\n900,blue,k1\n901,violet,k9\n")
    given = read_given_features(str(path), dataset)
    names = [one.name for one in dataset.manifest.select("item", "categorical")]  # type: ignore[arg-type]
    by_name = dict(zip(names, given.categorical.T, strict=True))
    assert by_name["item_id"].tolist() == [0, 0] == by_name["author_id"].tolist()
    assert by_name["topic_id"][0] == dataset.vocabulary("topic").indices_of(["k1"])[0] > 0
    assert by_name["topic_id"][1] == 0 == by_name["item_surface"][1] < by_name["item_surface"][0]
    assert not given.dense.any() and given.titles.null_count() == 2
    path.write_text("item_id\n900\n900\n")
    assert read_given_features(str(path), dataset).categorical.tolist() == [[0] * len(names)]
    path.write_text("sku\n900\n")
    with pytest.raises(DataError, match="has no column item_id"):
        read_given_features(str(path), dataset)

"""Tables of items and users of a log: what of them is stored, refused and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.data.content.item_embeddings import ItemEmbeddings, embeddings_file
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.data.stores.encoding import MOST_LIST_VALUES
from recsys.index.item_table import describe_items
from tests.data.prepare.table_logs import HOUR, START, log_frame, prepared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log_frame().write_parquet(tmp_path / "log.parquet")
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_every_kind_of_column_arrives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame(
        {
            "sku": [0, 1, 2, 3, 99],
            "brand": ["A", "B", None, " ", "C"],
            "shelf": [1.0, 2.0, float("nan"), 1.0, 5.0],
            "price": [10.0, 30.0, float("nan"), float("inf"), 7.0],
            "name": ["Zero", "One", "", None, "Nine"],
            "text": [["a", "b"], [], None, ["c"], ["d"]],
            "tags": [["x", "y"], ["x", "x"], [], None, ["q"]],
            "vector": [[1.0, 0.0], [0.0, 2.0], None, [float("nan"), 1.0], [1.0, 1.0]],
            "picture": ["http://x/0", None, None, None, None],
            "stock": [1, 2, 3, 4, 5],
        }
    ).write_parquet(folder / "items.parquet")
    dataset = prepared(
        folder,
        items={
            "path": "items.parquet",
            "id": "sku",
            "author": "brand",
            "title": "name",
            "texts": ["text"],
            "categorical": ["brand", "shelf"],
            "dense": ["price"],
            "lists": ["tags"],
            "embedding": "vector",
            "image": "picture",
        },
    )
    said = printed(capsys)
    assert "items.parquet: not used: stock;" in said
    assert "column price: 1 values that are infinite, such as 'inf', count as unknown." in said
    manifest = dataset.manifest
    named = {
        kind: [f.name for f in manifest.select(FeatureSide.ITEM, kind)] for kind in FeatureKind
    }
    assert named[FeatureKind.CATEGORICAL] == ["item_id", "author_id", "topic_id", "brand", "shelf"]
    assert named[FeatureKind.DENSE] == ["price", "tags=x", "tags=y"]
    counts = manifest.counts
    assert counts["item_table_rows"] == 5 and counts["item_table_not_in_log"] == 1
    assert counts["items_not_in_table"] == 6 and counts["item_table_repeated"] == 0

    # items 0, 1, 2 and 3 have the indices 1 to 4: that is the order in which they come
    features = dataset.item_features
    assert features.categorical[1:5, 3:].tolist() == [[1, 1], [2, 2], [0, 0], [0, 1]]
    authors = dataset.vocabulary("author").table["raw"].to_list()
    assert authors == ["A", "B", " "]  # ids are kept as they are written
    assert features.categorical[1:5, 1].tolist() == [1, 2, 0, 3]
    # price: mean 20, deviation 10; x in 2 of 3 lists, y in 1 of 3, each with deviation √2 / 3
    third = np.sqrt(2) / 3
    expected = [
        [-1, (1 - 2 / 3) / third, (1 - 1 / 3) / third],
        [1, (1 - 2 / 3) / third, (0 - 1 / 3) / third],
        [0, (0 - 2 / 3) / third, (0 - 1 / 3) / third],
        [0, 0, 0],
    ]
    np.testing.assert_allclose(features.dense[1:5], expected, rtol=1e-5)
    assert dataset.item_text.rows() == [(1, "Zero", "a b"), (2, "One", None), (4, None, "c")]
    table = dataset.item_table(["title", "price", "tags", "image", "author_id"])
    assert table.rows()[:3] == [
        (1, "Zero", 10.0, ["x", "y"], "http://x/0", "A"),
        (2, "One", 30.0, ["x"], None, "B"),
        (3, None, None, [], None, None),
    ]
    assert table.height == 10
    with pytest.raises(DataError, match="has no column stock of items; it has title, text, brand"):
        dataset.item_table(["stock"])
    assert counts["items_with_embedding"] == 3
    file = embeddings_file(dataset.path)
    assert file == dataset.item_embedding_file
    embeddings = ItemEmbeddings.load(file, dataset.vocabulary("item"))
    assert embeddings.matrix[1:4].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert embeddings.report.not_finite == 1
    assert describe_items(pl.Series([1, 7]), dataset, None, None)["title"].to_list() == [
        "One",
        None,
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv", "folder"])
def test_text_files_say_the_same_as_parquet(folder: Path, kind: str) -> None:
    table = pl.DataFrame(
        {
            "item_id": [3, 0, 1, 2],
            "brand": ["C", "A", "B", None],
            "price": [1.5, 2.5, None, -3.0],
            "tags": ["x|y", "x", None, "['y', 'z']"],
            "vector": ["1 0", "[0, 1]", None, "0.5|0.5"],
        }
    )
    options = {
        "categorical": ["brand"],
        "dense": ["price"],
        "lists": ["tags"],
        "embedding": "vector",
    }
    typed = table.with_columns(
        tags=pl.Series([["x", "y"], ["x"], None, ["y", "z"]]),
        vector=pl.Series([[1.0, 0.0], [0.0, 1.0], None, [0.5, 0.5]]),
    )
    typed.write_parquet(folder / "items.parquet")
    expected = prepared(folder, items=options | {"path": "items.parquet"})
    path = {"csv": "items.csv", "tsv": "items.tsv", "folder": "items"}[kind]
    if kind == "folder":
        (folder / path).mkdir()
        table.head(2).write_csv(folder / path / "a.csv")
        table.tail(2).write_csv(folder / path / "b.csv")
    else:
        table.write_csv(folder / path, separator="\t" if kind == "tsv" else ",")
    found = prepared(folder, items=options | {"path": path}, out="text")
    assert found.item_table().equals(expected.item_table())
    for kind_of in FeatureKind:
        arrays = [getattr(one.item_features, kind_of) for one in (found, expected)]
        np.testing.assert_array_equal(*arrays)
    files = [one.item_embedding_file for one in (found, expected)]
    assert pl.read_parquet(files[0]).equals(pl.read_parquet(files[1]))  # type: ignore[arg-type]


def test_columns_of_the_log_itself_are_taken_by_their_first_known_value(folder: Path) -> None:
    log = log_frame().with_columns(
        title=pl.when(pl.col("item_id") > 0).then(pl.format("{} at {}", "item_id", "timestamp")),
        country=pl.when(pl.int_range(pl.len()) > 4).then(pl.col("user_id") + "land"),
        tags=pl.lit("a|b"),
    )
    log.write_csv(folder / "log.csv")
    dataset = prepared(
        folder,
        log="log.csv",
        items={"title": "title", "lists": ["tags"]},
        users={"categorical": ["country"]},
        chunk_rows=7,
    )
    titles = dict(dataset.item_table(["title"]).rows())
    assert titles[1] is None
    assert titles[4] == f"3 at {START + 3 * HOUR}"
    assert dataset.item_table(["tags"])["tags"].to_list() == [["a", "b"]] * 10
    [_, country] = dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
    assert (country.name, country.cardinality) == ("country", 6)
    assert dataset.user_features.categorical[1:, 1].tolist() == [1, 2, 3, 4, 5]


def test_ids_are_matched_as_they_are_written(folder: Path) -> None:
    log_frame().with_columns(item_id=pl.format("0{}", "item_id")).write_parquet(
        folder / "text.parquet"
    )
    table = pl.DataFrame({"item_id": [1, 2, 3], "name": ["one", "two", "three"]})
    table.write_parquet(folder / "numbers.parquet")
    table.with_columns(pl.format("0{}", "item_id").alias("item_id")).write_csv(folder / "t.csv")
    items = {"path": "numbers.parquet", "title": "name"}
    with pytest.raises(DataError, match=r"none of the 3 ids of the table of items \(such as 1\)"):
        prepared(folder, log="text.parquet", items=items)
    assert not (folder / "out").exists()
    found = prepared(folder, log="text.parquet", items=items | {"path": "t.csv"})
    assert found.item_text["title"].to_list() == ["one", "two", "three"]
    with pytest.raises(DataError, match="none of the 3 ids"):  # 01 is no number, 1 is
        prepared(folder, items=items | {"path": "t.csv"}, out="other")


def test_authors_of_a_table_and_of_the_log_are_ids_of_one_type(folder: Path) -> None:
    log_frame().with_columns(author_id=pl.col("item_id") + 100).write_parquet(
        folder / "with.parquet"
    )
    pl.DataFrame({"item_id": [0, 1, 2], "by": ["Ann", "101", None]}).write_parquet(
        folder / "items.parquet"
    )
    items = {"path": "items.parquet", "author": "by"}
    dataset = prepared(folder, log="with.parquet", items=items)
    authors = dict(dataset.item_table(["author_id"]).rows())
    assert [authors[index] for index in (1, 2, 3, 4)] == ["Ann", "101", "102", "103"]
    assert "100" in dataset.vocabulary("author").table["raw"].to_list()  # as item 0's events say


def test_names_that_others_have_are_told_apart(folder: Path) -> None:
    pl.DataFrame(
        {"item_id": [0, 1], "country": ["de", "fr"], "surface": ["big", "small"], "index": [1, 2]}
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame({"user_id": ["u0", "u1"], "country": ["it", "it"]}).write_csv(folder / "users.csv")
    dataset = prepared(
        folder,
        items={"path": "items.parquet", "categorical": ["country", "surface"], "dense": ["index"]},
        users={"path": "users.csv", "categorical": ["country"]},
    )
    names = [f.name for f in dataset.manifest.features]
    assert {"item_country", "user_country", "item_surface", "surface", "item_index"} <= set(names)
    assert dataset.item_table(["item_country"])["item_country"].to_list()[:2] == ["de", "fr"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"dense": ["brand"]}, "column brand: expected a number, found String values such as 'A'"),
        ({"categorical": ["tags"]}, "column tags: expected one category a row"),
        ({"dense": ["colour"]}, r"has no column colour \(it has item_id, brand, tags, vector\)"),
        ({"dense": ["colour"]}, "options.items.dense the name of one that is there"),
        ({"id": "sku", "title": "brand"}, "has no column sku"),
        ({"embedding": "brand"}, "column brand: expected lists of numbers"),
        ({"embedding": "vector"}, "the embedding of 1 has width 1, those before it 2"),
    ],
)
def test_a_table_that_does_not_fit_is_one_sentence(
    folder: Path, columns: dict[str, Any], message: str
) -> None:
    pl.DataFrame(
        {"item_id": [0, 1], "brand": ["A", "B"], "tags": [["x"], []], "vector": [[1.0, 2.0], [1.0]]}
    ).write_parquet(folder / "items.parquet")
    with pytest.raises(DataError, match=message):
        prepared(folder, items={"path": "items.parquet"} | columns)
    assert not (folder / "out").exists()


def test_what_cannot_be_meant_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="items: the column brand would be stored as brand"):
        prepared(folder, items={"categorical": ["brand"], "dense": ["brand"]})
    with pytest.raises(ConfigError, match="titel"):
        prepared(folder, items={"titel": "name"})
    with pytest.raises(DataError, match=r"does not exist; give options\.items\.path="):
        prepared(folder, items={"path": "nowhere.csv", "title": "name"})
    pl.DataFrame(
        {"item_id": [None], "name": ["x"]}, schema_overrides={"item_id": pl.Int64}
    ).write_csv(folder / "empty.csv")
    with pytest.raises(DataError, match="holds no row with an id in item_id"):
        prepared(folder, items={"path": "empty.csv", "title": "name"})


def test_a_column_that_is_called_title_and_is_not_taken_for_it_has_another_name(
    tmp_path: Path,
) -> None:
    log_frame().write_parquet(tmp_path / "log.parquet")
    items = pl.DataFrame({"item_id": range(10)}).with_columns(
        title=pl.format("short {}", "item_id"), headline=pl.format("the whole of {}", "item_id")
    )
    items.write_parquet(tmp_path / "items.parquet")
    table = {"path": "items.parquet", "id": "item_id", "title": "headline", "texts": ["title"]}
    dataset = prepared(tmp_path, items=table)
    texts = dataset.item_text.sort("index").row(0, named=True)
    assert texts["title"].startswith("the whole of")
    assert texts["item_title"].startswith("short")


def test_the_commonest_values_of_the_fit_period_become_features(folder: Path) -> None:
    count = MOST_LIST_VALUES + 10
    log_frame(rows=1000, items=200).write_parquet(folder / "many.parquet")
    tags = [[f"t{i % count}", "all"] for i in range(200)]
    pl.DataFrame({"item_id": range(200), "tags": tags}).write_parquet(folder / "items.parquet")
    dataset = prepared(
        folder, log="many.parquet", items={"path": "items.parquet", "lists": ["tags"]}
    )
    dense = dataset.manifest.select(FeatureSide.ITEM, FeatureKind.DENSE)
    assert len(dense) == MOST_LIST_VALUES and "tags=all" in [f.name for f in dense]
    assert np.isfinite(dataset.item_features.dense).all()
    constant = [f.name for f in dense].index("tags=all")
    assert (dataset.item_features.dense[:, constant] == 0).all()


def test_values_that_come_after_the_fit_period_are_not_learned_from(folder: Path) -> None:
    late = pl.concat(
        [log_frame(200, 10), log_frame(1, 1, 199).with_columns(item_id=pl.lit(77, pl.Int64))]
    )
    late.write_parquet(folder / "late.parquet")
    pl.DataFrame(
        {
            "item_id": [0, 1, 77],
            "brand": ["A", "B", "New"],
            "price": [1.0, 3.0, 1e6],
            "tags": ["a", "a", "n"],
        }
    ).write_parquet(folder / "items.parquet")
    items = {
        "path": "items.parquet",
        "categorical": ["brand"],
        "dense": ["price"],
        "lists": ["tags"],
    }
    dataset = prepared(folder, log="late.parquet", items=items)
    assert dataset.manifest.preparation["standardisation"]["price"] == [2.0, 1.0]
    names = [f.name for f in dataset.manifest.features]
    assert "tags=a" in names and "tags=n" not in names
    assert dataset.item_features.categorical[-1, 3] == 0
    assert dataset.item_table(["brand"])["brand"].to_list()[-1] == "New"


def test_a_changed_table_is_another_data_set_and_a_moved_one_is_not(folder: Path) -> None:
    pl.DataFrame({"item_id": [0], "name": ["x"]}).write_parquet(folder / "items.parquet")
    items = {"path": "items.parquet", "title": "name"}
    mark = prepared(folder, items=items).manifest.fingerprint
    (folder / "elsewhere").mkdir()
    (folder / "items.parquet").rename(folder / "elsewhere" / "items.parquet")
    moved = items | {"path": "elsewhere/items.parquet"}
    assert prepared(folder, items=moved).manifest.fingerprint == mark
    pl.DataFrame({"item_id": [0], "name": ["y"]}).write_parquet(folder / moved["path"])
    with pytest.raises(DataError, match=r"from other files: items/items\.parquet it does not know"):
        prepared(folder, items=moved)
    with pytest.raises(DataError, match="with another configuration"):
        prepared(folder)


@pytest.mark.parametrize(
    ("items", "users", "message"),
    [
        (
            ["age"],
            ["age", "item_age"],
            "items: the column age is stored as item_age, and so is item_age of options.users",
        ),
        (
            ["age", "user_age"],
            ["age"],
            "items: the column user_age is stored as user_age, and so is age of options.users",
        ),
        (
            ["age", "item_age"],
            ["age"],
            "the column item_age would be stored as item_age, and so would the column age",
        ),
        (
            ["genre=a"],
            [],
            "the column genre=a is stored as genre=a, a name that features of the lists genre of",
        ),
        ([], ["genre=a"], "users: the column genre=a .* features of the lists genre of"),
    ],
)
def test_two_features_of_one_name_are_refused(
    folder: Path, items: list[str], users: list[str], message: str
) -> None:
    of_items = {"path": "items.csv", "dense": items, "lists": ["genre"]}
    with pytest.raises(ConfigError, match=message):
        prepared(folder, items=of_items, users={"path": "users.csv", "categorical": users})
    assert not (folder / "out").exists()

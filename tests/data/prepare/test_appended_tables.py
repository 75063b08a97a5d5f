"""Tables of items and users that come with appended days."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.content.item_embeddings import ItemEmbeddings, embeddings_file
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset
from tests.data.prepare.table_logs import HOUR, START, log_frame, prepared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log_frame().write_parquet(tmp_path / "log.parquet")
    return tmp_path


def test_appended_days_bring_rows_and_change_what_they_state(folder: Path) -> None:
    schema = {
        "item_id": pl.Int64,
        "brand": pl.String,
        "price": pl.Float64,
        "vector": pl.List(pl.Float32),
    }
    rows = [(0, "A", 1.0, [1.0, 0.0]), (1, "B", 3.0, [0.0, 1.0])]
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "items.parquet")
    options: dict[str, Any] = {"path": "items.parquet", "title": "brand", "dense": ["price"]}
    options["embedding"] = "vector"
    before = prepared(folder, items=options)
    assert before.item_features.dense[1:4, 0].tolist() == [-1, 1, 0]
    day = [(1, None, 5.0, None), (12, "C", 3.0, [1.0, 1.0])]
    pl.DataFrame(day, schema=schema, orient="row").write_parquet(folder / "day.parquet")
    log_frame(20, 20, 200).write_parquet(folder / "new.parquet")
    grown = prepared(
        folder, log="new.parquet", items=options | {"path": "day.parquet"}, is_later=True
    )
    table = dict(grown.item_table(["price"]).rows())
    raws = dict(grown.vocabulary("item").table.select("raw", "index").rows())
    assert [table[raws[raw]] for raw in (0, 1, 2, 12)] == [1.0, 5.0, None, 3.0]
    dense = grown.item_features.dense[:, 0]
    assert [dense[raws[raw]] for raw in (0, 1, 2, 12)] == [-1, 3, 0, 1]  # as was learned before
    titles = dict(grown.item_text.rows())
    assert [titles.get(raws[raw]) for raw in (0, 1, 12)] == ["A", "B", "C"]
    found = ItemEmbeddings.load(embeddings_file(grown.path), grown.vocabulary("item"))
    assert found.report.known == 3 and found.matrix[raws[1]].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"options\.items\.categorical is \['brand'\], it was null"):
        log_frame(20, 20, 300).write_parquet(folder / "newer.parquet")
        other = options | {"path": "day.parquet", "categorical": ["brand"]}
        prepared(folder, log="newer.parquet", items=other, is_later=True)


def raws_of(dataset: PreparedDataset) -> dict[Any, int]:
    return dict(dataset.vocabulary("item").table.select("raw", "index").rows())


@pytest.mark.parametrize("mode", ["dictionary", "hashed"])
def test_an_appended_table_states_authors_anew_and_its_events_do_not(
    folder: Path, mode: str
) -> None:
    schema = {"item_id": pl.Int64, "by": pl.String}
    log_frame().with_columns(author_id=pl.lit("log")).write_parquet(folder / "old.parquet")
    rows = [(0, "Ann"), (1, "Bob"), (2, "Cy"), (77, "no")]
    pl.DataFrame(rows, schema, orient="row").write_parquet(folder / "items.parquet")
    settings: dict[str, Any] = {"out": str(folder / "out"), "partitions": 2, "ids": mode}
    items = {"path": str(folder / "items.parquet"), "author": "by"}
    path = str(folder / "old.parquet")
    prepare(PrepareConfig(path=path, options={"items": items}, **settings))
    before = PreparedDataset.open(str(folder / "out")).manifest.counts
    assert (before["item_table_rows"], before["items_not_in_table"]) == (4, 7)
    # item 1 has no event among the new ones, item 2 and 3 have, item 12 is new
    day = [(0, None), (1, "Dan"), (3, "Eve"), (12, "Fay")]
    pl.DataFrame(day, schema, orient="row").write_parquet(folder / "day.parquet")
    new = log_frame(40, 20, 200).filter(pl.col("item_id") != 1)
    new.with_columns(author_id=pl.lit("other")).write_parquet(folder / "new.parquet")
    items["path"] = str(folder / "day.parquet")
    path = str(folder / "new.parquet")
    append(AppendConfig(path=path, out=str(folder / "out"), partitions=2, options={"items": items}))
    grown = PreparedDataset.open(str(folder / "out"))
    authors, raws = dict(grown.item_table(["author_id"]).rows()), raws_of(grown)
    said = [authors[raws[raw]] for raw in (0, 1, 2, 3, 4, 12, 13)]
    assert said == ["Ann", "Dan", "Cy", "Eve", "log", "Fay", "other"]
    counts = grown.manifest.counts
    assert counts["item_table_rows"] == 5 and counts["item_table_not_in_log"] == 0
    assert counts["items_not_in_table"] == 20 - 5 and "in_table" not in grown.item_columns


@pytest.mark.parametrize("together", [True, False])
def test_columns_of_appended_rows_say_what_they_would_at_once(folder: Path, together: bool) -> None:
    log = log_frame(240, 20).with_columns(
        title=pl.format("title at {}", "timestamp"),
        brand=pl.when(pl.col("timestamp") > START + 25 * HOUR).then(pl.format("b{}", "timestamp")),
        price=pl.col("timestamp") / HOUR,
        tags=pl.format("t{}", pl.int_range(pl.len()) // 70),
        maker=pl.format("m{}", pl.int_range(pl.len()) // 30),
        vector=pl.concat_list(pl.int_range(pl.len()).cast(pl.Float32), pl.lit(1.0)),
        country=pl.format("c{}", pl.int_range(pl.len()) // 40),
    )
    log.write_parquet(folder / "log.parquet")
    log.head(200).filter(pl.col("item_id") < 15).write_parquet(folder / "old.parquet")
    late = log.head(200).filter(pl.col("item_id") < 15), log.tail(40)
    (pl.concat(late) if together else late[1]).write_parquet(folder / "new.parquet")
    pl.concat(late).write_parquet(folder / "all.parquet")
    options: dict[str, Any] = {
        "items": {"title": "title", "categorical": ["brand"], "dense": ["price"]},
        "users": {"categorical": ["country"]},
    }
    options["items"] |= {"lists": ["tags"], "author": "maker", "embedding": "vector"}
    at_once = prepared(folder, log="all.parquet", out="whole", **options)
    prepared(folder, log="old.parquet", **options)
    grown = prepared(folder, log="new.parquet", is_later=True, **options)
    names = ["title", "brand", "price", "tags", "author_id"]
    assert grown.item_table(names).rows() == at_once.item_table(names).rows()
    assert grown.manifest.counts == at_once.manifest.counts
    users = [pl.read_parquet(d.path / "features/user_table.parquet") for d in (grown, at_once)]
    assert users[0].rows() == users[1].rows()
    found, expected = (
        ItemEmbeddings.load(embeddings_file(d.path), d.vocabulary("item")).matrix
        for d in (grown, at_once)
    )
    assert found.tolist() == expected.tolist()

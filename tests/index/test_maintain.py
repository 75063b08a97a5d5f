"""Indexes built, grown and pruned in their folders, with what the log says of their items."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.artifacts.sequence_tower import embeddings_model
from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.data.content.item_embeddings import write_item_embeddings
from recsys.data.content.usable_rows import DUPLICATE, NOT_FINITE
from recsys.data.contract.moments import parse_moment
from recsys.data.stores.dataset import PreparedDataset
from recsys.index.config import IndexAddConfig, IndexBuildConfig, IndexRemoveConfig
from recsys.index.folder import load_index
from recsys.index.item_table import describe_items, last_seen, read_item_file
from recsys.index.maintain import add_items, build_index, remove_items
from recsys.index.usable_items import FUTURE, TOO_OLD
from tests.index.conftest import START, WIDTH


def vectors(path: Path, ids: list, seed: int = 1) -> str:
    rows = np.random.default_rng(seed).standard_normal((len(ids), WIDTH)).astype(np.float32)
    write_item_embeddings(path, pl.Series(ids), rows)
    return str(path)


@pytest.fixture
def building(dataset: PreparedDataset, embeddings: Path, tmp_path: Path) -> IndexBuildConfig:
    return IndexBuildConfig(str(embeddings), str(tmp_path / "index"), dataset=str(dataset.path))


def test_the_log_gives_times_and_titles(building: IndexBuildConfig) -> None:
    change = build_index(building)
    items = load_index(building.out).items.sort("post_id")
    assert change.change.added == len(items) == 12
    assert items["title"].to_list() == ["first", "second"] + [None] * 10
    first = [10, 20, 30, 15, 50, 50, 50, 50, 90, 50, None, None]
    last = [25, 20, 30, 15, None, None, None, None, 90, None, None, None]
    for name, expected in (("first_seen", first), ("last_seen", last)):
        assert items[name].to_list() == [None if t is None else START + t for t in expected]


def test_a_file_goes_before_the_log(building: IndexBuildConfig, tmp_path: Path) -> None:
    file = tmp_path / "posts.csv"
    file.write_text(f"item_id,title,last_seen\n1011,fresh,{START + 77}\n1001,renamed,\n")
    build_index(replace(building, posts=str(file)))
    items = load_index(building.out).items
    known = {row[0]: row[1:] for row in items.select("post_id", "title", "last_seen").rows()}
    assert known[1011] == ("fresh", START + 77) and known[1001] == ("renamed", START + 25)
    file.write_text("item_id,title\n1,a\n1,b\n")
    with pytest.raises(DataError, match="names more than once: 1, "):
        build_index(replace(building, posts=str(file)))
    for moment in (START // 1000, START * 1000, 0):  # seconds, microseconds, none
        file.write_text(f"item_id,last_seen\n1011,{moment}\n")
        with pytest.raises(DataError, match=f"last_seen: {moment} is not in milliseconds"):
            build_index(replace(building, posts=str(file)))
    file.write_text("title\na\n")
    with pytest.raises(DataError, match="no column item_id"):
        build_index(replace(building, posts=str(file)))


def test_as_of_a_moment_later_items_and_events_are_unknown(building: IndexBuildConfig) -> None:
    as_of = str(START + 25)
    change = build_index(replace(building, as_of=as_of))
    items = load_index(building.out).items.sort("post_id")
    assert items["post_id"].to_list() == [1001, 1002, 1004, 1011, 1012]
    assert items["last_seen"].to_list()[:3] == [START + 10, START + 20, START + 15]
    assert set(change.change.rejected["reason"]) == {FUTURE}
    written = pl.read_parquet(Path(building.out) / "rejected.parquet")
    assert written["post_id"].to_list() == [1003, 1005, 1006, 1007, 1008, 1009, 1010]
    # 11 of 3,600,000 ms before the moment: the events at 10 are too old
    young = build_index(replace(building, as_of=as_of, max_age_hours=11 / 3_600_000))
    reasons = dict(young.change.rejected.iter_rows())
    assert reasons[1001] == TOO_OLD and len(young.index) == 4


def test_last_seen_by_hand(dataset: PreparedDataset) -> None:
    newest = last_seen(dataset)
    assert newest[[1, 2, 3, 4, 9]].tolist() == [START + t for t in (25, 20, 30, 15, 90)]
    assert set(newest[[0, 5, 6, 7, 8, 10]]) == {-1}
    assert last_seen(dataset, START + 25)[1] == START + 10


def test_new_items_are_added_and_old_ones_replaced(
    building: IndexBuildConfig, tmp_path: Path
) -> None:
    build_index(building)
    new = vectors(tmp_path / "new.parquet", [2001, 1001, 2001])
    adding = IndexAddConfig(building.out, new, same_model=True)
    change = add_items(adding).change
    assert (change.added, change.replaced) == (1, 1)
    assert change.rejected.rows() == [(2001, DUPLICATE)]
    index = load_index(building.out)
    assert len(index) == 13 and index.manifest.model == embeddings_model(building.embeddings)
    assert pl.read_parquet(Path(building.out) / "rejected.parquet").height == 1
    add_items(replace(adding, embeddings=building.embeddings))
    assert not (Path(building.out) / "rejected.parquet").exists()


def test_items_of_another_model_are_refused(building: IndexBuildConfig, tmp_path: Path) -> None:
    build_index(building)
    new = vectors(tmp_path / "new.parquet", [2001])
    with pytest.raises(ArtifactError, match=r"new\.parquet belongs to"):
        add_items(IndexAddConfig(building.out, new))
    other = tmp_path / "other.npz"
    np.savez(other, item_id=[1], embedding=np.ones((1, 3)))
    with pytest.raises(DataError, match="have width 3, those of the index 6"):
        add_items(IndexAddConfig(building.out, str(other), same_model=True))
    assert len(load_index(building.out)) == 12


def test_unusable_embeddings_are_written_aside(tmp_path: Path) -> None:
    file = tmp_path / "posts.npz"
    rows = np.ones((3, 2))
    rows[1, 0] = np.nan
    np.savez(file, article_id=[5, 6, 7], embedding=rows)
    build_index(IndexBuildConfig(str(file), str(tmp_path / "index")))
    written = pl.read_parquet(tmp_path / "index" / "rejected.parquet")
    assert written.rows() == [(6, NOT_FINITE)]


def test_ids_may_be_held_in_32_bits(tmp_path: Path) -> None:
    file = tmp_path / "posts.npz"
    np.savez(file, item_id=np.array([1, 2], np.int32), embedding=[[1.0, 0.0], [np.nan, 1.0]])
    change = build_index(IndexBuildConfig(str(file), str(tmp_path / "index")))
    assert len(change.index) == 1


def test_expired_items_are_removed(building: IndexBuildConfig, tmp_path: Path) -> None:
    build_index(building)
    change = remove_items(IndexRemoveConfig(building.out, last_seen_before=str(START + 25)))
    assert change.change.removed == 2  # seen last at 15 and at 20
    assert not {1002, 1004} & set(load_index(building.out).items["post_id"])
    named = tmp_path / "expired.csv"
    named.write_text("item_id\n1009\n4711\n")
    change = remove_items(IndexRemoveConfig(building.out, posts=str(named)))
    assert (change.change.removed, change.change.unknown) == (1, 1)
    assert len(load_index(building.out)) == 9


def test_items_of_a_file_are_matched_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "posts.csv"
    file.write_text("item_id,title\n007,padded\n7,plain\n8.0,fraction\n")
    titles = describe_items(pl.Series([7, 8]), None, None, str(file))["title"]
    assert titles.to_list() == ["plain", None]
    named = pl.Series([2**63, 7], dtype=pl.UInt64)
    assert describe_items(named, None, None, str(file))["title"].to_list() == [None, "plain"]


@pytest.mark.parametrize("name", ["0101", "+101", "101.0", "ten"])
def test_names_are_no_items_of_a_log_with_numbers(dataset: PreparedDataset, name: str) -> None:
    assert len(describe_items(pl.Series(["101", "4711"]), dataset, None, None)) == 2
    with pytest.raises(DataError, match=f"have the id '{re.escape(name)}', those of .* are whole"):
        describe_items(pl.Series(["101", name]), dataset, None, None)


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Give either posts="):
        IndexRemoveConfig("index")
    with pytest.raises(ConfigError, match="as_of= needs dataset="):
        IndexBuildConfig("a", "b", as_of="2020-01-01")
    with pytest.raises(ConfigError, match="is counted back from as_of="):
        IndexBuildConfig("a", "b", dataset="c", max_age_hours=3)
    with pytest.raises(ArtifactError, match="no index of items"):
        remove_items(IndexRemoveConfig(str(tmp_path / "none"), last_seen_before="2020-01-01"))
    with pytest.raises(DataError, match="is missing"):
        build_index(IndexBuildConfig(str(tmp_path / "none.npz"), str(tmp_path / "index")))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        build_index(IndexBuildConfig(str(tmp_path / "none.npz"), str(tmp_path / "file")))
    with pytest.raises(DataError, match=r"none\.csv does not exist; give posts= .* folder\.$"):
        read_item_file(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match="last_seen_before=1600000000 is not in milliseconds"):
        parse_moment("last_seen_before", "1600000000")


def test_items_of_another_log_are_refused_and_new_ones_counted(
    dataset: PreparedDataset, embeddings: Path, tmp_path: Path
) -> None:
    settings = {"out": str(tmp_path / "index"), "dataset": str(dataset.path)}
    built = build_index(IndexBuildConfig(str(embeddings), **settings))
    assert built.not_in_log == 2
    other = tmp_path / "other.parquet"
    write_item_embeddings(other, np.arange(5), np.eye(5, 6))
    with pytest.raises(DataError, match=r"None of the 5 items of .* \(such as 0\) is in the log"):
        build_index(IndexBuildConfig(str(other), **settings))
    with pytest.raises(ArtifactError, match="made both files, say so with same_model=true"):
        add_items(IndexAddConfig(settings["out"], str(other)))
    added = add_items(IndexAddConfig(settings["out"], str(other), str(dataset.path), None, True))
    assert added.not_in_log == 5
